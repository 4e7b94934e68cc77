//! What can be wrong with an ELF file.

use core::fmt;

use kexec_abi::PhysRange;

use crate::read::ReadError;

/// Why a file is not an ELF64 kernel that can be loaded. `index` is that of a program header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ElfError {
    /// The file could not be read.
    Read(ReadError),
    /// The file does not begin with 0x7f, "ELF".
    Magic {
        /// Its first bytes.
        found: [u8; 4],
    },
    /// Not `ELFCLASS64`.
    Class {
        /// `EI_CLASS`.
        found: u8,
    },
    /// Not little-endian.
    Endianness {
        /// `EI_DATA`.
        found: u8,
    },
    /// Not version 1.
    Version {
        /// `EI_VERSION`.
        found: u8,
    },
    /// Neither `ET_EXEC` nor `ET_DYN`.
    Type {
        /// `e_type`.
        found: u16,
    },
    /// Not `EM_X86_64`.
    Machine {
        /// `e_machine`.
        found: u16,
    },
    /// The file ends before its header or its tables do; in bytes.
    Truncated {
        /// The file's length.
        len: u64,
        /// The length that it must have.
        needed: u64,
    },
    /// `e_phnum` is `PN_XNUM`: more program headers than fit the field.
    TooManyProgramHeaders {
        /// `e_phnum`.
        count: u16,
    },
    /// `e_phentsize` is not 56.
    ProgramHeaderSize {
        /// What it is.
        found: u16,
    },
    /// There is nothing to load.
    NoSegments,
    /// There are more `PT_LOAD` segments than [`MAX_LOADS`](super::MAX_LOADS).
    TooManySegments {
        /// The limit.
        limit: usize,
    },
    /// A segment has more bytes in the file than in memory.
    FileSize {
        /// Which segment.
        index: u16,
        /// `p_filesz`.
        filesz: u64,
        /// `p_memsz`.
        memsz: u64,
    },
    /// The file ends before a segment's bytes do; in bytes.
    SegmentTruncated {
        /// Which segment.
        index: u16,
        /// The file's length.
        len: u64,
        /// The length that it must have.
        needed: u64,
    },
    /// A segment does not lie in the 52 bits of physical memory.
    NotPhysical {
        /// Which segment.
        index: u16,
        /// Its destination: `p_paddr` or `p_vaddr`, whichever was asked for.
        start: u64,
        /// `p_memsz`.
        memsz: u64,
    },
    /// A segment reaches past the last virtual address.
    WrapsAround {
        /// Which segment.
        index: u16,
        /// `p_vaddr`.
        vaddr: u64,
        /// `p_memsz`.
        memsz: u64,
    },
    /// A segment's alignment is not a power of two.
    Align {
        /// Which segment.
        index: u16,
        /// `p_align`.
        align: u64,
    },
    /// Two segments have bytes in common.
    Overlap {
        /// One segment.
        first: u16,
        /// Its destination.
        first_range: PhysRange,
        /// The other segment.
        second: u16,
        /// Its destination.
        second_range: PhysRange,
    },
    /// The entry point is in no executable segment.
    Entry {
        /// `e_entry`.
        entry: u64,
    },
    /// The file names an interpreter (`PT_INTERP`): it is a dynamically linked program.
    NeedsInterpreter,
    /// The file needs a shared library (`DT_NEEDED`).
    NeedsLibrary,
    /// The file has relocations of a kind that is not supported, such as packed ones.
    UnsupportedRelocations {
        /// The `d_tag` that says so.
        tag: i64,
    },
    /// The table that `PT_DYNAMIC` names is not in the file, or is not made of whole entries.
    DynamicTable {
        /// `p_offset`.
        offset: u64,
        /// `p_filesz`.
        size: u64,
    },
    /// The table of relocations lies in no segment's file bytes, or is not made of whole entries.
    RelocationTable {
        /// `DT_RELA`; 0 if there is none.
        vaddr: u64,
        /// `DT_RELASZ`.
        size: u64,
    },
    /// A relocation is not relative: it names a symbol, or calls a resolver.
    RelocationType {
        /// What it relocates.
        vaddr: u64,
        /// Its type.
        found: u32,
    },
    /// A relocation is to change bytes outside of all segments.
    RelocationOutside {
        /// What it relocates.
        vaddr: u64,
    },
    /// The file is linked for fixed addresses (`ET_EXEC`) and cannot be moved.
    PositionDependent,
    /// The file cannot be moved by this much: it would not be aligned, or not in physical memory.
    Bias {
        /// The bias asked for, modulo 2^64.
        bias: u64,
    },
}

impl From<ReadError> for ElfError {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl fmt::Display for ElfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => error.fmt(f),
            Self::Magic { found } => write!(f, "not an ELF file: it begins with {found:02x?}"),
            Self::Class { found } => write!(f, "not a 64-bit ELF file: EI_CLASS is {found}"),
            Self::Endianness { found } => write!(f, "not a little-endian ELF file: EI_DATA is {found}"),
            Self::Version { found } => write!(f, "not an ELF file of version 1: EI_VERSION is {found}"),
            Self::Type { found } => write!(f, "not an executable ELF file: e_type is {found}"),
            Self::Machine { found } => write!(f, "not an ELF file for x86-64: e_machine is {found}"),
            Self::Truncated { len, needed } => {
                write!(f, "the ELF file is truncated: {len:#x} bytes of at least {needed:#x}")
            }
            Self::TooManyProgramHeaders { count } => write!(f, "{count} program headers are too many"),
            Self::ProgramHeaderSize { found } => {
                write!(f, "program headers of {found} bytes, where ELF64 has 56")
            }
            Self::NoSegments => f.write_str("the ELF file has no segment to load"),
            Self::TooManySegments { limit } => {
                write!(f, "the ELF file has more than {limit} segments to load")
            }
            Self::FileSize { index, filesz, memsz } => {
                write!(f, "segment {index} has {filesz:#x} bytes in the file, {memsz:#x} in memory")
            }
            Self::SegmentTruncated { index, len, needed } => {
                write!(f, "segment {index} is truncated: the file has {len:#x} bytes of at least {needed:#x}")
            }
            Self::NotPhysical { index, start, memsz } => {
                write!(f, "segment {index} at {start:#x} of {memsz:#x} bytes is not in physical memory")
            }
            Self::WrapsAround { index, vaddr, memsz } => {
                write!(f, "segment {index} at {vaddr:#x} of {memsz:#x} bytes wraps around")
            }
            Self::Align { index, align } => {
                write!(f, "the alignment {align:#x} of segment {index} is not a power of two")
            }
            Self::Overlap { first, first_range, second, second_range } => {
                write!(f, "segment {first} ({first_range}) and segment {second} ({second_range}) overlap")
            }
            Self::Entry { entry } => write!(f, "the entry point {entry:#x} is in no executable segment"),
            Self::NeedsInterpreter => {
                f.write_str("the ELF file is a dynamically linked program: it names an interpreter")
            }
            Self::NeedsLibrary => f.write_str("the ELF file needs a shared library"),
            Self::UnsupportedRelocations { tag } => {
                write!(f, "the ELF file has relocations that are not supported (dynamic tag {tag})")
            }
            Self::DynamicTable { offset, size } => {
                write!(f, "the dynamic table at {offset:#x} of {size:#x} bytes is not in the file")
            }
            Self::RelocationTable { vaddr, size } => {
                write!(f, "the relocation table at {vaddr:#x} of {size:#x} bytes is not in the file")
            }
            Self::RelocationType { vaddr, found } => {
                write!(f, "the relocation of {vaddr:#x} has type {found}, which is not relative")
            }
            Self::RelocationOutside { vaddr } => {
                write!(f, "the relocation of {vaddr:#x} is outside of all segments")
            }
            Self::PositionDependent => f.write_str("the ELF file is linked for fixed addresses"),
            Self::Bias { bias } => {
                write!(f, "the ELF file cannot be moved by {bias:#x} bytes from its linked addresses")
            }
        }
    }
}

impl core::error::Error for ElfError {}
