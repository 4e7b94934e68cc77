//! The state in which a new kernel is entered.

use crate::addr::{PhysAddr, VirtAddr};

/// Paging depth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Levels {
    /// 4-level paging: 48-bit virtual addresses.
    Four,
    /// 5-level paging (CR4.LA57): 57-bit virtual addresses.
    Five,
}

impl Levels {
    /// 4 or 5.
    #[must_use]
    pub const fn count(self) -> u8 {
        match self {
            Self::Four => 4,
            Self::Five => 5,
        }
    }
}

/// The general registers of a new kernel at its first instruction, and how it is to be paged.
///
/// What is not listed here is the same for every image: 64-bit mode, IF = DF = 0, and the rest of the table in
/// docs/entry-state.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryState {
    /// The address of the first instruction. The identity map has it where the image put it.
    pub rip: VirtAddr,
    /// The stack pointer; `None` for the engine's own: the top of a page, less 8, with a zero quadword there (Linux 786a45757dcd).
    /// A called image (preserve-context) always gets the engine's. The 16 bytes below it are written on the way in, so they have
    /// to be mapped, and hold nothing of the image's.
    pub rsp: Option<VirtAddr>,
    /// RDI.
    pub rdi: u64,
    /// RSI: the physical address of `boot_params` in Linux's 64-bit boot protocol.
    pub rsi: u64,
    /// RDX.
    pub rdx: u64,
    /// RCX.
    pub rcx: u64,
    /// The paging depth to enter with; `None` for that of the running kernel.
    pub levels: Option<Levels>,
}

impl EntryState {
    /// An entry at `address` with all other registers zero, as plain kexec gives it.
    #[must_use]
    pub const fn at(address: PhysAddr) -> Self {
        Self { rip: VirtAddr::new(address.as_u64()), rsp: None, rdi: 0, rsi: 0, rdx: 0, rcx: 0, levels: None }
    }
}
