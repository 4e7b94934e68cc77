//! The interrupted program's registers.

use static_assertions::const_assert_eq;

use crate::error_code::ErrorCode;
use crate::register::RFlags;
use crate::vector::Vector;

/// The interrupted program's registers, as the entry stubs and the processor left them on the stack.
///
/// The program goes on with what a handler leaves here. Printed with `{}`, see [`Dump`](crate::dump::Dump).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TrapFrame {
    /// 1: kernel code that ran with the user's GS base, to be given back to it. Belongs to the entry code.
    pub(crate) user_gs: u64,
    pub(crate) cr2: u64,
    /// R15.
    pub r15: u64,
    /// R14.
    pub r14: u64,
    /// R13.
    pub r13: u64,
    /// R12.
    pub r12: u64,
    /// R11.
    pub r11: u64,
    /// R10.
    pub r10: u64,
    /// R9.
    pub r9: u64,
    /// R8.
    pub r8: u64,
    /// RBP.
    pub rbp: u64,
    /// RDI.
    pub rdi: u64,
    /// RSI.
    pub rsi: u64,
    /// RDX.
    pub rdx: u64,
    /// RCX.
    pub rcx: u64,
    /// RBX.
    pub rbx: u64,
    /// RAX.
    pub rax: u64,
    /// The vector.
    pub vector: Vector,
    pub(crate) vector_padding: [u8; 7],
    /// The error code as the processor pushed it; 0 for vectors without one.
    pub error_code: u64,
    /// RIP: for a fault, the instruction at fault; for a trap or an interrupt, the next one.
    pub rip: u64,
    /// CS; the selector is the low 16 bits.
    pub cs: u64,
    /// RFLAGS.
    pub rflags: RFlags,
    /// RSP.
    pub rsp: u64,
    /// SS; the selector is the low 16 bits.
    pub ss: u64,
}

// The processor aligns the stack to 16 bytes before it pushes SS, so a frame of a multiple of 16 bytes leaves it aligned for
// the call of the handler.
const_assert_eq!(size_of::<TrapFrame>(), 24 * 8);

impl TrapFrame {
    /// The privilege level of the interrupted program, from 0 to 3.
    #[must_use]
    pub const fn cpl(&self) -> u8 {
        (self.cs & 3) as u8
    }

    /// What the error code says; `None` for vectors without one.
    #[must_use]
    pub const fn error(&self) -> Option<ErrorCode> {
        ErrorCode::new(self.vector, self.error_code)
    }

    /// The address whose access faulted, for a page fault: CR2 at the entry.
    #[must_use]
    pub const fn page_fault_address(&self) -> Option<u64> {
        match self.vector {
            Vector::PAGE_FAULT => Some(self.cr2),
            _ => None,
        }
    }
}
