//! What a transition must map.
//!
//! All RAM, since a new kernel reads what it likes before it has a page-fault handler: not executable, but for the
//! destinations and the low memory in which Linux's decompressor places a trampoline. The firmware's tables (Linux 5760929f6545),
//! the console's registers, the control frames as the processor uses them; and, at the running kernel's addresses, what
//! is in use while the maps are switched.

use identmap::{Attributes, Cache, Mapping};
use kexec_abi::{MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange, VirtAddr};

use crate::image::Image;

/// Where Linux's decompressor reads the BIOS data area and writes its trampoline, if there is no EFI.
const LOW_MEMORY: PhysRange = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0xa_0000));

/// Page 0, with the BIOS data area.
const PAGE_ZERO: PhysRange = PhysRange::new(PhysAddr::new(0), PhysAddr::new(PAGE_SIZE));

/// Who wins where two of these overlap.
mod priority {
    pub(super) const RAM: u8 = 0;
    pub(super) const LOW: u8 = 1;
    pub(super) const DESTINATION: u8 = 2;
    pub(super) const CONSOLE: u8 = 3;
    pub(super) const CONTROL: u8 = 4;
    pub(super) const ALIAS: u8 = 5;
}

/// The mappings of a transition, collected in the caller's slice.
pub(crate) struct TransitionMap<'m> {
    mappings: &'m mut [Mapping],
    len: usize,
}

/// The caller's slice is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Full(pub(crate) usize);

impl<'m> TransitionMap<'m> {
    pub(crate) fn new(mappings: &'m mut [Mapping]) -> Self {
        Self { mappings, len: 0 }
    }

    pub(crate) fn into_mappings(self) -> &'m mut [Mapping] {
        &mut self.mappings[..self.len]
    }

    fn push(&mut self, mapping: Mapping) -> Result<(), Full> {
        let len = self.mappings.len();
        *self.mappings.get_mut(self.len).ok_or(Full(len))? = mapping;
        self.len += 1;
        Ok(())
    }

    fn identity(&mut self, range: PhysRange, attributes: Attributes, priority: u8) -> Result<(), Full> {
        if range.is_empty() {
            return Ok(());
        }
        self.push(Mapping::identity(range.round_out(), attributes).with_priority(priority))
    }

    /// RAM and firmware tables.
    pub(crate) fn memory(&mut self, map: &[MemoryRegion], firmware: &[PhysRange]) -> Result<(), Full> {
        self.identity(PAGE_ZERO, Attributes::RWX, priority::LOW)?;
        for region in map.iter().filter(|region| region.kind.is_ram()) {
            self.identity(region.range, Attributes::RW, priority::RAM)?;
            if region.kind == MemoryKind::Usable && region.range.start < LOW_MEMORY.end {
                let low = PhysRange::new(region.range.start, region.range.end.min(LOW_MEMORY.end));
                self.identity(low, Attributes::RWX, priority::LOW)?;
            }
        }
        firmware.iter().try_for_each(|range| self.identity(*range, Attributes::RW, priority::RAM))
    }

    /// The places where the image is to stand and run.
    pub(crate) fn destinations(&mut self, image: &Image<'_>) -> Result<(), Full> {
        let segments = image.segments().iter();
        segments
            .map(|s| s.destination)
            .try_for_each(|d| self.identity(d, Attributes::RWX, priority::DESTINATION))
    }

    /// The registers of a memory-mapped console, exact to the page, uncached.
    pub(crate) fn console(&mut self, registers: PhysRange) -> Result<(), Full> {
        self.identity(registers, Attributes::RW.with_cache(Cache::Uncached), priority::CONSOLE)
    }

    /// A control frame, or a run of them.
    pub(crate) fn control(&mut self, range: PhysRange, attributes: Attributes) -> Result<(), Full> {
        self.identity(range, attributes, priority::CONTROL)
    }

    /// A frame at an address of the running kernel's.
    pub(crate) fn alias(
        &mut self,
        virt: VirtAddr,
        range: PhysRange,
        attributes: Attributes,
    ) -> Result<(), Full> {
        self.push(Mapping::alias(virt, range, attributes).with_priority(priority::ALIAS))
    }

    /// What is mapped identically at a virtual address, if anything: an alias there would hide it.
    pub(crate) fn identity_at(&self, virt: VirtAddr) -> Option<PhysRange> {
        let address = PhysAddr::new(virt.as_u64());
        let mapped = self.mappings[..self.len].iter();
        mapped.filter(|m| m.priority < priority::ALIAS).map(|m| m.phys).find(|range| range.contains(address))
    }
}
