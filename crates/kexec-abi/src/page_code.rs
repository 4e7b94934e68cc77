//! Page code: the code that runs when the old kernel's text may be gone.
//!
//! A *piece* of page code is a block of bytes that works wherever it is copied to: position-independent, without
//! relocations, absolute addresses or references outside itself, without data of its own. What it works on, it is given in
//! registers (or finds below its stack). [`page_code!`](crate::page_code!) declares one; the pieces of `reloc`,
//! `kexec-exception` and `serial8250` are declared with it, and so is a console of your own.
//!
//! The template lies in an executable section, so a piece can also run where it was linked: the first instructions of a
//! transition do, before the control pages are mapped executable.
//!
//! # The rules, which a test in each crate checks by decoding its pieces
//!
//! - Each entry begins with `endbr64`, so that it may be reached by an indirect branch with CET's IBT on.
//! - Contracts are `extern "sysv64"`, on every target, with DF clear.
//! - Branches stay inside the piece; memory is reached through registers, or RIP-relative inside the piece.
//! - No vector register, no x87, unless the piece saves it: the engine saves general registers only.
//! - Numeric local labels only: two copies of the same template may be assembled into one object by LTO.

/// How the bytes after a label are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Instructions for 64-bit mode.
    Code64,
    /// Instructions for 32-bit protected or compatibility mode.
    Code32,
    /// No instructions.
    Data,
}

/// A named place in a piece; it reaches to the next label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label {
    /// What a dump calls it.
    pub name: &'static str,
    /// What lies from it on.
    pub mode: Mode,
}

/// A label with the bytes that it names, as offsets from the start of the piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// What a dump calls it.
    pub name: &'static str,
    /// What lies in it.
    pub mode: Mode,
    /// Offset of the first byte.
    pub start: usize,
    /// Offset one past the last byte.
    pub end: usize,
}

/// A piece of page code: its template and its labels.
///
/// The template begins with a header of one little-endian `u32` a label, the label's offset, and one more for the end of
/// the last; then come the labels' bytes in order.
#[derive(Clone, Copy, Debug)]
pub struct PageCode {
    name: &'static str,
    template: &'static [u8],
    labels: &'static [Label],
}

impl PageCode {
    /// A piece from its parts; [`page_code!`](crate::page_code!) calls it.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(name: &'static str, template: &'static [u8], labels: &'static [Label]) -> Self {
        Self { name, template, labels }
    }

    /// The name of the static that declares it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// The bytes to copy, header included. Their address is that at which the piece was linked, and runs too.
    #[must_use]
    pub const fn bytes(&self) -> &'static [u8] {
        self.template
    }

    /// Bytes in use, header included; the rest of [`bytes`](Self::bytes) is `int3`.
    #[must_use]
    pub fn used(&self) -> usize {
        self.header(self.labels.len())
    }

    /// The offset of the label with the given index, in bytes from the start of the piece; past the last, that of the end.
    #[must_use]
    pub fn offset(&self, label: usize) -> usize {
        self.header(label.min(self.labels.len()))
    }

    /// The offset of the label of that name, in bytes from the start of the piece.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<usize> {
        self.labels.iter().position(|label| label.name == name).map(|index| self.offset(index))
    }

    /// All labels with the bytes that they name, in ascending order.
    pub fn regions(&self) -> impl Iterator<Item = Region> + '_ {
        self.labels.iter().enumerate().map(|(index, label)| Region {
            name: label.name,
            mode: label.mode,
            start: self.offset(index),
            end: self.offset(index + 1),
        })
    }

    fn header(&self, index: usize) -> usize {
        match self.template.get(4 * index..).and_then(|rest| rest.first_chunk()) {
            Some(offset) => u32::from_le_bytes(*offset) as usize,
            None => 0,
        }
    }
}

/// Declares a static [`PageCode`](crate::page_code::PageCode). x86-64 only.
///
/// - The number in brackets bounds the size in bytes, header included: a piece that is larger does not assemble.
/// - `labels` lists the piece's places in ascending order: the number that marks it in the assembly (numeric local labels,
///   from 20 on), how what follows is to be read, and the name that a dump shows. Everything from the first label on
///   belongs to one of them.
/// - `asm` is Intel syntax; `operands`, if there, what `global_asm!` takes, from `offset_of!` and constants.
///
/// ```
/// # #[cfg(target_arch = "x86_64")]
/// kexec_abi::page_code! {
///     /// Writes one byte to port 0xe9, the debug console of QEMU and Bochs.
///     ///
///     /// `extern "sysv64" fn(config: *mut ConsoleConfig, byte: u8)`; clobbers `eax`, no flags, no memory.
///     pub static DEBUG_CONSOLE: [32];
///     labels { 20: Code64 "put_byte" }
///     asm {
///         "20:",
///         "endbr64",
///         "mov eax, esi",
///         "out {port}, al",
///         "ret",
///     }
///     operands { port = const 0xe9 }
/// }
///
/// fn main() {
/// # #[cfg(target_arch = "x86_64")] {
///     assert_eq!(DEBUG_CONSOLE.find("put_byte"), Some(8));
///     assert_eq!(DEBUG_CONSOLE.used(), 8 + 4 + 2 + 2 + 1);
/// # }
/// }
/// ```
#[macro_export]
macro_rules! page_code {
    (
        $(#[$meta:meta])*
        $vis:vis static $name:ident: [$len:expr];
        labels { $($number:literal: $mode:ident $label:literal),+ $(,)? }
        asm { $($asm:expr),+ $(,)? }
        $(operands { $($operand:tt)* })?
    ) => {
        $(#[$meta])*
        $vis static $name: $crate::page_code::PageCode = {
            unsafe extern "C" {
                // \x01: no mangling prefix on any target. The version in the name lets two versions be linked together.
                #[link_name = concat!("\x01page_code_", env!("CARGO_PKG_NAME"), "_", env!("CARGO_PKG_VERSION"), "_", stringify!($name))]
                static TEMPLATE: [u8; $len];
            }
            $crate::page_code::PageCode::new(
                stringify!($name),
                // SAFETY: the symbol is defined below, as `$len` bytes that nothing writes.
                unsafe { &TEMPLATE },
                &[$($crate::page_code::Label { name: $label, mode: $crate::page_code::Mode::$mode }),+],
            )
        };
        ::core::arch::global_asm!(
            $crate::page_code_section!(),
            ".p2align 4, 0xcc",
            concat!(".globl \"page_code_", env!("CARGO_PKG_NAME"), "_", env!("CARGO_PKG_VERSION"), "_", stringify!($name), "\""),
            concat!("\"page_code_", env!("CARGO_PKG_NAME"), "_", env!("CARGO_PKG_VERSION"), "_", stringify!($name), "\":"),
            "900:",
            $(concat!(".long ", $number, "f - 900b"),)+
            ".long 901f - 900b",
            $($asm,)+
            "901:",
            ".org 900b + {page_code_len}, 0xcc", // too long a piece does not assemble
            ".text",
            page_code_len = const $len,
            $($($operand)*)?
        );
    };
}

/// The directive that opens the section for templates, in the target's object format.
#[doc(hidden)]
#[macro_export]
#[cfg(not(any(windows, target_os = "uefi", target_vendor = "apple")))]
macro_rules! page_code_section {
    () => {
        ".section .text.page_code, \"ax\""
    };
}

/// The directive that opens the section for templates, in the target's object format.
#[doc(hidden)]
#[macro_export]
#[cfg(any(windows, target_os = "uefi"))]
macro_rules! page_code_section {
    () => {
        ".section .text$page_code, \"xr\""
    };
}

/// The directive that opens the section for templates, in the target's object format.
#[doc(hidden)]
#[macro_export]
#[cfg(target_vendor = "apple")]
macro_rules! page_code_section {
    () => {
        ".section __TEXT,__text"
    };
}
