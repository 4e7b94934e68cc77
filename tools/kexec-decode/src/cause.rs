//! What usually raises an exception, where its name does not say so.

use kexec_exception::Vector;

/// In words; the manuals: SDM Vol. 3A, 7.15; APM Vol. 2, 8.2.
pub(crate) fn usual(vector: Vector) -> Option<&'static str> {
    Some(match vector {
        Vector::DIVIDE_ERROR => "a division by zero, or a quotient too large for its register",
        Vector::DEBUG => "a single step, or a debug register's match; the transition goes on",
        Vector::BREAKPOINT => "an int3, just before RIP; the transition goes on",
        Vector::INVALID_OPCODE => "bytes that are no instruction here, or ud2",
        Vector::DEVICE_NOT_AVAILABLE => "x87 or SSE with CR0.TS or CR0.EM set",
        Vector::DOUBLE_FAULT => {
            "an exception while another was being delivered: a gate or its stack could not be used"
        }
        Vector::STACK_SEGMENT => "a stack address that is not canonical, or a bad stack segment",
        Vector::GENERAL_PROTECTION => {
            "an address that is not canonical, a forbidden value for a register, or a selector or gate at fault"
        }
        Vector::MACHINE_CHECK => "the hardware reports an error: see the machine-check banks",
        _ => return None,
    })
}
