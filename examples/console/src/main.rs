//! A kernel whose one console is the port that it is told of, in itself and in the transition to the next kernel.
//!
//! And that transition goes wrong: it stops at a breakpoint while this kernel's map is still in force, goes on, and faults in the
//! move, at an entry of its list that was damaged. Both dumps come through the port; so does what they are decoded by.
#![no_std]
#![no_main]

mod port;
mod uncached;

use core::convert::Infallible;
use core::fmt::Write;
use core::panic::PanicInfo;
use core::ptr::NonNull;

use bootloader_api::{BootInfo, entry_point};
use hobby::acpi::rsdp_range;
use hobby::boot::{self, Boot};
use hobby::console::Lines;
use hobby::{Console, Failure, exit, image};
use identmap::{Attributes, Mapping};
use kexec_abi::list::{ENTRIES_PER_FRAME, Entry, Item};
use kexec_abi::{EntryState, Frame, FrameAllocator, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange};
use reloc::{Breakpoints, Cpu, Image, Machine, Mode, Options, PrepareError, Prepared, Segment};
use serial8250::{Registers, STATUS_READS, Uart};
use x86_64::instructions::interrupts;

const NAME: &str = "console";

/// COM1, for what can't be said on the port, or must be said of it.
const COM1: Console = Console::of(NAME);

/// No RAM and no device of the virtual machine: 512 GiB. It fits an entry of the list, and nothing maps it.
const NOWHERE: Frame = Frame::containing(PhysAddr::new(1 << 39));

/// The next kernel, which is never entered: `2: hlt; jmp 2b`.
const NEXT: &[u8] = &[0xf4, 0xeb, 0xfd];

entry_point!(main, config = &boot::CONFIG);

fn main(info: &'static mut BootInfo) -> ! {
    // SAFETY: once, and this kernel asked for that configuration.
    let mut boot = unsafe { Boot::new(info) };
    match run(&mut boot) {
        Ok(never) => match never {},
        Err(failure) => writeln!(COM1, "not replaced: {failure}"),
    }
    exit::exit(exit::FAILURE)
}

/// Finds the port, says so on it, and replaces this kernel. Returns only if it cannot.
fn run(boot: &mut Boot) -> Result<Infallible, Failure> {
    let command_line = str::from_utf8(boot.bundle.file("append")?).unwrap_or_default();
    let config = port::find(command_line).ok_or(Failure::Missing("port"))?;
    let page = match config.mmio() {
        Some(registers) => Some(
            uncached::map(&registers, &mut boot.memory).map_err(|_| Failure::Missing("page for the port"))?,
        ),
        None => None,
    };
    let map = |base, _| NonNull::new((page?.as_u64() + base % PAGE_SIZE) as *mut u8);
    // SAFETY: a port, or nothing that accesses disturb, mapped for good; nobody else drives it.
    let uart = unsafe { Uart::open(&config, map) }.ok_or(Failure::Missing("way to the port"))?;
    let mut lines = Lines::new(NAME, uart.with_crlf());
    // Firmware may have left something on the line.
    lines.port.write_bytes(b"\r\n");
    let _ = writeln!(lines, "this is {config}");
    if let Some(fault) = lines.port.fault() {
        writeln!(COM1, "{config}: {fault}");
    }

    let mut prepared = prepare(boot, config.console(STATUS_READS, page))?;
    let _ = report(&mut lines, &prepared, boot);
    damage(&prepared, boot)?;
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs, and this kernel has nothing left to do. The list is
    // damaged: it is meant to go wrong.
    Err(unsafe { prepared.execute() }.into())
}

/// One page of code, for a frame that is in use: so it has to be moved.
fn prepare(boot: &mut Boot, console: kexec_abi::Console) -> Result<Prepared, Failure> {
    let Boot { memory_map, memory, rsdp, .. } = boot;
    let destination = memory.allocate().ok_or(PrepareError::OutOfMemory)?.range();
    let mut slots = [Segment::EMPTY; 1];
    let mut image = Image::new(&mut slots, memory_map, Mode::Replace);
    image.add(destination)?;
    image.write(memory, destination.start, NEXT)?;
    let rsdp = rsdp.map(rsdp_range);
    let machine = Machine {
        // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
        cpu: unsafe { Cpu::read() },
        firmware: rsdp.as_slice(),
        console: Some(console),
        physical_memory: Some(memory.offset),
    };
    let entry = EntryState::at(destination.start);
    let options = Options { breakpoints: Breakpoints::ENTER, ..Options::new(entry) };
    let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::RW); 256];
    Ok(image.prepare(memory, &machine, &options, &mut mappings)?)
}

/// What `kexec-decode` explains the dumps by.
fn report(lines: &mut Lines<Uart<Registers>>, prepared: &Prepared, boot: &Boot) -> core::fmt::Result {
    writeln!(lines, "image base {}", image::base())?;
    write!(lines, "{}", prepared.plan(&boot.memory))
}

/// Has the list name a source that is not there.
fn damage(prepared: &Prepared, boot: &mut Boot) -> Result<(), Failure> {
    let Item::Indirection(list) = prepared.head().decode() else { return Err(Failure::Missing("list")) };
    for index in 0..ENTRIES_PER_FRAME {
        let entry = Entry::from(boot.memory.read_word(list, index)?);
        if let Item::Source { pages, .. } = entry.decode()
            && let Some(entry) = Entry::source(NOWHERE, pages)
        {
            return Ok(boot.memory.write_word(list, index, entry.as_u64())?);
        }
    }
    Err(Failure::Missing("page to be moved"))
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    writeln!(COM1, "{info}");
    exit::exit(exit::FAILURE)
}
