//! What the machine's memory is used for, as a loader told it.

use core::ops::Deref;

use bootloader_api::info::{MemoryRegion as BootRegion, MemoryRegionKind};
use kexec_abi::boot_params::BootParams;
use kexec_abi::{MemoryKind, MemoryRegion, PhysRange};

/// More than the map of any virtual machine has, once neighbours are joined.
const CAPACITY: usize = 128;

/// The memory map in e820's terms: what the next kernel will be told.
pub struct MemoryMap {
    regions: [MemoryRegion; CAPACITY],
    len: usize,
}

impl MemoryMap {
    /// From `bootloader`'s. What it calls in use is this kernel's own, so the next kernel may use it.
    pub fn from_bootloader(regions: &[BootRegion]) -> Self {
        Self::collect(regions.iter().map(MemoryRegion::from))
    }

    /// From Linux's `boot_params`.
    pub fn from_boot_params(params: &BootParams) -> Self {
        Self::collect(params.e820().iter().map(|entry| {
            let (start, size) = (entry.addr.get(), entry.size.get());
            MemoryRegion::new(start, start.saturating_add(size), entry.kind.into())
        }))
    }

    /// Joins neighbours of one kind.
    fn collect(regions: impl Iterator<Item = MemoryRegion>) -> Self {
        let mut map = Self { regions: [MemoryRegion::new(0, 0, MemoryKind::Reserved); CAPACITY], len: 0 };
        for region in regions {
            match map.regions[..map.len].last_mut() {
                Some(last) if last.kind == region.kind && last.range.end == region.range.start => {
                    last.range.end = region.range.end;
                }
                _ => {
                    assert!(map.len < CAPACITY, "the memory map has more than {CAPACITY} regions");
                    map.regions[map.len] = region;
                    map.len += 1;
                }
            }
        }
        map
    }
}

impl Deref for MemoryMap {
    type Target = [MemoryRegion];

    fn deref(&self) -> &[MemoryRegion] {
        &self.regions[..self.len]
    }
}

/// The ranges that `bootloader` uses: the kernel, its stack and tables, the ramdisk.
pub fn in_use(regions: &[BootRegion]) -> impl Iterator<Item = PhysRange> {
    let used = regions.iter().filter(|region| region.kind == MemoryRegionKind::Bootloader);
    used.map(|region| MemoryRegion::new(region.start, region.end, MemoryKind::Usable).range)
}
