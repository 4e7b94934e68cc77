//! Conversions from and into the types of `x86_64` 0.15, and the tables of the running processor.

use core::fmt;

use kexec_abi::{Frame, Levels, PhysAddr};
use x86_64::registers::control::{Cr3, Cr4, Cr4Flags};
use x86_64::registers::model_specific::{Efer, EferFlags};
use x86_64::structures::paging::PageTableFlags;

use crate::attributes::{Attributes, Cache};
use crate::tables::Tables;

impl Tables {
    /// The tables that the processor runs on: from CR3, CR4.LA57 and EFER.NXE, which only code at CPL 0 can read. With
    /// memory encryption, [`Tables::of`] is to be given its bit.
    #[must_use]
    pub fn running() -> Self {
        let root = Frame::containing(PhysAddr::new(Cr3::read_raw().0.start_address().as_u64()));
        let la57 = Cr4::read().contains(Cr4Flags::L5_PAGING);
        let mut options = *Self::new(root, if la57 { Levels::Five } else { Levels::Four }).options();
        options.nx = Efer::read().contains(EferFlags::NO_EXECUTE_ENABLE);
        Self::of(root, options)
    }
}

/// The attributes of a leaf with these flags, by itself: what the entries above forbid is not in them, nor is the PAT bit
/// of a large page, nor encryption.
impl From<PageTableFlags> for Attributes {
    fn from(flags: PageTableFlags) -> Self {
        let pwt = u8::from(flags.contains(PageTableFlags::WRITE_THROUGH));
        let pcd = u8::from(flags.contains(PageTableFlags::NO_CACHE));
        Self {
            writable: flags.contains(PageTableFlags::WRITABLE),
            executable: !flags.contains(PageTableFlags::NO_EXECUTE),
            cache: Cache::from_pat_index(pwt | pcd << 1),
            shared: false,
        }
    }
}

/// The flags of a present leaf, for `x86_64`'s mappers.
impl TryFrom<Attributes> for PageTableFlags {
    type Error = NoFlag;

    fn try_from(attributes: Attributes) -> Result<Self, NoFlag> {
        let Attributes { writable, executable, cache, shared } = attributes;
        let index = cache.pat_index();
        if index > 3 || shared {
            return Err(NoFlag(attributes));
        }
        let mut flags = Self::PRESENT;
        flags.set(Self::WRITABLE, writable);
        flags.set(Self::NO_EXECUTE, !executable);
        flags.set(Self::WRITE_THROUGH, index & 1 != 0);
        flags.set(Self::NO_CACHE, index & 2 != 0);
        Ok(flags)
    }
}

/// Attributes for which `x86_64` has no flag: one of the cache types 4 to 7, or shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoFlag(pub Attributes);

impl fmt::Display for NoFlag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no page table flags of x86_64 say {}", self.0)
    }
}

impl core::error::Error for NoFlag {}
