//! The memory map as a kernel may be told it: sorted, without overlaps, usable memory in whole pages.

use kexec_abi::boot_params::{E820Entry, E820Type};
use kexec_abi::{MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange};
use zerocopy::little_endian::U64;

/// The regions of `map` in ascending order: neighbours of one kind merged, none overlapping another, none empty.
///
/// Where regions of `map` overlap, the higher e820 type wins, as in Linux: memory that anyone calls reserved is reserved.
/// Usable regions shrink to whole 4 KiB frames, after merging, so that no frame is usable and something else; other
/// regions keep their bytes. Takes time quadratic in the length of `map`, and no memory.
pub fn sanitize(map: &[MemoryRegion]) -> impl Iterator<Item = MemoryRegion> + Clone {
    Merged { map, at: 0 }.filter_map(|region| match region.kind {
        MemoryKind::Usable => {
            let start = region.range.start.as_u64().checked_next_multiple_of(PAGE_SIZE)?;
            let range = PhysRange::new(PhysAddr::new(start), region.range.end.align_down(PAGE_SIZE));
            (!range.is_empty()).then_some(MemoryRegion { range, kind: region.kind })
        }
        _ => Some(region),
    })
}

/// The e820 entry that says the same as `region`.
#[must_use]
pub fn entry(region: &MemoryRegion) -> E820Entry {
    E820Entry {
        addr: U64::new(region.range.start.as_u64()),
        size: U64::new(region.range.len()),
        kind: region.kind.into(),
    }
}

/// Sweeps the address space from `at` upwards.
#[derive(Clone)]
struct Merged<'a> {
    map: &'a [MemoryRegion],
    at: u64,
}

impl Merged<'_> {
    /// What the address `at` is, if any region says.
    fn kind_at(&self, at: u64) -> Option<MemoryKind> {
        self.map
            .iter()
            .filter(|region| region.range.contains(PhysAddr::new(at)))
            .map(|region| region.kind)
            .max_by_key(|&kind| E820Type::from(kind).0.get())
    }

    /// The next address after `at` where a region starts or ends.
    fn boundary_after(&self, at: u64) -> Option<u64> {
        self.map
            .iter()
            .filter(|region| !region.range.is_empty())
            .flat_map(|region| [region.range.start.as_u64(), region.range.end.as_u64()])
            .filter(|&boundary| boundary > at)
            .min()
    }
}

impl Iterator for Merged<'_> {
    type Item = MemoryRegion;

    fn next(&mut self) -> Option<MemoryRegion> {
        loop {
            let start = self.at;
            let Some(kind) = self.kind_at(start) else {
                self.at = self.boundary_after(start)?;
                continue;
            };
            // A region that contains an address ends after it, so a boundary follows for as long as the kind lasts.
            while self.kind_at(self.at) == Some(kind) {
                self.at = self.boundary_after(self.at)?;
            }
            return Some(MemoryRegion::new(start, self.at, kind));
        }
    }
}
