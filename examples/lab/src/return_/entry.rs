//! The state in which a kernel is entered: the peer prints it.

use hobby::{Bundle, Failure, Memory};
use kexec_abi::{FrameAllocator as _, PhysMemory as _};
use reloc::{Mode, Options, PrepareError};
use x86_64::instructions::interrupts;

use super::called::{jump, peer};
use crate::CONSOLE;
use crate::transition::Around;

/// `return called`: with its plan, and once.
pub fn called(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle, _: &str) -> Result<(), Failure> {
    let report = memory.allocate().ok_or(PrepareError::OutOfMemory)?;
    memory.zero(report)?;
    let prepared = peer(around, memory, bundle, Mode::Preserve, |mut entry| {
        entry.rsi = report.start().as_u64();
        Options::new(entry)
    });
    let result = prepared.and_then(|mut prepared| {
        write!(CONSOLE, "{}", prepared.plan(memory));
        writeln!(CONSOLE, "report at {:#x}", report.start().as_u64());
        let next = jump(&mut prepared);
        prepared.free(memory);
        next
    });
    memory.free(report);
    result.map(drop)
}

/// `return entered`: for good.
pub fn entered(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle, _: &str) -> Result<(), Failure> {
    let mut prepared = peer(around, memory, bundle, Mode::Replace, Options::new)?;
    write!(CONSOLE, "{}", prepared.plan(memory));
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs; the image's memory is the image's alone, and
    // this kernel has nothing left to do.
    Err(unsafe { prepared.execute() }.into())
}
