//! The second kernel: an ELF file that a kexec entered. No boot loader, no firmware: what it knows of the machine is Linux's
//! `boot_params`, and it runs on the page tables of the transition that brought it.
#![no_std]
#![no_main]

mod fault;

use core::arch::naked_asm;
use core::convert::Infallible;
use core::ffi::CStr;
use core::panic::PanicInfo;

use hobby::acpi::rsdp_range;
use hobby::{Bundle, Console, Failure, Memory, MemoryMap, exit};
use identmap::{Attributes, Mapping};
use kexec_abi::boot_params::BootParams;
use kexec_abi::{EntryState, Levels, PhysAddr, PhysRange, VirtAddr};
use kexec_exception::{Handler, Tables, TrapFrame};
use kexec_payload::{BzImage, LoadError, Parameters, Request, Sink as _, place};
use reloc::{Cpu, Image, Machine, Mode, Options, Segment};
use serial8250::{Config, STATUS_READS};
use x86_64::instructions::interrupts;

const CONSOLE: Console = Console::of("second");

const STACK_SIZE: usize = 256 * 1024;

#[repr(align(16))]
#[expect(dead_code, reason = "the stack is used by the processor")]
struct Stack([u8; STACK_SIZE]);

static mut STACK: Stack = Stack([0; STACK_SIZE]);

/// The entry point.
///
/// Registers in: RSI = the physical address of `boot_params`; the rest of the state is docs/entry-state.md's. The stack that
/// came with it belongs to the transition, so this kernel brings its own.
#[unsafe(no_mangle)]
#[unsafe(naked)]
extern "C" fn _start() -> ! {
    naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "mov rdi, rsi",
        "call {main}", // so that RSP is where a called function expects it
        "ud2",
        stack = sym STACK,
        size = const STACK_SIZE,
        main = sym main,
    )
}

static mut TABLES: Tables = Tables::new();

struct Faults;

impl Handler for Faults {
    fn handle(frame: &mut TrapFrame) {
        writeln!(CONSOLE, "{frame}");
        exit::exit(exit::FAILURE)
    }
}

extern "sysv64" fn main(boot_params: &'static BootParams) -> ! {
    fault::on_purpose(boot_params);
    let tables = &raw mut TABLES;
    // SAFETY: once, at CPL 0, with interrupts off, as a kexec leaves them; nothing else names TABLES.
    unsafe { (*tables).install::<Faults>() };
    match replace(boot_params) {
        Ok(never) => match never {},
        Err(failure) => writeln!(CONSOLE, "not replaced: {failure}"),
    }
    exit::exit(exit::FAILURE)
}

/// Replaces this kernel by Linux. Returns only if it cannot.
fn replace(boot_params: &'static BootParams) -> Result<Infallible, Failure> {
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };

    let memory_map = MemoryMap::from_boot_params(boot_params);
    let ramdisk =
        boot_params.ramdisk().and_then(|(start, len)| PhysRange::from_len(PhysAddr::new(start), len));
    let ramdisk = ramdisk.unwrap_or_default();
    let in_use = [own_image(), ramdisk];
    // SAFETY: once; this is all in use but the page tables, which are kept before a frame is given. A kexec maps all RAM at its own
    // addresses.
    let mut memory = unsafe { Memory::new(&memory_map, in_use.into_iter(), VirtAddr::new(0)) };
    memory.keep_tables(PhysAddr::new(cpu.cr3), cpu.levels());
    // SAFETY: the ramdisk is RAM in use, mapped at its own addresses, and nothing writes it.
    let archive =
        unsafe { core::slice::from_raw_parts(ramdisk.start.as_u64() as *const u8, ramdisk.len() as usize) };
    let bundle = Bundle { archive };
    let free = memory.frames.free_mib();
    writeln!(CONSOLE, "a kernel started by a kernel, at {}, {free} MiB of memory free", own_image());
    writeln!(CONSOLE, "image base {}", own_image().start);

    let (kernel, initrd) = (bundle.file("vmlinuz")?, bundle.file("initrd")?);
    writeln!(CONSOLE, "Linux: {} KiB of bzImage, {} KiB of initrd", kernel.len() >> 10, initrd.len() >> 10);
    let mut parameters = Parameters::new(&memory_map);
    parameters.acpi_rsdp =
        Some(PhysAddr::new(boot_params.acpi_rsdp_addr.get())).filter(|rsdp| rsdp.as_u64() != 0);
    parameters.command_line = bundle.file("append")?;
    parameters.ramdisk = Some(&initrd);

    let next = wanted_levels(boot_params).unwrap_or(cpu.levels());
    if next != cpu.levels() {
        call(&mut memory, &memory_map, cpu, next)?;
    }
    let kernel = BzImage::parse(kernel)?;
    let mut slots = [Segment::EMPTY; 8];
    let mut image = Image::new(&mut slots, &memory_map, Mode::Replace);
    let entry = match kernel.load(&parameters, next, &mut image.filling(&mut memory)) {
        Ok(entry) => entry,
        Err(error) => {
            image.free(&mut memory);
            return Err(error.into());
        }
    };

    let rsdp = parameters.acpi_rsdp.map(rsdp_range);
    let machine = Machine {
        cpu,
        firmware: rsdp.as_slice(),
        console: Some(Config::COM1.console(STATUS_READS, None)),
        physical_memory: Some(memory.offset),
    };
    let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::RW); 256];
    let mut prepared = image.prepare(&mut memory, &machine, &Options::new(entry), &mut mappings)?;
    write!(CONSOLE, "{}", prepared.plan(&memory));

    let counts = prepared.counts();
    let (moved, in_place, zero) = (counts.moved, counts.in_place, counts.zero);
    writeln!(CONSOLE, "pages to move: {moved}, in place already: {in_place}, to fill with zeros: {zero}");
    writeln!(CONSOLE, "over to {}", entry.rip);
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs; the image's memory is the image's alone, and
    // this kernel has nothing left to do.
    Err(unsafe { prepared.execute() }.into())
}

/// The paging depth that `levels=N` on the command line asks for, for what this kernel starts.
fn wanted_levels(boot_params: &BootParams) -> Option<Levels> {
    let address = boot_params.command_line()?;
    // SAFETY: a loader put a string there that ends with a zero byte; all RAM is mapped at its own addresses.
    match unsafe { CStr::from_ptr(address as *const _) }.to_bytes() {
        b"levels=4" => Some(Levels::Four),
        b"levels=5" => Some(Levels::Five),
        _ => None,
    }
}

/// Calls a few instructions with another paging depth than this kernel's, and comes back to this kernel's own. They return their
/// CR4, as a callee names its next entry point.
fn call(memory: &mut Memory, memory_map: &MemoryMap, cpu: Cpu, levels: Levels) -> Result<(), Failure> {
    // mov rax, cr4; mov [rsp + 8], rax; ret
    const CODE: [u8; 9] = [0x0f, 0x20, 0xe0, 0x48, 0x89, 0x44, 0x24, 0x08, 0xc3];
    let request = Request {
        size: 0x1000,
        align: 0x1000,
        at_or_above: PhysAddr::new(1 << 20),
        below: PhysAddr::new(1 << 32),
    };
    let page = place(memory_map, request, [own_image()]).ok_or(Failure::no_room(request))?;
    let mut slots = [Segment::EMPTY; 1];
    let mut image = Image::new(&mut slots, memory_map, Mode::Preserve);
    let mut filling = image.filling(memory);
    if let Err(error) = filling.segment(page).and_then(|()| filling.write(page.start, &CODE)) {
        image.free(memory);
        return Err(LoadError::Sink(error).into());
    }
    let mut options = Options::new(EntryState::at(page.start));
    options.entry.levels = Some(levels);
    let machine = Machine {
        cpu,
        firmware: &[],
        console: Some(Config::COM1.console(STATUS_READS, None)),
        physical_memory: Some(memory.offset),
    };
    let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::RW); 256];
    let mut prepared = image.prepare(memory, &machine, &options, &mut mappings)?;
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs; the image's memory is the image's alone. The
    // callee keeps its duties: it changes nothing.
    let cr4 = unsafe { prepared.jump() };
    prepared.free(memory);
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let back = unsafe { Cpu::read() }.cr4;
    writeln!(CONSOLE, "called with {} levels: CR4 was {}, and is {back:#x} again", levels.count(), cr4?);
    Ok(())
}

/// Where this kernel lies, with its stack, by the linker.
fn own_image() -> PhysRange {
    unsafe extern "C" {
        static __executable_start: u8;
        static _end: u8;
    }
    let (start, end) = (&raw const __executable_start, &raw const _end);
    PhysRange::new(PhysAddr::new(start as u64), PhysAddr::new(end as u64))
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    writeln!(CONSOLE, "{info}");
    exit::exit(exit::FAILURE)
}
