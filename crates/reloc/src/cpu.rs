//! What a plan has to know of the processor.

use core::fmt;

use kexec_abi::Levels;

/// Bits of CR0 (SDM Vol. 3A, 2.5).
pub(crate) mod cr0 {
    pub(crate) const PE: u64 = 1 << 0;
    pub(crate) const EM: u64 = 1 << 2;
    pub(crate) const TS: u64 = 1 << 3;
    pub(crate) const WP: u64 = 1 << 16;
    pub(crate) const AM: u64 = 1 << 18;
    pub(crate) const PG: u64 = 1 << 31;
}

/// Bits of CR4 (SDM Vol. 3A, 2.5).
pub(crate) mod cr4 {
    pub(crate) const PAE: u64 = 1 << 5;
    pub(crate) const MCE: u64 = 1 << 6;
    pub(crate) const LA57: u64 = 1 << 12;
    pub(crate) const VMXE: u64 = 1 << 13;
    pub(crate) const CET: u64 = 1 << 23;
}

/// EFER.NXE.
pub(crate) const EFER_NXE: u64 = 1 << 11;

/// The state of the processor on which an image is prepared; the same must hold where it is executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// CR0.
    pub cr0: u64,
    /// CR3: the tables through which the kernel's text is found.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// The code segment selector.
    pub cs: u16,
    /// Whether there are 1 GiB pages: CPUID.80000001H:EDX\[26\].
    pub giant_pages: bool,
    /// Physical address bits, MAXPHYADDR: CPUID.80000008H:EAX\[7:0\].
    pub phys_bits: u8,
    /// Whether 5-level paging is there: CPUID.7.0:ECX\[16\].
    pub la57: bool,
}

impl Cpu {
    /// Reads the processor that runs this.
    ///
    /// # Safety
    ///
    /// The caller runs at CPL 0 in 64-bit mode.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub unsafe fn read() -> Self {
        use raw_cpuid::CpuId;
        use x86_64::instructions::segmentation::{CS, Segment as _};
        use x86_64::registers::control::{Cr0, Cr4, Efer};

        let cpuid = CpuId::new();
        // `x86_64` drops the bits above the address, among them those of LAM.
        let cr3: u64;
        // SAFETY: CPL 0; only reads.
        unsafe { core::arch::asm!("mov {}, cr3", out(reg) cr3, options(nomem, nostack, preserves_flags)) };
        Self {
            cr0: Cr0::read_raw(),
            cr3,
            cr4: Cr4::read_raw(),
            efer: Efer::read_raw(),
            cs: CS::get_reg().0,
            giant_pages: cpuid
                .get_extended_processor_and_feature_identifiers()
                .is_some_and(|f| f.has_1gib_pages()),
            phys_bits: cpuid.get_processor_capacity_feature_info().map_or(36, |c| c.physical_address_bits()),
            la57: cpuid.get_extended_feature_info().is_some_and(|f| f.has_la57()),
        }
    }

    /// The paging depth in force.
    #[must_use]
    pub const fn levels(&self) -> Levels {
        if self.cr4 & cr4::LA57 != 0 { Levels::Five } else { Levels::Four }
    }

    /// Whether no-execute is on.
    #[must_use]
    pub const fn nx(&self) -> bool {
        self.efer & EFER_NXE != 0
    }

    /// CR0 during the transition: alignment checks, lazy FPU switching and FPU emulation off, write protection on.
    pub(crate) const fn transition_cr0(&self) -> u64 {
        (self.cr0 & !(cr0::AM | cr0::TS | cr0::EM)) | cr0::PE | cr0::PG | cr0::WP
    }

    /// CR4 during the transition: nothing but PAE, the paging depth, and MCE as it is. Without MCE a machine check is a
    /// shutdown, and a TDX guest may not clear it (Linux de60613173df).
    pub(crate) const fn transition_cr4(&self) -> u64 {
        (self.cr4 & (cr4::MCE | cr4::LA57)) | cr4::PAE
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} levels, {} physical address bits, 1 GiB pages {}, no-execute {}",
            self.levels().count(),
            self.phys_bits,
            if self.giant_pages { "yes" } else { "no" },
            if self.nx() { "on" } else { "off" }
        )
    }
}
