//! What can be wrong with a request, and what can fail in a build.

use core::fmt;

use kexec_abi::{Frame, Unreachable, VirtAddr};

use crate::mapping::Mapping;

/// Why a map cannot be planned, built or changed. Nothing has been built then, and all frames were given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// More than 52 physical address bits, or fewer than 12.
    PhysBits(u8),
    /// Not exactly one of the bits 12 to 51.
    EncryptionMask(u64),
    /// A bit that a non-leaf entry must not have, or that this crate sets itself.
    TableFlags(u64),
    /// The mapping's virtual and physical address differ modulo 4 KiB; or it is exact and an end is not 4 KiB-aligned.
    Unaligned(Mapping),
    /// The mapping is rounded out to something else than a power of two from 4096 up.
    Rounding(Mapping),
    /// The mapping's priority is not below [`Mapping::PRIORITIES`].
    Priority(Mapping),
    /// The mapping, rounded, reaches a physical address beyond MAXPHYADDR, or one that has the encryption bit.
    BeyondPhysBits(Mapping),
    /// The mapping, rounded, reaches a virtual address that is not canonical, or wraps.
    NonCanonical(Mapping),
    /// Two mappings of equal priority overlap and differ in attributes or physical address.
    Conflict(Mapping, Mapping),
    /// The tables need more frames than the allocator has.
    OutOfFrames {
        /// The number of frames that the tables need.
        needed: u64,
        /// The number of frames that the allocator gave.
        available: u64,
    },
    /// The allocator gave a frame beyond MAXPHYADDR, which no entry can point to.
    FrameBeyondPhysBits(Frame),
    /// A frame cannot be reached.
    Unreachable(Unreachable),
    /// The address to be changed is not mapped, or the tables on its way are not ones that this crate builds.
    NotMapped(VirtAddr),
}

impl From<Unreachable> for Error {
    fn from(unreachable: Unreachable) -> Self {
        Self::Unreachable(unreachable)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PhysBits(bits) => write!(f, "{bits} physical address bits, but it must be 12 to 52"),
            Self::EncryptionMask(mask) => {
                write!(f, "the encryption mask {mask:#x} is not one of the bits 12 to 51")
            }
            Self::TableFlags(flags) => {
                write!(f, "the table flags {flags:#x} have bits other than 2, 3, 4, 6 and 8 to 11")
            }
            Self::Unaligned(mapping) => write!(f, "{mapping}: not a number of whole 4 KiB pages"),
            Self::Rounding(mapping) => write!(f, "{mapping}: rounding needs a power of two from 0x1000 up"),
            Self::Priority(mapping) => {
                write!(f, "{mapping}: the highest priority is {}", Mapping::PRIORITIES - 1)
            }
            Self::BeyondPhysBits(mapping) => {
                write!(f, "{mapping}: beyond the processor's physical addresses")
            }
            Self::NonCanonical(mapping) => write!(f, "{mapping}: reaches an address that is not canonical"),
            Self::Conflict(one, other) => write!(f, "{one} overlaps {other} and differs from it"),
            Self::OutOfFrames { needed, available } => {
                write!(f, "the tables need {needed} frames and there are {available}")
            }
            Self::FrameBeyondPhysBits(frame) => {
                write!(f, "{frame} lies beyond the processor's physical addresses")
            }
            Self::Unreachable(unreachable) => write!(f, "{unreachable}"),
            Self::NotMapped(virt) => write!(f, "{virt} is not mapped"),
        }
    }
}

impl core::error::Error for Error {}
