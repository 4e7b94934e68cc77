//! The page of Linux's self-test, twice in alternation.

use hobby::{Bundle, Failure, Memory};
use kexec_abi::{PhysAddr, VirtAddr};
use peers::SELF_TEST;
use reloc::Options;

use super::called::{AT, jump, page, word};
use super::wrong;
use crate::CONSOLE;
use crate::transition::Around;

pub fn self_test(around: &Around<'_>, memory: &mut Memory, _: &Bundle, _: &str) -> Result<(), Failure> {
    let mut prepared = page(around, memory, &SELF_TEST, "first", 1, Options::new)?;
    let at = |label| VirtAddr::new(AT.as_u64() + SELF_TEST.find(label).unwrap_or_default() as u64);
    for expected in [at("second"), at("first"), at("second"), at("first")] {
        let next = jump(&mut prepared)?;
        writeln!(CONSOLE, "returned, next entry {next}");
        if next != expected {
            wrong!("the next entry was to be {expected}");
        }
    }
    let calls = at("calls").as_u64();
    for call in [calls, calls + 8] {
        let count = word(&prepared, memory, PhysAddr::new(call));
        if count != Some(2) {
            wrong!("{count:?} calls counted in the page, not 2");
        }
    }
    // SAFETY: its frames are mapped as they were.
    let [debug, _] = unsafe { prepared.counters() };
    writeln!(CONSOLE, "{} breakpoints", debug.breakpoint);
    prepared.free(memory);
    Ok(())
}
