//! What the error codes say.

use core::fmt;

use bitflags::bitflags;

use crate::vector::Vector;

bitflags! {
    /// The error code of a page fault: Intel SDM volume 3, 5.7; AMD APM volume 2, 8.4.2.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    #[repr(transparent)]
    pub struct PageFaultErrorCode: u64 {
        /// A right was missing; clear: a page, or a table on the way to it, was not present.
        const P = 1 << 0;
        /// A write; clear: a read or a fetch.
        const WR = 1 << 1;
        /// By user code; clear: by the supervisor.
        const US = 1 << 2;
        /// A reserved bit was set in an entry.
        const RSVD = 1 << 3;
        /// An instruction fetch.
        const ID = 1 << 4;
        /// Forbidden by a protection key.
        const PK = 1 << 5;
        /// An access of the shadow stack.
        const SS = 1 << 6;
        /// Seen in a walk of hypervisor-managed tables.
        const HLAT = 1 << 7;
        /// Forbidden by SGX.
        const SGX = 1 << 15;
        /// Forbidden by the RMP of SEV-SNP.
        const RMP = 1 << 31;
    }
}

/// In words, as `write by the supervisor, page not present`.
impl fmt::Display for PageFaultErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.contains(Self::ID), self.contains(Self::WR)) {
            (true, _) => "fetch",
            (false, true) => "write",
            (false, false) => "read",
        })?;
        f.write_str(if self.contains(Self::SS) { " of the shadow stack" } else { "" })?;
        f.write_str(if self.contains(Self::US) { " by user code" } else { " by the supervisor" })?;
        f.write_str(if self.contains(Self::P) { ", not permitted" } else { ", page not present" })?;
        for (flag, words) in [
            (Self::RSVD, ", reserved bit set"),
            (Self::PK, ", protection key"),
            (Self::HLAT, ", HLAT"),
            (Self::SGX, ", SGX"),
            (Self::RMP, ", RMP"),
        ] {
            if self.contains(flag) {
                f.write_str(words)?;
            }
        }
        Ok(())
    }
}

/// The table that a selector's error code names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DescriptorTable {
    /// The global descriptor table.
    Gdt,
    /// The interrupt descriptor table; the index is a vector.
    Idt,
    /// The local descriptor table.
    Ldt,
}

/// The error code of #TS, #NP, #SS and #GP: Intel SDM volume 3, 7.13. Zero names nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct SelectorErrorCode(pub u64);

impl SelectorErrorCode {
    /// Whether the event that was being delivered came from outside the program.
    #[must_use]
    pub const fn external(self) -> bool {
        self.0 & 1 != 0
    }

    /// The table of the descriptor or gate at fault.
    #[must_use]
    pub const fn table(self) -> DescriptorTable {
        match self.0 >> 1 & 3 {
            0 => DescriptorTable::Gdt,
            2 => DescriptorTable::Ldt,
            _ => DescriptorTable::Idt,
        }
    }

    /// The index in that table.
    #[must_use]
    pub const fn index(self) -> u16 {
        (self.0 as u16) >> 3
    }
}

/// In words, as `IDT gate 14, #PF page fault`, or `GDT selector 0x0028`.
impl fmt::Display for SelectorErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (index, selector) = (self.index(), self.index() << 3);
        match self.table() {
            _ if self.0 & !1 == 0 => f.write_str("no selector")?,
            DescriptorTable::Gdt => write!(f, "GDT selector {selector:#06x}")?,
            DescriptorTable::Ldt => write!(f, "LDT selector {:#06x}", selector | 4)?,
            DescriptorTable::Idt => match u8::try_from(index) {
                Ok(vector) => write!(f, "IDT gate {vector}, {}", Vector(vector))?,
                Err(_) => write!(f, "IDT gate {index}")?,
            },
        }
        f.write_str(if self.external() { ", external event" } else { "" })
    }
}

/// The error code of #CP: Intel SDM volume 3, 7.15.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct ControlProtectionErrorCode(pub u64);

impl fmt::Display for ControlProtectionErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 & 0x7fff {
            1 => "near return against the shadow stack",
            2 => "far return or IRET against the shadow stack",
            3 => "indirect branch to no ENDBRANCH",
            4 => "RSTORSSP without a restore token",
            5 => "SETSSBSY without a supervisor token",
            _ => "unknown cause",
        })?;
        f.write_str(if self.0 & 0x8000 != 0 { ", in an enclave" } else { "" })
    }
}

/// An error code, as its vector says to read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorCode {
    /// #TS, #NP, #SS, #GP.
    Selector(SelectorErrorCode),
    /// #PF.
    PageFault(PageFaultErrorCode),
    /// #CP.
    ControlProtection(ControlProtectionErrorCode),
    /// #DF and #AC: always 0.
    Zero,
    /// #VC: the code that `VMEXIT` would give, AMD APM volume 2, appendix C.
    VmmCommunication(u64),
    /// #SX: AMD APM volume 2, 8.2.21; 1 is a redirected INIT.
    Security(u64),
}

impl ErrorCode {
    /// The error code of a vector; `None` when it has none.
    #[must_use]
    pub const fn new(vector: Vector, error_code: u64) -> Option<Self> {
        Some(match vector {
            Vector::INVALID_TSS
            | Vector::SEGMENT_NOT_PRESENT
            | Vector::STACK_SEGMENT
            | Vector::GENERAL_PROTECTION => Self::Selector(SelectorErrorCode(error_code)),
            Vector::PAGE_FAULT => Self::PageFault(PageFaultErrorCode::from_bits_retain(error_code)),
            Vector::CONTROL_PROTECTION => Self::ControlProtection(ControlProtectionErrorCode(error_code)),
            Vector::DOUBLE_FAULT | Vector::ALIGNMENT_CHECK => Self::Zero,
            Vector::VMM_COMMUNICATION => Self::VmmCommunication(error_code),
            Vector::SECURITY => Self::Security(error_code),
            _ => return None,
        })
    }
}

/// In words.
impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Selector(code) => code.fmt(f),
            Self::PageFault(code) => code.fmt(f),
            Self::ControlProtection(code) => code.fmt(f),
            Self::Zero => f.write_str("always zero"),
            Self::VmmCommunication(code) => write!(f, "VMEXIT code {code:#x}"),
            Self::Security(code) => write!(f, "security event {code:#x}"),
        }
    }
}
