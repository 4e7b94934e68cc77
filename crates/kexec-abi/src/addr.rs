//! Addresses, 4 KiB frames and ranges of them.
//!
//! Our own newtypes, so that a new major version of another crate is never a new major version of ours; conversions lie
//! in [`convert`](crate::convert), behind features.

use core::fmt;

/// Bytes in a page or frame: 4 KiB, the smallest unit of x86 paging.
pub const PAGE_SIZE: u64 = 4096;

/// One past the highest physical address of any x86-64 processor: 52 bits (SDM Vol. 3A, 5.1.4: MAXPHYADDR is at most 52).
pub const PHYS_ADDR_LIMIT: u64 = 1 << 52;

macro_rules! address {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address `value`, in bytes. Any value is taken; who uses it checks its range.
            #[must_use]
            pub const fn new(value: u64) -> Self {
                Self(value)
            }

            /// The address as a number of bytes.
            #[must_use]
            pub const fn as_u64(self) -> u64 {
                self.0
            }

            /// Whether the address is a multiple of `align`, a power of two.
            #[must_use]
            pub const fn is_aligned(self, align: u64) -> bool {
                self.0 & align.wrapping_sub(1) == 0
            }

            /// The next multiple of `align` (a power of two) at or below the address.
            #[must_use]
            pub const fn align_down(self, align: u64) -> Self {
                Self(self.0 & !align.wrapping_sub(1))
            }

            /// The address `bytes` higher, or `None` past 2^64 - 1.
            #[must_use]
            pub const fn checked_add(self, bytes: u64) -> Option<Self> {
                match self.0.checked_add(bytes) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }
        }

        impl From<u64> for $name {
            fn from(value: u64) -> Self {
                Self(value)
            }
        }

        impl From<$name> for u64 {
            fn from(address: $name) -> u64 {
                address.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }

        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::LowerHex::fmt(&self.0, f)
            }
        }
    };
}

address! {
    /// A physical address, in bytes.
    PhysAddr
}

address! {
    /// A virtual (linear) address, in bytes. Not necessarily canonical.
    VirtAddr
}

/// A 4 KiB frame of physical memory, named by its first address, below [`PHYS_ADDR_LIMIT`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(u64);

impl Frame {
    /// The frame in which `address` lies; bits 52 and up are dropped, as the processor's page walk drops them.
    #[must_use]
    pub const fn containing(address: PhysAddr) -> Self {
        Self(address.0 & (PHYS_ADDR_LIMIT - 1) & !(PAGE_SIZE - 1))
    }

    /// The frame that starts at `address`; `None` if it is not 4 KiB-aligned or not below [`PHYS_ADDR_LIMIT`].
    #[must_use]
    pub const fn from_start(address: PhysAddr) -> Option<Self> {
        if address.is_aligned(PAGE_SIZE) && address.0 < PHYS_ADDR_LIMIT {
            Some(Self(address.0))
        } else {
            None
        }
    }

    /// The address of the frame's first byte.
    #[must_use]
    pub const fn start(self) -> PhysAddr {
        PhysAddr(self.0)
    }

    /// The frame's 4096 bytes.
    #[must_use]
    pub const fn range(self) -> PhysRange {
        PhysRange { start: self.start(), end: PhysAddr(self.0 + PAGE_SIZE) }
    }

    /// The frame `count` frames higher; `None` past [`PHYS_ADDR_LIMIT`].
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Self> {
        match count.checked_mul(PAGE_SIZE) {
            Some(bytes) => match self.start().checked_add(bytes) {
                Some(address) => Self::from_start(address),
                None => None,
            },
            None => None,
        }
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Frame({:#x})", self.0)
    }
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "frame {:#x}", self.0)
    }
}

/// A half-open range of physical addresses, `start..end`, in bytes. Empty where `end <= start`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PhysRange {
    /// The first address.
    pub start: PhysAddr,
    /// One past the last address.
    pub end: PhysAddr,
}

impl PhysRange {
    /// The range `start..end`.
    #[must_use]
    pub const fn new(start: PhysAddr, end: PhysAddr) -> Self {
        Self { start, end }
    }

    /// The `len` bytes from `start`; `None` if they reach past 2^64 - 1.
    #[must_use]
    pub const fn from_len(start: PhysAddr, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.end.0.saturating_sub(self.start.0)
    }

    /// Whether no address lies in the range.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether `address` lies in the range.
    #[must_use]
    pub const fn contains(&self, address: PhysAddr) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Whether all of `other` lies in the range. An empty range lies in every range.
    #[must_use]
    pub const fn contains_range(&self, other: &Self) -> bool {
        other.is_empty() || (self.start.0 <= other.start.0 && other.end.0 <= self.end.0)
    }

    /// Whether some address lies in both ranges.
    #[must_use]
    pub const fn overlaps(&self, other: &Self) -> bool {
        !self.is_empty() && !other.is_empty() && self.start.0 < other.end.0 && other.start.0 < self.end.0
    }

    /// Whether both ends are multiples of `align`, a power of two.
    #[must_use]
    pub const fn is_aligned(&self, align: u64) -> bool {
        self.start.is_aligned(align) && self.end.is_aligned(align)
    }

    /// The smallest range of whole 4 KiB frames that holds this one. An end in the last page of 2^64 stays where it is.
    #[must_use]
    pub const fn round_out(&self) -> Self {
        let start = self.start.align_down(PAGE_SIZE);
        match self.end.0.checked_add(PAGE_SIZE - 1) {
            Some(end) => Self { start, end: PhysAddr(end).align_down(PAGE_SIZE) },
            None => Self { start, end: self.end },
        }
    }

    /// The number of 4 KiB frames that the range touches.
    #[must_use]
    pub const fn frame_count(&self) -> u64 {
        if self.is_empty() { 0 } else { self.round_out().len().div_ceil(PAGE_SIZE) }
    }

    /// The 4 KiB frames that the range touches, in ascending order, as far as they lie below [`PHYS_ADDR_LIMIT`].
    pub fn frames(&self) -> impl Iterator<Item = Frame> + use<> {
        let first = self.round_out().start;
        (0..self.frame_count()).map_while(move |n| Frame::from_start(first.checked_add(n * PAGE_SIZE)?))
    }
}

impl fmt::Debug for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhysRange({:#x}..{:#x})", self.start.0, self.end.0)
    }
}

impl fmt::Display for PhysRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..{:#x}", self.start.0, self.end.0)
    }
}
