//! The memory map that `bootloader` 0.11 hands over, in e820's terms.

use bootloader_api::info::{MemoryRegion as BootRegion, MemoryRegionKind};

use crate::memory_map::{MemoryKind, MemoryRegion};

/// What the next kernel may be told of a region. Memory that `bootloader` or its kernel uses is usable then: both are gone.
impl From<MemoryRegionKind> for MemoryKind {
    fn from(kind: MemoryRegionKind) -> Self {
        match kind {
            MemoryRegionKind::Usable | MemoryRegionKind::Bootloader => Self::Usable,
            MemoryRegionKind::UnknownUefi(kind) => from_uefi(kind),
            MemoryRegionKind::UnknownBios(kind) => from_e820(kind),
            _ => Self::Reserved,
        }
    }
}

/// The region, of the kind that the next kernel may be told.
impl From<&BootRegion> for MemoryRegion {
    fn from(region: &BootRegion) -> Self {
        Self::new(region.start, region.end, region.kind.into())
    }
}

/// UEFI's memory types after the boot services have ended (UEFI 2.10, tables 7.9 and 7.10).
const fn from_uefi(kind: u32) -> MemoryKind {
    match kind {
        // Code and data of loaders and boot services; conventional memory.
        1..=4 | 7 => MemoryKind::Usable,
        8 => MemoryKind::Unusable,
        9 => MemoryKind::AcpiReclaimable,
        10 => MemoryKind::AcpiNvs,
        14 => MemoryKind::Persistent,
        _ => MemoryKind::Reserved,
    }
}

/// The types of the e820 map (ACPI 6.5, table 15.4).
const fn from_e820(kind: u32) -> MemoryKind {
    match kind {
        1 => MemoryKind::Usable,
        3 => MemoryKind::AcpiReclaimable,
        4 => MemoryKind::AcpiNvs,
        5 => MemoryKind::Unusable,
        7 => MemoryKind::Persistent,
        _ => MemoryKind::Reserved,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_of_the_boot_services_and_of_this_kernel_is_the_next_kernels() {
        for kind in [MemoryRegionKind::Usable, MemoryRegionKind::Bootloader, MemoryRegionKind::UnknownUefi(4)]
        {
            assert_eq!(MemoryKind::from(kind), MemoryKind::Usable);
        }
        assert_eq!(
            MemoryKind::from(MemoryRegionKind::UnknownUefi(6)),
            MemoryKind::Reserved,
            "runtime services"
        );
        assert_eq!(MemoryKind::from(MemoryRegionKind::UnknownUefi(9)), MemoryKind::AcpiReclaimable);
        assert_eq!(MemoryKind::from(MemoryRegionKind::UnknownBios(4)), MemoryKind::AcpiNvs);
        assert_eq!(MemoryKind::from(MemoryRegionKind::UnknownBios(99)), MemoryKind::Reserved);
        let region = BootRegion { start: 0x1000, end: 0x3000, kind: MemoryRegionKind::Usable };
        assert_eq!(MemoryRegion::from(&region), MemoryRegion::new(0x1000, 0x3000, MemoryKind::Usable));
    }
}
