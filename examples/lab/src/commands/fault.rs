//! Transitions that go wrong on purpose: a fault at a place of one's choice, damage to what was prepared, breakpoints.

mod code;
mod damage;

use core::convert::Infallible;

use hobby::boot::Boot;
use hobby::{Failure, image};
use kexec_abi::{EntryState, PAGE_SIZE, PhysAddr, PhysRange};
use kexec_exception::page_code::After;
use kexec_payload::{LoadError, Sink};
use reloc::{Breakpoints, Mode, Options, Prepared};
use x86_64::instructions::interrupts;

use super::kernels::split;
use crate::CONSOLE;
use crate::memory::Ordered;
use crate::transition::{Around, load_elf};

/// Where the small kernels of this file stand.
const KERNEL: PhysAddr = PhysAddr::new(0x40_0000);

/// Reads of port 0x80, about a microsecond each, before a reset that was asked for.
const RESET_WAIT: u32 = 1000;

/// `fault PLACE CAUSE [silent|loud-once|reset]`: the exception that CAUSE raises (docs/faults.md), at PLACE.
///
/// With `silent` the transition has no console, with `loud-once` one that faults while it prints, with `reset` a fatal dump is
/// followed by a reset.
pub fn fault(boot: &mut Boot, arguments: &str) {
    let mut words = arguments.split_whitespace();
    let (place, cause) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let Some(faulty) = code::of(cause) else { return writeln!(CONSOLE, "no cause {cause}") };
    let (mut around, memory, bundle) = split(boot);
    let mut after = After::Halt;
    match words.next() {
        Some("silent") => around.console = None,
        Some("loud-once") => around.console = Some(code::console_that_faults()),
        Some("reset") => after = After::Reset { wait: RESET_WAIT },
        _ => {}
    }
    let options = |entry| Options { after, ..Options::new(entry) };
    let memory = &mut Ordered::down(memory);
    let kernel: [&[u8]; 2] = match place {
        "entry" => [&[], faulty.bytes()],
        "own-gdt" => [code::region("own-gdt"), faulty.bytes()],
        _ => [&[], code::region("done")],
    };
    let prepared = match place {
        "enter" | "move" | "entry" | "own-gdt" => {
            small_kernel(&around, memory, Mode::Replace, options, &kernel)
        }
        "payload" => bundle.file("second").and_then(|file| {
            around.prepare(memory, Mode::Replace, options, |parameters, image| {
                let mut line = *b"fault=                    ";
                line[6..][..cause.len()].copy_from_slice(cause.as_bytes());
                let mut parameters = *parameters;
                parameters.command_line = line.trim_ascii_end();
                load_elf(file, &[], None, &parameters, image)
            })
        }),
        _ => return writeln!(CONSOLE, "no place {place}"),
    };
    let prepared = prepared.and_then(|prepared| {
        match place {
            "enter" => damage::text(memory, faulty.bytes())?,
            "move" => damage::walk(memory, &prepared, faulty.bytes())?,
            _ => {}
        }
        if cause == "reserved-bit" {
            damage::reserved_bit(memory, &prepared)?;
        }
        Ok(prepared)
    });
    go(prepared, memory)
}

/// `damage WHAT`: the same with something bad in what was prepared: in the list, in the control block, or the entry point.
pub fn damage(boot: &mut Boot, what: &str) {
    let (around, memory, _) = split(boot);
    let memory = &mut Ordered::down(memory);
    let prepared = small_kernel(&around, memory, Mode::Replace, Options::new, &[code::region("done")]);
    let prepared =
        prepared.and_then(|mut prepared| damage::prepared(memory, &mut prepared, what).map(|()| prepared));
    go(prepared, memory)
}

/// `breakpoints PHASES [silent]`: there, with a breakpoint at each of the phases named, or `all`.
pub fn breakpoints(boot: &mut Boot, arguments: &str) {
    let (phases, rest) = arguments.split_once(' ').unwrap_or((arguments, ""));
    let breakpoints =
        phases.split(',').fold(Breakpoints::empty(), |breakpoints, phase| breakpoints | named(phase));
    let (mut around, memory, _) = split(boot);
    if rest == "silent" {
        around.console = None;
    }
    let options = |entry| Options { breakpoints, ..Options::new(entry) };
    let memory = &mut Ordered::down(memory);
    go(small_kernel(&around, memory, Mode::Replace, options, &[code::region("done")]), memory)
}

/// `breakpoints-and-back`: there and back, with a breakpoint at each phase.
pub fn breakpoints_and_back(boot: &mut Boot, _: &str) {
    let free = boot.memory.frames.free_count();
    let (around, memory, _) = split(boot);
    let memory = &mut Ordered::down(memory);
    let options = |entry| Options { breakpoints: Breakpoints::all(), ..Options::new(entry) };
    let called = small_kernel(&around, memory, Mode::Preserve, options, &[code::region("return")]).and_then(
        |mut prepared| {
            about(&prepared, memory);
            interrupts::disable();
            // SAFETY: interrupts are off, no device was started, one processor runs; the callee returns at once, and changes
            // nothing.
            let result = unsafe { prepared.jump() };
            // SAFETY: the frames are mapped for good.
            let counters = unsafe { prepared.counters() };
            prepared.free(memory);
            Ok((result?, counters))
        },
    );
    match called {
        Ok((next, [inside, outside])) => writeln!(
            CONSOLE,
            "back, next entry {next}; {} breakpoints in the transition's map, {} in this kernel's",
            inside.breakpoint, outside.breakpoint
        ),
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
    assert_eq!(boot.memory.frames.free_count(), free, "frames were lost");
}

/// `single-step`: there, with a dump at each instruction.
pub fn single_step(boot: &mut Boot, _: &str) {
    let (around, memory, _) = split(boot);
    let options = |entry| Options { single_step: true, ..Options::new(entry) };
    // Loaded in place, so that nothing is moved, and with a short list: there are few boundaries then.
    let prepared = small_kernel(&around, memory, Mode::Replace, options, &[code::region("done")]);
    let prepared = prepared.and_then(|prepared| damage::shorten(memory, &prepared).map(|()| prepared));
    go(prepared, memory)
}

fn named(phase: &str) -> Breakpoints {
    match phase {
        "enter" => Breakpoints::ENTER,
        "identity" => Breakpoints::IDENTITY,
        "move" => Breakpoints::MOVE,
        "leave" => Breakpoints::LEAVE,
        "all" => Breakpoints::all(),
        _ => Breakpoints::empty(),
    }
}

/// A kernel of a few instructions: its code, one after the other, at the start of a page, and a page for a stack.
fn small_kernel<M>(
    around: &Around<'_>,
    memory: &mut M,
    mode: Mode,
    options: impl FnOnce(EntryState) -> Options,
    code: &[&[u8]],
) -> Result<Prepared, Failure>
where
    M: kexec_abi::PhysMemory + kexec_abi::FrameAllocator,
{
    around.prepare(memory, mode, options, |_, image| {
        let end = PhysAddr::new(KERNEL.as_u64() + 2 * PAGE_SIZE);
        let mut at = KERNEL;
        image.segment(PhysRange::new(KERNEL, end)).map_err(LoadError::Sink)?;
        for part in code {
            image.write(at, part).map_err(LoadError::Sink)?;
            at = PhysAddr::new(at.as_u64() + part.len() as u64);
        }
        Ok(EntryState::at(KERNEL))
    })
}

/// What `kexec-decode` is to know of it.
fn about<M: kexec_abi::PhysMemory>(prepared: &Prepared, memory: &M) {
    writeln!(CONSOLE, "image base {}", image::base());
    write!(CONSOLE, "{}", prepared.plan(memory));
}

fn go<M: kexec_abi::PhysMemory>(prepared: Result<Prepared, Failure>, memory: &M) {
    let went = prepared.and_then(|mut prepared| -> Result<Infallible, Failure> {
        about(&prepared, memory);
        interrupts::disable();
        // SAFETY: interrupts are off, no device was started, one processor runs, and this kernel has nothing left to do. What
        // was prepared may be damaged: it is meant to go wrong.
        Err(unsafe { prepared.execute() }.into())
    });
    match went {
        Ok(never) => match never {},
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
}
