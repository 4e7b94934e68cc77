//! The way there and back, a debug exception at each instruction boundary.
//!
//! With QEMU's `-icount` the time-stamp counter counts instructions, so many ticks each. So the same call is made twice: its
//! instructions are counted without the trap flag, its debug exceptions with it. The difference are the boundaries at which none
//! is taken.

use core::arch::naked_asm;

use hobby::{Bundle, Failure, Memory};
use kexec_exception::page_code::OnDebug;
use peers::HOSTILE;
use reloc::{Options, Prepared};

use super::called::page;
use super::{traps, wrong};
use crate::CONSOLE;
use crate::transition::Around;

type Call = extern "sysv64" fn(&mut Prepared);

extern "sysv64" fn call(prepared: &mut Prepared) {
    // SAFETY: interrupts are off since the tables were installed, one processor runs; the image's memory is the image's
    // alone, and the callee keeps its duties.
    if let Err(refused) = unsafe { prepared.jump() } {
        wrong!("{refused}");
    }
}

/// One instruction.
#[unsafe(naked)]
extern "sysv64" fn nothing(_: &mut Prepared) {
    naked_asm!("ret")
}

/// The instructions of [`timed`] and [`nothing`] from one reading of the time-stamp counter to the next.
const BETWEEN: u64 = 5;

/// The time-stamp counter's advance over a call.
#[unsafe(naked)]
extern "sysv64" fn timed(_: Call, _: &mut Prepared) -> u64 {
    naked_asm!(
        "push rbx",
        "mov r8, rdi",
        "mov rdi, rsi",
        "rdtsc",
        "shl rdx, 32",
        "lea rbx, [rdx + rax]",
        "call r8",
        "rdtsc",
        "shl rdx, 32",
        "add rax, rdx",
        "sub rax, rbx",
        "pop rbx",
        "ret",
    )
}

/// A call with the trap flag on.
#[unsafe(naked)]
extern "sysv64" fn trapped(_: Call, _: &mut Prepared) {
    naked_asm!(
        "sub rsp, 8",
        "mov r8, rdi",
        "mov rdi, rsi",
        "pushfq",
        "or qword ptr [rsp], 0x100",
        "popfq",
        "call r8",
        "pushfq",
        "and qword ptr [rsp], -0x101",
        "popfq",
        "add rsp, 8",
        "ret",
    )
}

/// Debug exceptions so far: this kernel's, and those of both views of the transition.
fn debug_exceptions(prepared: &Prepared) -> u64 {
    // SAFETY: its frames are mapped as they were.
    let transition: u64 = unsafe { prepared.counters() }.iter().map(|counters| counters.debug).sum();
    transition + traps::counts().0
}

fn image(
    around: &Around<'_>,
    memory: &mut Memory,
    pages: u64,
    single_step: bool,
) -> Result<Prepared, Failure> {
    page(around, memory, &HOSTILE, "direction", pages, |entry| Options {
        single_step,
        on_debug: OnDebug::Count,
        ..Options::new(entry)
    })
}

/// `return stepped [PAGES]`
pub fn stepped(around: &Around<'_>, memory: &mut Memory, _: &Bundle, pages: &str) -> Result<(), Failure> {
    let pages = pages.trim().parse().unwrap_or(1);
    traps::install();
    let mut plain = image(around, memory, pages, false)?;
    let tick = timed(nothing, &mut plain) / BETWEEN;
    let empty = timed(nothing, &mut plain);
    let mut count = || timed(call, &mut plain) / tick - BETWEEN;
    let instructions = count();
    if empty != BETWEEN * tick || count() != instructions {
        wrong!("the time-stamp counter does not count instructions: use -icount");
    }
    plain.free(memory);

    let mut stepped = image(around, memory, pages, true)?;
    let mut count = |call| {
        let before = debug_exceptions(&stepped);
        trapped(call, &mut stepped);
        debug_exceptions(&stepped) - before
    };
    let overhead = count(nothing);
    let exceptions = count(call) - overhead;
    writeln!(
        CONSOLE,
        "{instructions} instructions, {exceptions} debug exceptions, {} boundaries without",
        instructions - exceptions
    );
    // SAFETY: its frames are mapped as they were.
    let [debug, outgoing] = unsafe { stepped.counters() };
    writeln!(CONSOLE, "{} under the transition's tables, {} on the way", debug.debug, outgoing.debug);
    stepped.free(memory);
    Ok(())
}
