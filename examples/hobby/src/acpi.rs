//! ACPI's root, the one of its tables that a memory map need not show.

use kexec_abi::{PhysAddr, PhysRange};

/// Bytes of the root system description pointer (ACPI 6.5, 5.2.5.3).
const RSDP_SIZE: u64 = 36;

/// The range of the root at `rsdp`.
pub fn rsdp_range(rsdp: PhysAddr) -> PhysRange {
    PhysRange::from_len(rsdp, RSDP_SIZE).unwrap_or_default()
}
