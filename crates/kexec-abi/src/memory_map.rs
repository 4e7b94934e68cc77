//! The machine's memory map, as a kernel knows it and as the next one is told.

use core::fmt;

use crate::addr::{PhysAddr, PhysRange};

/// What a range of physical addresses is used for. The kinds are those of the e820 map (ACPI 6.5, table 15.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemoryKind {
    /// RAM that the next kernel may use freely: free now, or in use by this kernel, which is about to go.
    Usable,
    /// Not to be touched: firmware, devices, or unknown.
    Reserved,
    /// ACPI tables; RAM once they are read.
    AcpiReclaimable,
    /// ACPI non-volatile storage: RAM that must keep its content.
    AcpiNvs,
    /// RAM with errors.
    Unusable,
    /// Persistent memory (NVDIMM).
    Persistent,
}

impl MemoryKind {
    /// Whether it is RAM that has to be in an identity map for the next kernel: everything that it may read early.
    #[must_use]
    pub const fn is_ram(self) -> bool {
        matches!(self, Self::Usable | Self::AcpiReclaimable | Self::AcpiNvs)
    }
}

/// A range of physical memory and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryRegion {
    /// The addresses, in bytes; need not be aligned.
    pub range: PhysRange,
    /// The use.
    pub kind: MemoryKind,
}

impl MemoryRegion {
    /// The region `start..end` of the given kind; addresses in bytes.
    #[must_use]
    pub const fn new(start: u64, end: u64, kind: MemoryKind) -> Self {
        Self { range: PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)), kind }
    }
}

impl fmt::Display for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.range, self.kind)
    }
}
