//! Segments, as Linux's `kexec_load` takes them, and its flags.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

bitflags::bitflags! {
    /// Flags of `kexec_load(2)`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct KexecFlags: u64 {
        /// Load the image for use on a crash.
        const ON_CRASH = 1;
        /// The image is called and may return: pages are exchanged, not copied.
        const PRESERVE_CONTEXT = 2;
        /// The architecture of the image: x86-64 (`EM_X86_64` in bits 31:16).
        const ARCH_X86_64 = 62 << 16;
    }
}

bitflags::bitflags! {
    /// Flags that Linux hands to its `relocate_kernel`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct RelocateFlags: u64 {
        /// Exchange pages and call the image, instead of copying and jumping.
        const PRESERVE_CONTEXT = 1;
        /// Memory encryption made caches incoherent: write them back before the walk.
        const CACHE_INCOHERENT = 2;
    }
}

/// The most segments that Linux's `kexec_load` takes.
pub const KEXEC_SEGMENT_MAX: usize = 16;

/// `struct kexec_segment` of Linux on a 64-bit machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct KexecSegment {
    /// Virtual address of the content in the caller's memory.
    pub buf: u64,
    /// Bytes of content; at most `memsz`.
    pub bufsz: u64,
    /// Physical address of the destination, 4 KiB-aligned.
    pub mem: u64,
    /// Bytes of the destination, a multiple of 4 KiB; those past `bufsz` read as zero.
    pub memsz: u64,
}

static_assertions::assert_eq_size!(KexecSegment, [u8; 32]);
static_assertions::const_assert_eq!(core::mem::offset_of!(KexecSegment, mem), 16);
