//! Conversions from and into the types of `x86_64` 0.15.

use x86_64::VirtAddr;
use x86_64::addr::VirtAddrNotValid;
use x86_64::registers::{control, rflags};
use x86_64::structures::gdt::SegmentSelector;
use x86_64::structures::idt::{self, ExceptionVector, InterruptStackFrameValue};

use crate::{Cr0, Cr4, Efer, PageFaultErrorCode, RFlags, TrapFrame, Vector};

macro_rules! same_bits {
    ($($ours:ty = $theirs:ty;)*) => {
        $(
            impl From<$theirs> for $ours {
                fn from(flags: $theirs) -> Self {
                    Self::from_bits_retain(flags.bits())
                }
            }

            /// Bits without a name there are kept.
            impl From<$ours> for $theirs {
                fn from(flags: $ours) -> Self {
                    Self::from_bits_retain(flags.bits())
                }
            }
        )*
    };
}

same_bits! {
    RFlags = rflags::RFlags;
    Cr0 = control::Cr0Flags;
    Cr4 = control::Cr4Flags;
    Efer = control::EferFlags;
    PageFaultErrorCode = idt::PageFaultErrorCode;
}

impl From<ExceptionVector> for Vector {
    fn from(vector: ExceptionVector) -> Self {
        Self(vector as u8)
    }
}

/// A vector that is not an exception's.
impl TryFrom<Vector> for ExceptionVector {
    type Error = <Self as TryFrom<u8>>::Error;

    fn try_from(vector: Vector) -> Result<Self, Self::Error> {
        Self::try_from(vector.0)
    }
}

/// The hardware frame; an error for an RIP or RSP that is no canonical address of 48 bits.
impl TryFrom<&TrapFrame> for InterruptStackFrameValue {
    type Error = VirtAddrNotValid;

    fn try_from(frame: &TrapFrame) -> Result<Self, VirtAddrNotValid> {
        Ok(Self::new(
            VirtAddr::try_new(frame.rip)?,
            SegmentSelector(frame.cs as u16),
            frame.rflags.into(),
            VirtAddr::try_new(frame.rsp)?,
            SegmentSelector(frame.ss as u16),
        ))
    }
}
