//! Faults on purpose, in this kernel's first lines: what `fault=NAME` on its command line asks for.

use core::arch::asm;
use core::ffi::CStr;

use hobby::fault;
use kexec_abi::boot_params::BootParams;
use kexec_exception::page_code::DebugFrame;

/// Where a debug frame counts NMIs.
const NMI: usize = DebugFrame::COUNTERS + 8;

/// Does what the command line asks for, if anything.
pub fn on_purpose(boot_params: &BootParams) {
    let Some(address) = boot_params.command_line() else { return };
    // SAFETY: a loader put a string there that ends with a zero byte; all RAM is mapped at its own addresses.
    let line = unsafe { CStr::from_ptr(address as *const _) };
    let Some(name) = line.to_bytes().strip_prefix(b"fault=") else { return };
    // SAFETY: none of these comes back, and all memory is this kernel's.
    unsafe {
        match name {
            b"divide" => asm!(fault!("divide"), options(noreturn)),
            b"debug" => asm!(fault!("debug"), options(noreturn)),
            b"nmi" => asm!(fault!("nmi"), nmi = const NMI, options(noreturn)),
            b"breakpoint" => asm!(fault!("breakpoint"), options(noreturn)),
            b"undefined" => asm!(fault!("undefined"), options(noreturn)),
            b"not-available" => asm!(fault!("not-available"), options(noreturn)),
            b"double-fault" => asm!(fault!("double-fault"), options(noreturn)),
            b"tss" => asm!(fault!("tss"), options(noreturn)),
            b"not-present" => asm!(fault!("not-present"), options(noreturn)),
            b"bad-ss" => asm!(fault!("bad-ss"), options(noreturn)),
            b"non-canonical" => asm!(fault!("non-canonical"), options(noreturn)),
            b"non-canonical-jump" => asm!(fault!("non-canonical-jump"), options(noreturn)),
            b"bad-selector" => asm!(fault!("bad-selector"), options(noreturn)),
            b"vector-above-31" => asm!(fault!("vector-above-31"), options(noreturn)),
            b"unmapped-read" => asm!(fault!("unmapped-read"), options(noreturn)),
            b"unmapped-write" => asm!(fault!("unmapped-write"), options(noreturn)),
            b"read-only" => asm!(fault!("read-only"), options(noreturn)),
            b"no-execute" => asm!(fault!("no-execute"), options(noreturn)),
            b"reserved-bit" => asm!(fault!("reserved-bit"), options(noreturn)),
            b"bad-rsp" => asm!(fault!("bad-rsp"), options(noreturn)),
            b"x87" => asm!(fault!("x87"), options(noreturn)),
            b"machine-check" => asm!(fault!("machine-check"), options(noreturn)),
            b"int-4" => asm!("int 4", options(noreturn)),
            b"int-5" => asm!("int 5", options(noreturn)),
            b"int-9" => asm!("int 9", options(noreturn)),
            b"int-15" => asm!("int 15", options(noreturn)),
            b"int-19" => asm!("int 19", options(noreturn)),
            b"int-20" => asm!("int 20", options(noreturn)),
            b"int-22" => asm!("int 22", options(noreturn)),
            b"int-23" => asm!("int 23", options(noreturn)),
            b"int-24" => asm!("int 24", options(noreturn)),
            b"int-25" => asm!("int 25", options(noreturn)),
            b"int-26" => asm!("int 26", options(noreturn)),
            b"int-27" => asm!("int 27", options(noreturn)),
            b"int-28" => asm!("int 28", options(noreturn)),
            b"int-31" => asm!("int 31", options(noreturn)),
            _ => {}
        }
    }
}
