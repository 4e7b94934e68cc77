//! RFLAGS, the control registers and EFER, bit by bit, under the manuals' names.

use core::fmt;

use bitflags::bitflags;

bitflags! {
    /// RFLAGS: Intel SDM volume 1, 3.4.3. Bit 1, which is always set, has no name.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct RFlags: u64 {
        /// Carry.
        const CF = 1 << 0;
        /// Parity.
        const PF = 1 << 2;
        /// Auxiliary carry.
        const AF = 1 << 4;
        /// Zero.
        const ZF = 1 << 6;
        /// Sign.
        const SF = 1 << 7;
        /// Trap: a #DB after each instruction.
        const TF = 1 << 8;
        /// Interrupts are taken.
        const IF = 1 << 9;
        /// Direction: string instructions count downwards.
        const DF = 1 << 10;
        /// Overflow.
        const OF = 1 << 11;
        /// I/O privilege level, two bits.
        const IOPL = 3 << 12;
        /// Nested task.
        const NT = 1 << 14;
        /// Resume: instruction breakpoints are off for one instruction.
        const RF = 1 << 16;
        /// Virtual-8086 mode.
        const VM = 1 << 17;
        /// Alignment check at CPL 3; at CPL 0, access through SMAP.
        const AC = 1 << 18;
        /// Virtual interrupt flag.
        const VIF = 1 << 19;
        /// Virtual interrupt pending.
        const VIP = 1 << 20;
        /// CPUID can be used.
        const ID = 1 << 21;
    }

    /// CR0: Intel SDM volume 3, 2.5.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Cr0: u64 {
        /// Protected mode.
        const PE = 1 << 0;
        /// Monitor coprocessor: WAIT obeys TS.
        const MP = 1 << 1;
        /// Emulation: x87 raises #NM, SSE #UD.
        const EM = 1 << 2;
        /// Task switched: x87 and SSE raise #NM.
        const TS = 1 << 3;
        /// Extension type, always set.
        const ET = 1 << 4;
        /// x87 errors are reported as #MF.
        const NE = 1 << 5;
        /// Write protection holds for the supervisor, too.
        const WP = 1 << 16;
        /// Alignment checks at CPL 3 obey RFLAGS.AC.
        const AM = 1 << 18;
        /// Not write-through.
        const NW = 1 << 29;
        /// Cache disable.
        const CD = 1 << 30;
        /// Paging.
        const PG = 1 << 31;
    }

    /// CR4: Intel SDM volume 3, 2.5.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Cr4: u64 {
        /// Virtual-8086 mode extensions.
        const VME = 1 << 0;
        /// Protected-mode virtual interrupts.
        const PVI = 1 << 1;
        /// RDTSC at CPL 0 only.
        const TSD = 1 << 2;
        /// Debugging extensions.
        const DE = 1 << 3;
        /// 4 MiB pages in 32-bit paging.
        const PSE = 1 << 4;
        /// Physical address extension; set in long mode.
        const PAE = 1 << 5;
        /// Machine checks are exceptions; without it, a shutdown.
        const MCE = 1 << 6;
        /// Global pages.
        const PGE = 1 << 7;
        /// RDPMC at every CPL.
        const PCE = 1 << 8;
        /// FXSAVE, FXRSTOR and SSE.
        const OSFXSR = 1 << 9;
        /// SIMD errors are reported as #XM.
        const OSXMMEXCPT = 1 << 10;
        /// SGDT, SIDT, SLDT, STR and SMSW at CPL 0 only.
        const UMIP = 1 << 11;
        /// Five levels of page tables.
        const LA57 = 1 << 12;
        /// VMX.
        const VMXE = 1 << 13;
        /// SMX.
        const SMXE = 1 << 14;
        /// RDFSBASE, WRGSBASE and their like.
        const FSGSBASE = 1 << 16;
        /// Process-context identifiers.
        const PCIDE = 1 << 17;
        /// XSAVE and its like.
        const OSXSAVE = 1 << 18;
        /// Key locker.
        const KL = 1 << 19;
        /// The supervisor cannot execute user pages.
        const SMEP = 1 << 20;
        /// The supervisor cannot access user pages while RFLAGS.AC is clear.
        const SMAP = 1 << 21;
        /// Protection keys of user pages.
        const PKE = 1 << 22;
        /// Control-flow enforcement: shadow stacks and indirect-branch tracking.
        const CET = 1 << 23;
        /// Protection keys of supervisor pages.
        const PKS = 1 << 24;
        /// User interrupts.
        const UINTR = 1 << 25;
        /// Linear-address space separation.
        const LASS = 1 << 27;
        /// Linear-address masking of supervisor addresses.
        const LAM_SUP = 1 << 28;
        /// Flexible return and event delivery: the IDT is not used.
        const FRED = 1 << 32;
    }

    /// IA32_EFER: Intel SDM volume 4, table 2-2; AMD APM volume 2, 3.1.7.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct Efer: u64 {
        /// SYSCALL.
        const SCE = 1 << 0;
        /// Long mode is enabled.
        const LME = 1 << 8;
        /// Long mode is active.
        const LMA = 1 << 10;
        /// No-execute pages.
        const NXE = 1 << 11;
        /// SVM.
        const SVME = 1 << 12;
        /// Segment limits in long mode.
        const LMSLE = 1 << 13;
        /// FXSAVE leaves out the XMM registers at CPL 0.
        const FFXSR = 1 << 14;
        /// INVLPG keeps upper-level entries of other addresses.
        const TCE = 1 << 15;
    }
}

macro_rules! display_names {
    ($($register:ty),*) => {
        $(
            /// The names of the bits that are set, apart by spaces; `none` without any.
            impl fmt::Display for $register {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    if self.iter_names().next().is_none() {
                        return f.write_str("none");
                    }
                    for (index, (name, _)) in self.iter_names().enumerate() {
                        if index != 0 {
                            f.write_str(" ")?;
                        }
                        f.write_str(name)?;
                    }
                    Ok(())
                }
            }
        )*
    };
}

display_names!(RFlags, Cr0, Cr4, Efer);

/// What an exception does not save: selectors that it leaves as they are, control registers, EFER.
///
/// Read when a frame is printed, not at every interrupt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SystemRegisters {
    /// DS, as a selector.
    pub ds: u16,
    /// ES, as a selector.
    pub es: u16,
    /// FS, as a selector.
    pub fs: u16,
    /// GS, as a selector.
    pub gs: u16,
    /// CR0.
    pub cr0: Cr0,
    /// CR2: the address of the most recent page fault, which need not be the one at hand.
    pub cr2: u64,
    /// CR3, all its bits.
    pub cr3: u64,
    /// CR4.
    pub cr4: Cr4,
    /// IA32_EFER.
    pub efer: Efer,
}

impl SystemRegisters {
    /// Reads the processor's registers; `None` unless this runs at CPL 0 of an x86-64 processor.
    #[must_use]
    pub fn read() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            use x86_64::PrivilegeLevel;
            use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, Segment};
            use x86_64::registers::control;
            if CS::get_reg().rpl() != PrivilegeLevel::Ring0 {
                return None;
            }
            let (frame, low) = control::Cr3::read_raw();
            Some(Self {
                ds: DS::get_reg().0,
                es: ES::get_reg().0,
                fs: FS::get_reg().0,
                gs: GS::get_reg().0,
                cr0: Cr0::from_bits_retain(control::Cr0::read_raw()),
                cr2: control::Cr2::read_raw(),
                cr3: frame.start_address().as_u64() | u64::from(low),
                cr4: Cr4::from_bits_retain(control::Cr4::read_raw()),
                efer: Efer::from_bits_retain(control::Efer::read_raw()),
            })
        }
        #[cfg(not(target_arch = "x86_64"))]
        None
    }
}
