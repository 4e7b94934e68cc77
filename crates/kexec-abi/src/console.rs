//! The console of page code: one function that writes one byte.

use crate::addr::{PhysRange, VirtAddr};
use crate::page_code::PageCode;

/// The block that a console's code works on: its own layout, at most 64 bytes, and the only memory that it may touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct ConsoleConfig(pub [u8; 64]);

static_assertions::assert_eq_size!(ConsoleConfig, [u8; 64]);

/// A console for the transition: where dumps go when the old kernel's own console is gone.
///
/// The first label of `code` is its entry:
///
/// ```text
/// extern "sysv64" fn put_byte(config: *mut ConsoleConfig, byte: u8)
///   in       rdi = the configuration block, readable and writable; sil = the byte; DF = 0; 8 bytes of stack in use
///   clobbers rax, rcx, rdx, rsi, rdi, r8 to r11, flags; no vector register; no memory but the block and 64 bytes of stack
///   waits    are bounded by a number of status reads; after one that fails it stays silent (a mark in the block)
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Console {
    /// The code.
    pub code: &'static PageCode,
    /// The block's first content, with addresses as the identity map has them.
    pub config: ConsoleConfig,
    /// The device's registers, if they are memory: mapped by their exact pages, uncached.
    pub mmio: Option<PhysRange>,
    /// The same under the running kernel's map: the block, and the address at which the kernel maps the page of
    /// `mmio.start` (uncached). `None`: with port I/O, the block above serves; with MMIO, the transition's first
    /// instructions, until the CR3 switch, have no console.
    pub live: Option<(ConsoleConfig, VirtAddr)>,
}
