//! The global descriptor table: flat segments and a TSS.

#[cfg(target_arch = "x86_64")]
use x86_64::{
    VirtAddr,
    instructions::{
        segmentation::{CS, DS, ES, SS, Segment},
        tables,
    },
    structures::{DescriptorTablePointer, gdt::SegmentSelector},
};

use crate::tss::Tss;

/// A table of flat segments for the kernel and the user, in the order that SYSCALL and SYSRET want, and one TSS.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Gdt {
    descriptors: [u64; 7],
}

impl Gdt {
    /// The kernel's 64-bit code segment.
    pub const KERNEL_CODE: u16 = 0x08;
    /// The kernel's data segment.
    pub const KERNEL_DATA: u16 = 0x10;
    /// The user's data segment.
    pub const USER_DATA: u16 = 0x18 | 3;
    /// The user's 64-bit code segment.
    pub const USER_CODE: u16 = 0x20 | 3;
    /// The task state segment.
    pub const TSS: u16 = 0x28;

    /// A table whose TSS descriptor names no TSS yet.
    #[must_use]
    pub const fn new() -> Self {
        // Limit 4 GiB, present, accessed, code or data; L for 64-bit code, D/B for data: Intel SDM volume 3, 3.4.5.
        Self {
            descriptors: [
                0,
                0x00af_9b00_0000_ffff,
                0x00cf_9300_0000_ffff,
                0x00cf_f300_0000_ffff,
                0x00af_fb00_0000_ffff,
                0,
                0,
            ],
        }
    }

    /// Has the TSS descriptor name a TSS, which is available.
    pub fn set_tss(&mut self, tss: &'static Tss) {
        self.set_tss_at(tss);
    }

    pub(crate) fn set_tss_at(&mut self, tss: *const Tss) {
        let base = tss as u64;
        // Present, DPL 0, an available 64-bit TSS: Intel SDM volume 3, 8.2.3.
        self.descriptors[5] = (size_of::<Tss>() as u64 - 1)
            | (base & 0x00ff_ffff) << 16
            | 0x89 << 40
            | (base >> 24 & 0xff) << 56;
        self.descriptors[6] = base >> 32;
    }

    /// The descriptors, as they lie in memory.
    #[must_use]
    pub const fn descriptors(&self) -> &[u64; 7] {
        &self.descriptors
    }

    /// Loads the table and its segments: CS, SS, DS, ES and TR. FS and GS, and so their bases, stay.
    ///
    /// # Safety
    ///
    /// - This runs at CPL 0, with interrupts off.
    /// - [`set_tss`](Self::set_tss) was called. The table is writable in the address space: LTR marks the TSS busy.
    /// - Neither table, TSS nor stacks are freed or unmapped while they are in force.
    /// - The gates of the IDT in force name a selector that is a 64-bit code segment here too, unless neither an exception nor an
    ///   NMI comes until another IDT is loaded.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn load(&'static mut self) {
        let pointer = DescriptorTablePointer {
            limit: size_of::<Self>() as u16 - 1,
            // SAFETY: the processor takes the address of something that exists, with as many bits as it has.
            base: unsafe { VirtAddr::new_unsafe(self.descriptors.as_ptr() as u64) },
        };
        // SAFETY: the table is valid and stays; its segments are flat, so code and data go on as they were.
        unsafe {
            tables::lgdt(&pointer);
            CS::set_reg(SegmentSelector(Self::KERNEL_CODE));
            SS::set_reg(SegmentSelector(Self::KERNEL_DATA));
            DS::set_reg(SegmentSelector(Self::KERNEL_DATA));
            ES::set_reg(SegmentSelector(Self::KERNEL_DATA));
            tables::load_tss(SegmentSelector(Self::TSS));
        }
    }
}

impl Default for Gdt {
    fn default() -> Self {
        Self::new()
    }
}
