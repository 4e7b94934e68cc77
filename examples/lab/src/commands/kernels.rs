//! To another kernel, for good.

use core::convert::Infallible;

use hobby::boot::Boot;
use hobby::{Failure, Memory};
use kexec_abi::{FrameAllocator, Levels, PhysAddr, PhysMemory};
use reloc::{Mode, Options, Prepared};
use serial8250::{Config, STATUS_READS};
use x86_64::instructions::interrupts;

use crate::CONSOLE;
use crate::memory::Ordered;
use crate::transition::{Around, load_elf, load_linux};

/// `linux COMMAND LINE`: to the bundle's Linux.
pub fn linux(boot: &mut Boot, command_line: &str) {
    let (around, memory, bundle) = split(boot);
    let prepared = prepare_linux(&around, memory, &bundle, command_line);
    go(prepared)
}

/// `linux-moved COMMAND LINE`: the same from frames of which none lies where it is wanted, so that all of it has to be moved.
pub fn linux_moved(boot: &mut Boot, command_line: &str) {
    let (around, memory, bundle) = split(boot);
    let prepared = prepare_linux(&around, &mut Ordered::down(memory), &bundle, command_line);
    go(prepared)
}

/// `linux-scattered COMMAND LINE`: the same from frames all over memory, many of them where another page is to stand.
pub fn linux_scattered(boot: &mut Boot, command_line: &str) {
    let (around, memory, bundle) = split(boot);
    let prepared = prepare_linux(&around, &mut Ordered::scattered(memory), &bundle, command_line);
    go(prepared)
}

/// `second [ADDRESS]`: to the bundle's second kernel, which is to stand at the address, in hexadecimal, or where there is room.
pub fn second(boot: &mut Boot, address: &str) {
    let (around, memory, bundle) = split(boot);
    let at = u64::from_str_radix(address.trim_start_matches("0x"), 16).ok().map(PhysAddr::new);
    let prepared = bundle.file("second").and_then(|kernel| {
        around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
            load_elf(kernel, bundle.archive, at, parameters, image)
        })
    });
    go(prepared)
}

/// `second-levels OWN NEXT`: to the bundle's second kernel, which runs with OWN levels of paging, calls a page of code with
/// NEXT, and goes on to Linux with NEXT.
pub fn second_levels(boot: &mut Boot, arguments: &str) {
    let (mut around, memory, bundle) = split(boot);
    let (own, next) = arguments.split_once(' ').unwrap_or((arguments, ""));
    around.levels = levels(own);
    let line: &[u8] = if levels(next) == Some(Levels::Five) { b"levels=5" } else { b"levels=4" };
    let prepared = bundle.file("second").and_then(|kernel| {
        around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
            let mut parameters = *parameters;
            parameters.command_line = line;
            load_elf(kernel, bundle.archive, None, &parameters, image)
        })
    });
    go(prepared)
}

/// 4 or 5.
pub fn levels(word: &str) -> Option<Levels> {
    [Levels::Four, Levels::Five].into_iter().find(|levels| word.parse() == Ok(levels.count()))
}

/// The parts of a machine, memory apart.
pub fn split(boot: &mut Boot) -> (Around<'_>, &mut Memory, hobby::Bundle) {
    let Boot { memory_map, memory, bundle, rsdp } = boot;
    let console = Some(Config::COM1.console(STATUS_READS, None));
    (Around { memory_map, rsdp: *rsdp, offset: memory.offset, console, levels: None }, memory, *bundle)
}

/// The bundle's Linux, ready to go.
pub fn prepare_linux<M: PhysMemory + FrameAllocator>(
    around: &Around<'_>,
    memory: &mut M,
    bundle: &hobby::Bundle,
    command_line: &str,
) -> Result<Prepared, Failure> {
    let (kernel, initrd) = (bundle.file("vmlinuz")?, bundle.file("initrd")?);
    around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_linux(kernel, initrd, command_line, parameters, image)
    })
}

fn go(prepared: Result<Prepared, Failure>) {
    match prepared.and_then(execute) {
        Ok(never) => match never {},
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
}

fn execute(mut prepared: Prepared) -> Result<Infallible, Failure> {
    let counts = prepared.counts();
    writeln!(CONSOLE, "moved {} in-place {} zero {}", counts.moved, counts.in_place, counts.zero);
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs; the image's memory is the image's alone, and
    // this kernel has nothing left to do.
    Err(unsafe { prepared.execute() }.into())
}
