//! What a kernel is told in Linux's `boot_params`: the memory map, a command line, a ramdisk, where ACPI begins.

use kexec_abi::boot_params::{
    BOOT_FLAG, BootParams, E820_MAX_ENTRIES_ZEROPAGE, EfiInfo, HEADER_MAGIC, LoadFlags, ScreenInfo,
    SetupData, SetupDataType, SetupHeader, XLoadFlags,
};
use kexec_abi::{EntryState, MemoryRegion, PAGE_SIZE, PHYS_ADDR_LIMIT, PhysAddr, PhysRange};
use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};

use crate::e820;
use crate::load::{LoadError, Sink, copy, write};
use crate::place::{Part, PlaceError, Request, place};
use crate::read::ReadAt;

/// Nothing is placed below this address, 1 MiB: what is there has other users (the BIOS's data, the next kernel's
/// trampolines for its other processors).
pub(crate) const LOW_MEMORY_END: u64 = 0x10_0000;

const FOUR_GIB: u64 = 1 << 32;

/// `type_of_loader` of a loader that has no number of its own.
const UNDEFINED_LOADER: u8 = 0xff;

/// What a kernel is told, and what has to be known to find places for it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Parameters<'a> {
    /// The machine's memory map, in any order. The new kernel gets it as e820 by way of [`e820::sanitize`], and its
    /// segments are placed in what it calls usable. Ranges that only the running kernel reserved for itself are usable.
    pub memory_map: &'a [MemoryRegion],
    /// Usable ranges in which nothing may be placed.
    pub forbidden: &'a [PhysRange],
    /// The command line, without a terminating zero.
    pub command_line: &'a [u8],
    /// The ramdisk (initrd).
    pub ramdisk: Option<&'a dyn ReadAt>,
    /// The physical address of ACPI's RSDP.
    pub acpi_rsdp: Option<PhysAddr>,
    /// The screen.
    pub screen_info: Option<ScreenInfo>,
    /// EFI's tables. `None` where they are not known: then the new kernel believes that there is no EFI.
    pub efi_info: Option<EfiInfo>,
}

/// One past the highest address for the kernel with the setup header `hdr` and for what it is told.
pub(crate) fn below(hdr: &SetupHeader) -> PhysAddr {
    let xloadflags = XLoadFlags::from_bits_retain(hdr.xloadflags.get());
    let above_4g = xloadflags.contains(XLoadFlags::CAN_BE_LOADED_ABOVE_4G);
    PhysAddr::new(if above_4g { PHYS_ADDR_LIMIT } else { FOUR_GIB })
}

/// One past the highest address for its ramdisk: a kernel that has to lie below 4 GiB may narrow this further.
fn ramdisk_below(hdr: &SetupHeader) -> PhysAddr {
    let below = below(hdr);
    if below.as_u64() > FOUR_GIB { below } else { PhysAddr::new(u64::from(hdr.initrd_addr_max.get()) + 1) }
}

/// Where the parts are to lie.
pub(crate) struct Places {
    /// `boot_params`, `setup_data` and the command line, in whole frames.
    block: PhysRange,
    ramdisk: Option<PhysRange>,
}

impl<'a> Parameters<'a> {
    /// Parameters with the given memory map and nothing else.
    #[must_use]
    pub const fn new(memory_map: &'a [MemoryRegion]) -> Self {
        Self {
            memory_map,
            forbidden: &[],
            command_line: &[],
            ramdisk: None,
            acpi_rsdp: None,
            screen_info: None,
            efi_info: None,
        }
    }

    /// Gives these parameters to a kernel that has no setup header of its own, such as an ELF file: its entry state with
    /// RSI = `boot_params`.
    ///
    /// The header says what a Linux kernel's would where that makes sense to another kernel: the boot flag, the magic,
    /// protocol 2.15, and a `cmdline_size` that fits the command line.
    ///
    /// `taken` are the kernel's own destinations ([`Elf64::destinations`](crate::Elf64::destinations)).
    ///
    /// # Errors
    ///
    /// [`LoadError::Place`] if there is no room or the command line holds a zero byte, before anything was given to the
    /// sink; [`LoadError::Read`] or [`LoadError::Sink`] on the way.
    pub fn load<S: Sink + ?Sized>(
        &self,
        entry: EntryState,
        taken: impl Iterator<Item = PhysRange> + Clone,
        sink: &mut S,
    ) -> Result<EntryState, LoadError<S::Error>> {
        let hdr = SetupHeader {
            boot_flag: U16::new(BOOT_FLAG),
            header: U32::new(HEADER_MAGIC),
            version: U16::new(0x020f),
            loadflags: LoadFlags::LOADED_HIGH.bits(),
            xloadflags: U16::new((XLoadFlags::KERNEL_64 | XLoadFlags::CAN_BE_LOADED_ABOVE_4G).bits()),
            cmdline_size: U32::new(u32::try_from(self.command_line.len()).unwrap_or(u32::MAX)),
            ..Default::default()
        };
        let places = self.place(&hdr, taken)?;
        let boot_params = self.write(BootParams { hdr, ..Default::default() }, &places, sink)?;
        Ok(EntryState { rsi: boot_params.as_u64(), ..entry })
    }

    /// Finds places outside of `taken`, for a kernel with the setup header `hdr`.
    pub(crate) fn place(
        &self,
        hdr: &SetupHeader,
        taken: impl Iterator<Item = PhysRange> + Clone,
    ) -> Result<Places, PlaceError> {
        let len = self.command_line.len() as u64;
        let limit = u64::from(hdr.cmdline_size.get());
        if len > limit {
            return Err(PlaceError::CommandLineTooLong { len, limit });
        }
        if let Some(at) = self.command_line.iter().position(|&byte| byte == 0) {
            return Err(PlaceError::CommandLineHasZero { at });
        }
        let taken = taken.chain(self.forbidden.iter().copied());
        let block = self.find(Part::Parameters, self.layout().size, below(hdr), taken.clone())?;
        let ramdisk = match self.ramdisk.map_or(0, ReadAt::len) {
            0 => None,
            size => Some(self.find(Part::Ramdisk, size, ramdisk_below(hdr), taken.chain([block]))?),
        };
        Ok(Places { block, ramdisk })
    }

    fn find(
        &self,
        part: Part,
        size: u64,
        below: PhysAddr,
        taken: impl Iterator<Item = PhysRange> + Clone,
    ) -> Result<PhysRange, PlaceError> {
        let request = Request { size, align: PAGE_SIZE, at_or_above: PhysAddr::new(LOW_MEMORY_END), below };
        place(self.memory_map, request, taken).ok_or(PlaceError::NoRoom { part, request })
    }

    /// Completes `params`, whose `hdr` the caller has filled, and gives all parts to the sink. Returns the address of
    /// `boot_params`.
    pub(crate) fn write<S: Sink + ?Sized>(
        &self,
        mut params: BootParams,
        places: &Places,
        sink: &mut S,
    ) -> Result<PhysAddr, LoadError<S::Error>> {
        let boot_params = places.block.start;
        let layout = self.layout();
        let at = |offset: u64| PhysAddr::new(boot_params.as_u64() + offset);

        // Every pointer of the header is set, also to none: what the file held there is not ours to hand on.
        params.hdr.type_of_loader = UNDEFINED_LOADER;
        params.set_command_line(at(layout.command_line).as_u64());
        let (address, size) = match (places.ramdisk, self.ramdisk) {
            (Some(range), Some(ramdisk)) => (range.start.as_u64(), ramdisk.len()),
            _ => (0, 0),
        };
        params.set_ramdisk(address, size);
        params.hdr.setup_data =
            U64::new(if layout.e820_ext == 0 { 0 } else { at(layout.setup_data).as_u64() });
        params.acpi_rsdp_addr = U64::new(self.acpi_rsdp.map_or(0, PhysAddr::as_u64));
        params.screen_info = self.screen_info.unwrap_or_default();
        params.efi_info = self.efi_info.unwrap_or_default();
        for (slot, region) in params.e820_table.iter_mut().zip(e820::sanitize(self.memory_map)) {
            *slot = e820::entry(&region);
            params.e820_entries += 1;
        }

        sink.segment(places.block).map_err(LoadError::Sink)?;
        write(params.as_bytes(), boot_params, sink)?;
        if layout.e820_ext > 0 {
            let node = SetupData {
                next: U64::new(0),
                kind: SetupDataType::E820_EXT,
                len: U32::new((layout.e820_ext * E820_ENTRY) as u32),
            };
            write(node.as_bytes(), at(layout.setup_data), sink)?;
            let rest = e820::sanitize(self.memory_map).skip(E820_MAX_ENTRIES_ZEROPAGE);
            for (region, n) in rest.zip(0..) {
                let to = at(layout.setup_data + SETUP_DATA_HEAD + n * E820_ENTRY);
                write(e820::entry(&region).as_bytes(), to, sink)?;
            }
        }
        // The segment's rest reads as zero, and so the command line is terminated.
        write(self.command_line, at(layout.command_line), sink)?;

        if let (Some(range), Some(ramdisk)) = (places.ramdisk, self.ramdisk) {
            sink.segment(range).map_err(LoadError::Sink)?;
            copy(ramdisk, 0, range.start, ramdisk.len(), sink)?;
        }
        Ok(boot_params)
    }

    /// What lies where in the block, in bytes from its start.
    fn layout(&self) -> Layout {
        let regions = e820::sanitize(self.memory_map).count();
        let e820_ext = regions.saturating_sub(E820_MAX_ENTRIES_ZEROPAGE) as u64;
        let setup_data = size_of::<BootParams>() as u64;
        let command_line = match e820_ext {
            0 => setup_data,
            entries => setup_data + SETUP_DATA_HEAD + entries * E820_ENTRY,
        };
        Layout { setup_data, e820_ext, command_line, size: command_line + self.command_line.len() as u64 + 1 }
    }
}

const SETUP_DATA_HEAD: u64 = size_of::<SetupData>() as u64;
const E820_ENTRY: u64 = size_of::<kexec_abi::boot_params::E820Entry>() as u64;

struct Layout {
    setup_data: u64,
    /// Entries that do not fit `e820_table`.
    e820_ext: u64,
    command_line: u64,
    /// Of all, with the command line's terminating zero.
    size: u64,
}
