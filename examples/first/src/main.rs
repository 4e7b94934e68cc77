//! The first kernel: booted by `bootloader`, it replaces itself by what its bundle holds, another kernel of ours or Linux.
#![no_std]
#![no_main]

use core::convert::Infallible;
use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};
use hobby::acpi::rsdp_range;
use hobby::boot::{self, Boot};
use hobby::{Bundle, Console, Failure, exit, image};
use identmap::{Attributes, Mapping};
use kexec_abi::{EntryState, Levels, PHYS_ADDR_LIMIT, PhysAddr, PhysRange};
use kexec_payload::{Addresses, BzImage, Elf64, Parameters, Request, Sink, place};
use reloc::{Cpu, FillError, Image, Machine, Mode, Options, Segment};
use serial8250::{Config, STATUS_READS};
use x86_64::instructions::interrupts;

const CONSOLE: Console = Console::of("first");

entry_point!(main, config = &boot::CONFIG);

fn main(info: &'static mut BootInfo) -> ! {
    // SAFETY: once, and this kernel asked for that configuration.
    let mut boot = unsafe { Boot::new(info) };
    let free = boot.memory.frames.free_mib();
    writeln!(CONSOLE, "a kernel started by `bootloader`, {free} MiB of memory free");
    writeln!(CONSOLE, "image base {}", image::base());
    match replace(&mut boot) {
        Ok(never) => match never {},
        Err(failure) => writeln!(CONSOLE, "not replaced: {failure}"),
    }
    exit::exit(exit::FAILURE)
}

/// Replaces this kernel by the next one. Returns only if it cannot.
fn replace(boot: &mut Boot) -> Result<Infallible, Failure> {
    let Boot { memory_map, memory, bundle, rsdp } = boot;
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };

    // An image has segments, each with its destination, where it is to stand in the end. Meanwhile the content lies in frames
    // from `memory`: in the very ones of the destination, where they can be had.
    let mut slots = [Segment::EMPTY; 16];
    let mut image = Image::new(&mut slots, memory_map, Mode::Replace);
    let mut parameters = Parameters::new(memory_map);
    parameters.acpi_rsdp = *rsdp;
    let loaded = match bundle.find("second") {
        Some(kernel) => load_second(kernel, bundle, &parameters, &mut image.filling(memory)),
        None => load_linux(bundle, &parameters, cpu.levels(), &mut image.filling(memory)),
    };
    let entry = match loaded {
        Ok(entry) => entry,
        Err(failure) => {
            // Nothing frees itself, so that nothing of ours has to hold on to the kernel's memory.
            image.free(memory);
            return Err(failure);
        }
    };

    // The rest of what has to be known: the firmware's tables and the console have to be mapped on the way.
    let rsdp = rsdp.map(rsdp_range);
    let machine = Machine {
        cpu,
        firmware: rsdp.as_slice(),
        console: Some(Config::COM1.console(STATUS_READS, None)),
        physical_memory: Some(memory.offset),
    };
    let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::RW); 256];
    let mut prepared = image.prepare(memory, &machine, &Options::new(entry), &mut mappings)?;
    write!(CONSOLE, "{}", prepared.plan(memory));

    let counts = prepared.counts();
    let (moved, in_place, zero) = (counts.moved, counts.in_place, counts.zero);
    writeln!(CONSOLE, "pages to move: {moved}, in place already: {in_place}, to fill with zeros: {zero}");
    writeln!(CONSOLE, "over to {}", entry.rip);
    interrupts::disable();
    // SAFETY: interrupts are off, and so are the devices, which the firmware left and nobody started since; one processor
    // runs; the image's memory is the image's alone, and this kernel has nothing left to do.
    Err(unsafe { prepared.execute() }.into())
}

/// A kernel in an ELF file, with Linux's `boot_params`: it gets the bundle as its ramdisk.
fn load_second(
    kernel: &[u8],
    bundle: &Bundle,
    parameters: &Parameters<'_>,
    image: &mut impl Sink<Error = FillError>,
) -> Result<EntryState, Failure> {
    let elf = Elf64::parse(kernel, Addresses::Physical)?;
    // It is position-independent: to stand above what Linux takes from 16 MiB on, so that it is not in its own way later.
    let linked = elf.extent();
    let request = Request {
        size: linked.len(),
        align: elf.align(),
        at_or_above: PhysAddr::new(128 << 20),
        below: PhysAddr::new(PHYS_ADDR_LIMIT),
    };
    let free = place(parameters.memory_map, request, []).ok_or(Failure::no_room(request))?;
    let elf = elf.biased(free.start.as_u64().wrapping_sub(linked.start.as_u64()))?;
    writeln!(CONSOLE, "the second kernel: {} KiB of ELF file, to stand at {free}", kernel.len() >> 10);

    let mut parameters = *parameters;
    parameters.ramdisk = Some(&bundle.archive);
    let entry = elf.load(image)?;
    Ok(parameters.load(entry, elf.destinations(), image)?)
}

/// Linux from its bzImage, with an initrd and a command line.
fn load_linux(
    bundle: &Bundle,
    parameters: &Parameters<'_>,
    levels: Levels,
    image: &mut impl Sink<Error = FillError>,
) -> Result<EntryState, Failure> {
    let (kernel, initrd) = (bundle.file("vmlinuz")?, bundle.file("initrd")?);
    writeln!(CONSOLE, "Linux: {} KiB of bzImage, {} KiB of initrd", kernel.len() >> 10, initrd.len() >> 10);
    let mut parameters = *parameters;
    parameters.command_line = bundle.file("append")?;
    parameters.ramdisk = Some(&initrd);
    Ok(BzImage::parse(kernel)?.load(&parameters, levels, image)?)
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    writeln!(CONSOLE, "{info}");
    exit::exit(exit::FAILURE)
}
