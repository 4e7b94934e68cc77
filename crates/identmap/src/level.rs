//! Levels of tables and sizes of leaves.

use core::fmt;

use kexec_abi::Levels;

/// A level of page tables, by the manual's name of the tables (SDM Vol. 3A, 5.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    /// Page tables: 512 pages of 4 KiB.
    Pt = 1,
    /// Page directories: an entry covers 2 MiB.
    Pd = 2,
    /// Page-directory-pointer tables: an entry covers 1 GiB.
    Pdpt = 3,
    /// An entry covers 512 GiB; the root of 4-level paging.
    Pml4 = 4,
    /// An entry covers 256 TiB; the root of 5-level paging.
    Pml5 = 5,
}

impl Level {
    /// All levels, the lowest first.
    pub const ALL: [Self; 5] = [Self::Pt, Self::Pd, Self::Pdpt, Self::Pml4, Self::Pml5];

    /// The level of the root table.
    #[must_use]
    pub const fn root(levels: Levels) -> Self {
        match levels {
            Levels::Four => Self::Pml4,
            Levels::Five => Self::Pml5,
        }
    }

    /// 1 for [`Level::Pt`] to 5 for [`Level::Pml5`].
    #[must_use]
    pub const fn number(self) -> usize {
        self as usize
    }

    /// The level of the tables that this level's entries point to; `None` for [`Level::Pt`].
    #[must_use]
    pub const fn below(self) -> Option<Self> {
        match self {
            Self::Pt => None,
            Self::Pd => Some(Self::Pt),
            Self::Pdpt => Some(Self::Pd),
            Self::Pml4 => Some(Self::Pdpt),
            Self::Pml5 => Some(Self::Pml4),
        }
    }

    /// The number of 4 KiB pages that one entry of this level covers is two to the power of this.
    pub(crate) const fn shift(self) -> u32 {
        (self as u32 - 1) * 9
    }

    /// The size of a leaf of this level, where the architecture has one.
    #[must_use]
    pub const fn leaf(self) -> Option<LeafSize> {
        match self {
            Self::Pt => Some(LeafSize::Size4KiB),
            Self::Pd => Some(LeafSize::Size2MiB),
            Self::Pdpt => Some(LeafSize::Size1GiB),
            Self::Pml4 | Self::Pml5 => None,
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pt => "PT",
            Self::Pd => "PD",
            Self::Pdpt => "PDPT",
            Self::Pml4 => "PML4",
            Self::Pml5 => "PML5",
        })
    }
}

/// The size of the page that a leaf entry maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeafSize {
    /// 4 KiB, in a PT.
    Size4KiB,
    /// 2 MiB, in a PD.
    Size2MiB,
    /// 1 GiB, in a PDPT.
    Size1GiB,
}

impl LeafSize {
    /// All sizes, the smallest first.
    pub const ALL: [Self; 3] = [Self::Size4KiB, Self::Size2MiB, Self::Size1GiB];

    /// The level of the tables that hold leaves of this size.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Size4KiB => Level::Pt,
            Self::Size2MiB => Level::Pd,
            Self::Size1GiB => Level::Pdpt,
        }
    }

    /// The number of 4 KiB pages in a leaf.
    #[must_use]
    pub const fn pages(self) -> u64 {
        1 << self.level().shift()
    }

    /// The number of bytes in a leaf.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.pages() * kexec_abi::PAGE_SIZE
    }
}

impl fmt::Display for LeafSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size4KiB => "4 KiB",
            Self::Size2MiB => "2 MiB",
            Self::Size1GiB => "1 GiB",
        })
    }
}
