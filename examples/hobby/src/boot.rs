//! What `bootloader` hands to a kernel.

use bootloader_api::config::{BootloaderConfig, Mapping};
use bootloader_api::info::BootInfo;
use kexec_abi::{PhysAddr, VirtAddr};

use crate::bundle::Bundle;
use crate::memory::Memory;
use crate::memory_map::{MemoryMap, in_use};

/// How our kernels want to be booted: with all of physical memory mapped, and a stack that has room for the lists of a plan.
pub const CONFIG: BootloaderConfig = {
    let mut config = BootloaderConfig::new_default();
    config.mappings.physical_memory = Some(Mapping::Dynamic);
    config.kernel_stack_size = 256 * 1024;
    config
};

/// The machine, as the boot loader leaves it to a kernel.
pub struct Boot {
    /// What the next kernel may be told of memory.
    pub memory_map: MemoryMap,
    /// This kernel's free memory.
    pub memory: Memory,
    /// The ramdisk.
    pub bundle: Bundle,
    /// ACPI's root.
    pub rsdp: Option<PhysAddr>,
}

impl Boot {
    /// Takes over.
    ///
    /// # Safety
    ///
    /// Called once, with what `bootloader` gave to a kernel that asked for [`CONFIG`].
    pub unsafe fn new(info: &BootInfo) -> Self {
        let memory_map = MemoryMap::from_bootloader(&info.memory_regions);
        let offset = info.physical_memory_offset.into_option();
        let offset = VirtAddr::new(offset.expect("physical memory is mapped, as the configuration asks"));
        // SAFETY: once; the boot loader names what is in use, and mapped physical memory there.
        let memory = unsafe { Memory::new(&memory_map, in_use(&info.memory_regions), offset) };
        let archive = info.ramdisk_addr.into_option().map_or(&[][..], |address| {
            // SAFETY: the boot loader mapped the ramdisk there, for good, and its frames are in use.
            unsafe { core::slice::from_raw_parts(address as *const u8, info.ramdisk_len as usize) }
        });
        let rsdp = info.rsdp_addr.into_option().map(PhysAddr::new);
        Self { memory_map, memory, bundle: Bundle { archive }, rsdp }
    }
}
