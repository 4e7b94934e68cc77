//! From a kernel's file to a transition, as each command needs it.

use hobby::acpi::rsdp_range;
use hobby::{Failure, MemoryMap};
use identmap::{Attributes, Mapping};
use kexec_abi::{
    Console, EntryState, FrameAllocator, Levels, PHYS_ADDR_LIMIT, PhysAddr, PhysMemory, PhysRange, VirtAddr,
};
use kexec_payload::{Addresses, BzImage, Elf64, Parameters, ReadAt, Request, Sink, place};
use reloc::{Cpu, FillError, Filling, Image, Machine, Mode, Options, Prepared, Segment};

/// What there is beside memory to take frames from.
#[derive(Clone, Copy)]
pub struct Around<'a> {
    pub memory_map: &'a MemoryMap,
    pub rsdp: Option<PhysAddr>,
    pub offset: VirtAddr,
    /// Where dumps go.
    pub console: Option<Console>,
    /// The paging depth to enter with, if another one than the payload asks for.
    pub levels: Option<Levels>,
}

impl Around<'_> {
    /// Loads an image by `load`, and prepares it. An error leaves all memory as it was.
    pub fn prepare<M>(
        &self,
        memory: &mut M,
        mode: Mode,
        options: impl FnOnce(EntryState) -> Options,
        load: impl FnOnce(&Parameters<'_>, &mut Filling<'_, '_, M>) -> Result<EntryState, Failure>,
    ) -> Result<Prepared, Failure>
    where
        M: PhysMemory + FrameAllocator,
    {
        let mut slots = [Segment::EMPTY; 16];
        let mut image = Image::new(&mut slots, self.memory_map, mode);
        let mut parameters = Parameters::new(self.memory_map);
        parameters.acpi_rsdp = self.rsdp;
        let entry = match load(&parameters, &mut image.filling(memory)) {
            Ok(entry) => entry,
            Err(failure) => {
                image.free(memory);
                return Err(failure);
            }
        };
        let rsdp = self.rsdp.map(rsdp_range);
        let machine = Machine {
            // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
            cpu: unsafe { Cpu::read() },
            firmware: rsdp.as_slice(),
            console: self.console,
            physical_memory: Some(self.offset),
        };
        let mut mappings = [Mapping::identity(PhysRange::default(), Attributes::RW); 256];
        let mut options = options(entry);
        options.entry.levels = self.levels.or(options.entry.levels);
        Ok(image.prepare(memory, &machine, &options, &mut mappings)?)
    }
}

/// Linux, from its bzImage.
pub fn load_linux(
    kernel: impl ReadAt,
    initrd: &[u8],
    command_line: &str,
    parameters: &Parameters<'_>,
    image: &mut impl Sink<Error = FillError>,
) -> Result<EntryState, Failure> {
    let mut parameters = *parameters;
    parameters.command_line = command_line.as_bytes();
    parameters.ramdisk = Some(&initrd);
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let levels = unsafe { Cpu::read() }.levels();
    Ok(BzImage::parse(kernel)?.load(&parameters, levels, image)?)
}

/// A position-independent kernel from its ELF file, at `at` or where there is room; it gets `ramdisk`.
pub fn load_elf(
    kernel: impl ReadAt,
    ramdisk: &[u8],
    at: Option<PhysAddr>,
    parameters: &Parameters<'_>,
    image: &mut impl Sink<Error = FillError>,
) -> Result<EntryState, Failure> {
    let mut parameters = *parameters;
    parameters.ramdisk = Some(&ramdisk);
    let elf = Elf64::parse(kernel, Addresses::Physical)?;
    let linked = elf.extent();
    let request = Request {
        size: linked.len(),
        align: elf.align(),
        at_or_above: PhysAddr::new(128 << 20),
        below: PhysAddr::new(PHYS_ADDR_LIMIT),
    };
    let start = match at {
        Some(start) => start,
        None => place(parameters.memory_map, request, []).ok_or(Failure::no_room(request))?.start,
    };
    let elf = elf.biased(start.as_u64().wrapping_sub(linked.start.as_u64()))?;
    let entry = elf.load(image)?;
    Ok(parameters.load(entry, elf.destinations(), image)?)
}
