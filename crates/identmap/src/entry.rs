//! The bits of a table entry (SDM Vol. 3A, 5.5.4, tables 5-15 to 5-20).

use kexec_abi::{Frame, PhysAddr};

use crate::attributes::{Attributes, Cache};
use crate::level::{LeafSize, Level};
use crate::options::{Encryption, Options};

pub(crate) const PRESENT: u64 = 1 << 0;
pub(crate) const WRITABLE: u64 = 1 << 1;
pub(crate) const USER: u64 = 1 << 2;
const PWT: u64 = 1 << 3;
const PCD: u64 = 1 << 4;
pub(crate) const ACCESSED: u64 = 1 << 5;
pub(crate) const DIRTY: u64 = 1 << 6;
/// In an entry of a PD or PDPT: a leaf.
pub(crate) const PS: u64 = 1 << 7;
/// PAT lies here in a 4 KiB leaf, and in bit 12 of the others.
const PAT_4KIB: u64 = 1 << 7;
const PAT_LARGE: u64 = 1 << 12;
pub(crate) const NX: u64 = 1 << 63;

/// The bits of an entry that may hold an address.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// What a non-leaf entry may carry beyond P, R/W and A: U/S, PWT, PCD and the bits that the processor ignores. Nothing from
/// bit 52 up, though it could be: a kernel that later switches from 5 to 4 levels copies top-level entries and masks the
/// address only (Linux eb2266312507).
pub(crate) const TABLE_FLAGS: u64 = USER | PWT | PCD | DIRTY | 0b1111 << 8;

/// A non-leaf entry for `table`. Writable and executable: what a page may be used for is said in its leaf.
pub(crate) const fn table(table: Frame, table_flags: u64, encryption: Encryption) -> u64 {
    table.start().as_u64() | PRESENT | WRITABLE | ACCESSED | table_flags | encryption.bits(false)
}

/// The bits but the address of a leaf of any size; [`sized`] makes them those of one size.
///
/// A and D are set in advance, so that the processor never writes to a table. Not D in a leaf that cannot be written: the
/// processor would not set it there, and with R/W = 0 it marks a shadow stack under CR4.CET (SDM Vol. 3A, 5.6).
pub(crate) const fn leaf(attributes: Attributes, nx: bool, encryption: Encryption) -> u64 {
    let mut bits = PRESENT | ACCESSED | encryption.bits(attributes.shared);
    if attributes.writable {
        bits |= WRITABLE | DIRTY;
    }
    if !attributes.executable && nx {
        bits |= NX;
    }
    let pat = attributes.cache.pat_index() as u64;
    bits | ((pat & 1) * PWT) | (((pat >> 1) & 1) * PCD) | ((pat >> 2) * PAT_4KIB)
}

/// The bits of [`leaf`] as a leaf of `size` has them.
pub(crate) const fn sized(leaf: u64, size: LeafSize) -> u64 {
    match size {
        LeafSize::Size4KiB => leaf,
        // PS lies where the smallest leaf has PAT.
        LeafSize::Size2MiB | LeafSize::Size1GiB => {
            leaf | PS | if leaf & PAT_4KIB != 0 { PAT_LARGE } else { 0 }
        }
    }
}

/// The bits that [`sized`] made a 2 MiB or 1 GiB leaf of.
pub(crate) const fn unsized_leaf(sized: u64) -> u64 {
    (sized & !(PS | PAT_LARGE)) | if sized & PAT_LARGE != 0 { PAT_4KIB } else { 0 }
}

/// The frame that a present entry points to: a table, or the first one of a leaf of `size`.
pub(crate) const fn frame(entry: u64, size: LeafSize, encryption: Encryption) -> Frame {
    Frame::containing(PhysAddr::new(entry & ADDRESS & !(size.bytes() - 1) & !encryption.mask()))
}

/// Whether a present entry of a table of `level` is a leaf.
pub(crate) const fn is_leaf(entry: u64, level: Level) -> bool {
    match level {
        Level::Pt => true,
        Level::Pd | Level::Pdpt => entry & PS != 0,
        Level::Pml4 | Level::Pml5 => false,
    }
}

/// The reserved bits that a present entry of a table of `level` has set: the processor raises a page fault on any.
pub(crate) const fn reserved(entry: u64, level: Level, options: &Options) -> u64 {
    let mut reserved = ADDRESS & !low_bits(options.phys_bits) & !options.encryption.mask();
    if !options.nx {
        reserved |= NX;
    }
    match level {
        Level::Pml5 | Level::Pml4 => reserved |= PS,
        Level::Pdpt if !options.giant_pages => reserved |= PS,
        Level::Pdpt | Level::Pd if entry & PS != 0 => {
            if let Some(size) = level.leaf() {
                reserved |= (size.bytes() - 1) & ADDRESS & !PAT_LARGE;
            }
        }
        _ => {}
    }
    entry & reserved
}

/// The cache type of a leaf of `size`.
pub(crate) const fn cache(entry: u64, size: LeafSize) -> Cache {
    let pat = match size {
        LeafSize::Size4KiB => PAT_4KIB,
        LeafSize::Size2MiB | LeafSize::Size1GiB => PAT_LARGE,
    };
    Cache::from_pat_index(
        (entry & PWT != 0) as u8 | ((entry & PCD != 0) as u8) << 1 | ((entry & pat != 0) as u8) << 2,
    )
}

/// `bits` ones.
const fn low_bits(bits: u8) -> u64 {
    if bits >= 64 { u64::MAX } else { (1 << bits) - 1 }
}
