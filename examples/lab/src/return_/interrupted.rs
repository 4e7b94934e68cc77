//! NMIs and machine checks while a peer is called and returns.

use hobby::{Bundle, Failure, Memory};
use peers::HOSTILE;
use reloc::Options;

use super::called::{jump, page};
use super::{traps, wrong};
use crate::CONSOLE;
use crate::transition::Around;

/// So many pages are exchanged that most NMIs come in the transition.
const PAGES: u64 = 128;

/// Calls without an NMI before it counts as lost.
const PATIENCE: u32 = 10_000;

/// `return nmi COUNT`: asks for an NMI, jumps until one was handled, asks again.
pub fn nmi(around: &Around<'_>, memory: &mut Memory, _: &Bundle, count: &str) -> Result<(), Failure> {
    traps::install();
    let mut prepared = page(around, memory, &HOSTILE, "direction", PAGES, Options::new)?;
    let mut jumps = 0_u64;
    let mut handled = [0; 3];
    for _ in 0..count.trim().parse().unwrap_or(1) {
        writeln!(CONSOLE, "nmi");
        let before = handled;
        for _ in 0..PATIENCE {
            jump(&mut prepared)?;
            jumps += 1;
            // SAFETY: its frames are mapped as they were.
            let [debug, outgoing] = unsafe { prepared.counters() };
            handled = [debug.nmi, outgoing.nmi, traps::counts().1];
            if handled != before {
                break;
            }
        }
        if handled == before {
            wrong!("no NMI in {PATIENCE} jumps");
            break;
        }
    }
    let [debug, outgoing, kernel] = handled;
    writeln!(
        CONSOLE,
        "{jumps} jumps: {debug} NMIs under the transition's tables, {outgoing} on the way from and to the kernel's, {kernel} the kernel's own"
    );
    prepared.free(memory);
    Ok(())
}

/// `return mce`: calls a peer that waits for the end.
pub fn machine_check(around: &Around<'_>, memory: &mut Memory, _: &Bundle, _: &str) -> Result<(), Failure> {
    let mut prepared = page(around, memory, &HOSTILE, "wait", 1, Options::new)?;
    jump(&mut prepared)?;
    wrong!("the peer did not wait");
    prepared.free(memory);
    Ok(())
}
