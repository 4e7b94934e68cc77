//! Where a position-independent kernel lies.

use kexec_abi::VirtAddr;

/// The address of the first byte of the running kernel's image. Printed as `NAME: image base 0x…`, it is what `kexec-decode` adds
/// to the addresses in the kernel's file.
pub fn base() -> VirtAddr {
    unsafe extern "C" {
        static __executable_start: u8;
    }
    VirtAddr::new(&raw const __executable_start as u64)
}
