//! What a handler captures of the interrupted machine.

use core::mem::offset_of;

use static_assertions::{const_assert, const_assert_eq};

/// The interrupted machine, as [`EXCEPTION`](super::EXCEPTION) captures it and [`DUMP`](super::DUMP) prints it.
///
/// Selectors are zero-extended. Whoever captures by other means (a handler for 32-bit mode) fills the same block and enters
/// `EXCEPTION` at its label `fatal`, or calls `DUMP`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "the fields are registers")]
pub struct Captured {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub ds: u64,
    pub es: u64,
    pub fs: u64,
    pub gs: u64,
    pub rax: u64,
    pub rbx: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub rbp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    /// The error code, or [`NO_ERROR_CODE`](Self::NO_ERROR_CODE).
    pub error: u64,
    pub vector: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl Captured {
    /// What [`error`](Self::error) holds when the processor pushed none. No error code has more than 32 bits.
    pub const NO_ERROR_CODE: u64 = u64::MAX;
}

// The handler pushes this block from its end to its start and pops it again, and calls with it as the top of the stack.
const_assert_eq!(size_of::<Captured>(), 32 * 8);
const_assert!(size_of::<Captured>().is_multiple_of(16));
const_assert_eq!(offset_of!(Captured, rax), 10 * 8);
const_assert_eq!(offset_of!(Captured, error), 25 * 8);
// IRETQ pops these five.
const_assert_eq!(offset_of!(Captured, rip), 27 * 8);
const_assert_eq!(offset_of!(Captured, ss), 31 * 8);
