//! Numbers of virtual pages: a virtual address without its sign extension and its offset.
//!
//! The canonical addresses in ascending order (as unsigned numbers) are the pages 0 to 2^36 - 1 (2^45 - 1 in 5 levels)
//! without a gap. One past the last page is an ordinary number, so nothing wraps at either end of the space (Linux
//! f666c92090a4).

use kexec_abi::{Levels, VirtAddr};

/// The number of bits of a page number.
const fn bits(levels: Levels) -> u32 {
    levels.count() as u32 * 9
}

/// The page of a canonical address.
pub(crate) const fn of(virt: u64, levels: Levels) -> u64 {
    (virt >> 12) & ((1 << bits(levels)) - 1)
}

/// The first address of a page.
pub(crate) const fn address(page: u64, levels: Levels) -> VirtAddr {
    let unused = 64 - 12 - bits(levels);
    VirtAddr::new(((((page << 12) << unused) as i64) >> unused) as u64)
}

/// Whether bits 63 down to the topmost used one are equal.
pub(crate) const fn is_canonical(virt: u64, levels: Levels) -> bool {
    address(of(virt, levels), levels).as_u64() == virt & !0xfff
}
