//! Vectors, and what the manuals call them.

use core::fmt;

/// A vector: the number of an exception or interrupt, and of its gate.
///
/// Intel SDM volume 3, table 7-1; AMD APM volume 2, table 8-1. Displayed as `#PF page fault`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Vector(pub u8);

macro_rules! vectors {
    ($($number:literal $constant:ident $mnemonic:literal $name:literal,)*) => {
        impl Vector {
            $(
                #[doc = concat!("`", $mnemonic, "`, ", $name, ": vector ", $number, ".")]
                pub const $constant: Self = Self($number);
            )*

            /// The manuals' mnemonic, `#PF` for a page fault; `None` for a vector that is reserved or an interrupt's.
            #[must_use]
            pub const fn mnemonic(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($mnemonic),)*
                    _ => None,
                }
            }

            /// The name in words; `reserved` for a vector below 32 without one, `interrupt` from 32 on.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $($number => $name,)*
                    0..32 => "reserved",
                    _ => "interrupt",
                }
            }
        }
    };
}

vectors! {
    0 DIVIDE_ERROR "#DE" "divide error",
    1 DEBUG "#DB" "debug exception",
    2 NMI "NMI" "non-maskable interrupt",
    3 BREAKPOINT "#BP" "breakpoint",
    4 OVERFLOW "#OF" "overflow",
    5 BOUND_RANGE "#BR" "bound range exceeded",
    6 INVALID_OPCODE "#UD" "invalid opcode",
    7 DEVICE_NOT_AVAILABLE "#NM" "device not available",
    8 DOUBLE_FAULT "#DF" "double fault",
    10 INVALID_TSS "#TS" "invalid TSS",
    11 SEGMENT_NOT_PRESENT "#NP" "segment not present",
    12 STACK_SEGMENT "#SS" "stack-segment fault",
    13 GENERAL_PROTECTION "#GP" "general protection",
    14 PAGE_FAULT "#PF" "page fault",
    16 X87_FLOATING_POINT "#MF" "x87 floating-point error",
    17 ALIGNMENT_CHECK "#AC" "alignment check",
    18 MACHINE_CHECK "#MC" "machine check",
    19 SIMD_FLOATING_POINT "#XM" "SIMD floating-point exception",
    20 VIRTUALIZATION "#VE" "virtualization exception",
    21 CONTROL_PROTECTION "#CP" "control protection",
    28 HYPERVISOR_INJECTION "#HV" "hypervisor injection",
    29 VMM_COMMUNICATION "#VC" "VMM communication",
    30 SECURITY "#SX" "security exception",
}

impl Vector {
    /// Whether the processor pushes an error code for it.
    ///
    /// Only when it raises the exception: `int n` never pushes one, so it must not be used on these vectors.
    #[must_use]
    pub const fn has_error_code(self) -> bool {
        matches!(self.0, 8 | 10..=14 | 17 | 21 | 29 | 30)
    }
}

impl From<u8> for Vector {
    fn from(number: u8) -> Self {
        Self(number)
    }
}

impl From<Vector> for u8 {
    fn from(vector: Vector) -> Self {
        vector.0
    }
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(mnemonic) = self.mnemonic() {
            write!(f, "{mnemonic} ")?;
        }
        f.write_str(self.name())
    }
}
