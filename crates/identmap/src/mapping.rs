//! What is asked for: a range of physical addresses, where it appears, and its attributes.

use core::fmt;

use kexec_abi::{PAGE_SIZE, PhysRange, VirtAddr};

use crate::attributes::Attributes;
use crate::entry;
use crate::error::Error;
use crate::extent::Extent;
use crate::options::Options;
use crate::page;

/// A range of physical memory to be mapped at a virtual address.
///
/// Printed as `0x1000..0x3000 rwx wb`, an alias as `0xffff800000001000 -> 0x1000..0x3000 rw- wb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Where the first byte of `phys` appears. Equal to `phys.start` modulo 4 KiB.
    pub virt: VirtAddr,
    /// The physical addresses. An empty range asks for nothing.
    pub phys: PhysRange,
    /// The attributes of the pages.
    pub attributes: Attributes,
    /// Whether more than `phys` may be mapped.
    pub rounding: Rounding,
    /// Below [`Mapping::PRIORITIES`]. Where two mappings overlap, the one of higher priority is made. Of equal
    /// priority, both must ask for the same: the same physical addresses with the same attributes.
    pub priority: u8,
}

impl Mapping {
    /// The number of priorities: they go from 0, the lowest and the default, to 7.
    pub const PRIORITIES: u8 = 8;

    /// `range` mapped at its own addresses, exactly.
    #[must_use]
    pub const fn identity(range: PhysRange, attributes: Attributes) -> Self {
        Self::alias(VirtAddr::new(range.start.as_u64()), range, attributes)
    }

    /// `range` mapped from the virtual address `virt` on, exactly.
    #[must_use]
    pub const fn alias(virt: VirtAddr, range: PhysRange, attributes: Attributes) -> Self {
        Self { virt, phys: range, attributes, rounding: Rounding::Exact, priority: 0 }
    }

    /// The same, rounded out to multiples of `bytes` (a power of two from 4096 up) of the physical address.
    #[must_use]
    pub const fn rounded_out(self, bytes: u64) -> Self {
        Self { rounding: Rounding::Out(bytes), ..self }
    }

    /// The same with another priority.
    #[must_use]
    pub const fn with_priority(self, priority: u8) -> Self {
        Self { priority, ..self }
    }

    /// The pages of the mapping, rounded, as the options allow them.
    pub(crate) fn extent(&self, options: &Options) -> Result<Extent, Error> {
        if self.phys.is_empty() {
            return Ok(Extent::EMPTY);
        }
        let unit = match self.rounding {
            Rounding::Exact => PAGE_SIZE,
            Rounding::Out(bytes) if bytes.is_power_of_two() && bytes >= PAGE_SIZE => bytes,
            Rounding::Out(_) => return Err(Error::Rounding(*self)),
        };
        let (start, end, virt) = (self.phys.start.as_u64(), self.phys.end.as_u64(), self.virt.as_u64());
        let ragged = (start | end) % PAGE_SIZE != 0;
        if (virt ^ start) % PAGE_SIZE != 0 || (ragged && self.rounding == Rounding::Exact) {
            return Err(Error::Unaligned(*self));
        }

        // The last address instead of the end: it needs no 65th bit at the top of the space.
        let first = start & !(unit - 1);
        let last = (end - 1) | (unit - 1);
        if last >= options.phys_limit() {
            return Err(Error::BeyondPhysBits(*self));
        }
        let virt_first = virt.checked_sub(start - first).ok_or(Error::NonCanonical(*self))?;
        let virt_last = virt_first.checked_add(last - first).ok_or(Error::NonCanonical(*self))?;
        let (levels, same_half) = (options.levels, (virt_first ^ virt_last) >> 63 == 0);
        if !(same_half && page::is_canonical(virt_first, levels) && page::is_canonical(virt_last, levels)) {
            return Err(Error::NonCanonical(*self));
        }
        Ok(Extent {
            first: page::of(virt_first, levels),
            end: page::of(virt_last, levels) + 1,
            frame: first / PAGE_SIZE,
            leaf: entry::leaf(self.attributes, options.nx, options.encryption),
        })
    }
}

impl fmt::Display for Mapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.virt.as_u64() != self.phys.start.as_u64() {
            write!(f, "{} -> ", self.virt)?;
        }
        write!(f, "{} {}", self.phys, self.attributes)?;
        if let Rounding::Out(bytes) = self.rounding {
            write!(f, " rounded out to {bytes:#x}")?;
        }
        if self.priority != 0 {
            write!(f, " priority {}", self.priority)?;
        }
        Ok(())
    }
}

/// Whether more than what was asked for may be mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Never a byte more: both ends must be 4 KiB-aligned, since no smaller page exists.
    #[default]
    Exact,
    /// Out to multiples of this many bytes of the physical address, a power of two from 4096 up; fewer tables, and
    /// all that lies between is mapped too.
    Out(u64),
}
