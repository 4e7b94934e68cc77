//! ELF files of 64-bit x86 kernels.

mod error;
mod relocation;

pub use error::ElfError;

use elf::abi::{EM_X86_64, ET_DYN, ET_EXEC, PF_X, PN_XNUM, PT_DYNAMIC, PT_INTERP, PT_LOAD};
use elf::endian::LittleEndian;
use elf::file::{Class, FileHeader, parse_ident};
use elf::parse::{ParseAt, ParseError};
use elf::segment::ProgramHeader;
use kexec_abi::{EntryState, PAGE_SIZE, PHYS_ADDR_LIMIT, PhysAddr, PhysRange};

use crate::load::{LoadError, Sink, copy};
use crate::read::{ReadAt, ReadError};
use relocation::Relocations;

/// The most `PT_LOAD` segments of a file: as many as Linux's `kexec_load` takes (`KEXEC_SEGMENT_MAX`).
pub const MAX_LOADS: usize = 16;

const FILE_HEADER: usize = 64;
const PROGRAM_HEADER: u64 = 56;

/// The largest structure that is read from a file at once.
const LARGEST: usize = FILE_HEADER;

/// Which of a segment's two addresses is its physical destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addresses {
    /// `p_paddr`, as the ELF specification has it: a kernel linked to run elsewhere than it is loaded.
    #[default]
    Physical,
    /// `p_vaddr`: a kernel whose linker left `p_paddr` at some other value.
    Virtual,
}

/// An ELF64 file of an x86-64 kernel that has been checked.
///
/// Position-dependent files (`ET_EXEC`) are loaded where they say. Position-independent ones (`ET_DYN`, static-pie: what
/// `x86_64-unknown-none` links by default) are loaded at their linked virtual addresses plus a bias ([`biased`](Self::biased), 0 at
/// first), and their relative relocations are applied.
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct Elf64<F> {
    file: F,
    loads: Loads,
    /// Linked address of the entry point in physical memory.
    entry: u64,
    /// `None` for a position-dependent file.
    relocations: Option<Relocations>,
    bias: u64,
}

/// A `PT_LOAD` segment. No sum of two of its fields overflows, save `vaddr + memsz` = 2^64.
#[derive(Clone, Copy, Debug, Default)]
struct Load {
    /// The index of its program header.
    index: u16,
    offset: u64,
    filesz: u64,
    vaddr: u64,
    /// The linked physical destination.
    destination: u64,
    memsz: u64,
    align: u64,
    executable: bool,
}

impl Load {
    fn range(&self, bias: u64) -> PhysRange {
        let start = self.destination.wrapping_add(bias);
        PhysRange::new(PhysAddr::new(start), PhysAddr::new(start.wrapping_add(self.memsz)))
    }

    /// Where in the segment the `len` bytes at the linked address `vaddr` lie, if all of them are among its first `limit`.
    fn offset_of(&self, vaddr: u64, len: u64, limit: u64) -> Option<u64> {
        let offset = vaddr.checked_sub(self.vaddr)?;
        (offset.checked_add(len)? <= limit).then_some(offset)
    }
}

/// The segments in ascending order of their destinations.
#[derive(Clone, Copy, Debug)]
struct Loads {
    loads: [Load; MAX_LOADS],
    count: usize,
}

impl Loads {
    fn as_slice(&self) -> &[Load] {
        &self.loads[..self.count]
    }

    fn push(&mut self, load: Load) -> Result<(), ElfError> {
        *self.loads.get_mut(self.count).ok_or(ElfError::TooManySegments { limit: MAX_LOADS })? = load;
        self.count += 1;
        Ok(())
    }

    fn sort(&mut self) -> Result<(), ElfError> {
        self.loads[..self.count].sort_unstable_by_key(|load| load.destination);
        match self.as_slice().array_windows().find(|[a, b]| a.range(0).overlaps(&b.range(0))) {
            Some([a, b]) => Err(ElfError::Overlap {
                first: a.index,
                first_range: a.range(0),
                second: b.index,
                second_range: b.range(0),
            }),
            None => Ok(()),
        }
    }
}

impl<F: ReadAt> Elf64<F> {
    /// Reads and checks all headers and relocations of `file`. `addresses` matters to position-dependent files alone.
    ///
    /// # Errors
    ///
    /// [`ElfError`] if the file is not an ELF64 executable for x86-64, is cut off, contradicts itself, or needs a dynamic
    /// linker.
    pub fn parse(file: F, addresses: Addresses) -> Result<Self, ElfError> {
        let header = file_header(&file)?;
        let position_independent = match header.e_type {
            ET_EXEC => false,
            ET_DYN => true,
            found => return Err(ElfError::Type { found }),
        };
        if header.e_machine != EM_X86_64 {
            return Err(ElfError::Machine { found: header.e_machine });
        }
        let mut loads = Loads { loads: [Load::default(); MAX_LOADS], count: 0 };
        let mut dynamic = None;
        for index in 0..header.e_phnum {
            let program_header: ProgramHeader =
                read(&file, header.e_phoff + u64::from(index) * PROGRAM_HEADER)?;
            match program_header.p_type {
                PT_LOAD if program_header.p_memsz > 0 || program_header.p_filesz > 0 => {
                    loads.push(load(
                        index,
                        &program_header,
                        position_independent || addresses == Addresses::Virtual,
                        file.len(),
                    )?)?;
                }
                PT_DYNAMIC => dynamic = Some(program_header),
                PT_INTERP => return Err(ElfError::NeedsInterpreter),
                _ => {}
            }
        }
        if loads.count == 0 {
            return Err(ElfError::NoSegments);
        }
        loads.sort()?;
        let entry = entry(&loads, header.e_entry)?;
        let relocations = match dynamic {
            _ if !position_independent => None,
            None => Some(Relocations::NONE),
            Some(dynamic) => Some(Relocations::parse(&file, &dynamic, &loads)?),
        };
        Ok(Self { file, loads, entry, relocations, bias: 0 })
    }

    /// Whether the file is position-independent, and may be [`biased`](Self::biased).
    #[must_use]
    pub const fn is_position_independent(&self) -> bool {
        self.relocations.is_some()
    }

    /// The largest `p_align` of the segments, in bytes; at least 4 KiB.
    #[must_use]
    pub fn align(&self) -> u64 {
        self.loads.as_slice().iter().map(|load| load.align).fold(PAGE_SIZE, u64::max)
    }

    /// From the lowest destination, rounded down to [`align`](Self::align), to the highest, rounded up to 4 KiB.
    ///
    /// To move a position-independent file to a free place of this length and alignment, use the difference of the two
    /// starts as bias.
    #[must_use]
    pub fn extent(&self) -> PhysRange {
        let loads = self.loads.as_slice();
        let low = loads.first().map(|load| load.range(self.bias)).unwrap_or_default();
        let high = loads.last().map(|load| load.range(self.bias)).unwrap_or_default();
        PhysRange::new(low.start.align_down(self.align()), high.round_out().end)
    }

    /// The same file, to be loaded `bias` bytes (modulo 2^64) from its linked addresses.
    ///
    /// # Errors
    ///
    /// [`ElfError::PositionDependent`] if the file cannot be moved, [`ElfError::Bias`] if `bias` is not a multiple of
    /// [`align`](Self::align) or moves a segment out of physical memory.
    pub fn biased(self, bias: u64) -> Result<Self, ElfError> {
        if !self.is_position_independent() {
            return Err(ElfError::PositionDependent);
        }
        let fits = |load: &Load| {
            let range = load.range(bias);
            range.start < range.end && range.end.as_u64() <= PHYS_ADDR_LIMIT
        };
        if !bias.is_multiple_of(self.align()) || !self.loads.as_slice().iter().all(fits) {
            return Err(ElfError::Bias { bias });
        }
        Ok(Self { bias, ..self })
    }

    /// The physical address of the first instruction.
    #[must_use]
    pub const fn entry(&self) -> PhysAddr {
        PhysAddr::new(self.entry.wrapping_add(self.bias))
    }

    /// The destinations in ascending order: whole 4 KiB frames, one range for segments that share a frame.
    pub fn destinations(&self) -> impl Iterator<Item = PhysRange> + Clone {
        Destinations { loads: self.loads.as_slice(), bias: self.bias }
    }

    /// Gives all segments to the sink, and says how the kernel is entered: at its entry point, with all registers zero.
    ///
    /// A kernel that takes Linux's `boot_params` gets them by [`Parameters::load`](crate::Parameters::load).
    ///
    /// # Errors
    ///
    /// [`LoadError::Read`] or [`LoadError::Sink`].
    pub fn load<S: Sink + ?Sized>(&self, sink: &mut S) -> Result<EntryState, LoadError<S::Error>> {
        for destination in self.destinations() {
            sink.segment(destination).map_err(LoadError::Sink)?;
        }
        for load in self.loads.as_slice() {
            copy(&self.file, load.offset, load.range(self.bias).start, load.filesz, sink)?;
        }
        if let Some(relocations) = &self.relocations {
            relocations.apply(&self.file, self.bias, sink)?;
        }
        Ok(EntryState::at(self.entry()))
    }
}

/// Merges neighbours that share a frame.
#[derive(Clone)]
struct Destinations<'a> {
    loads: &'a [Load],
    bias: u64,
}

impl Iterator for Destinations<'_> {
    type Item = PhysRange;

    fn next(&mut self) -> Option<PhysRange> {
        let (first, mut rest) = self.loads.split_first()?;
        let mut range = first.range(self.bias).round_out();
        while let Some((next, after)) = rest.split_first()
            && next.range(self.bias).start < range.end
        {
            range.end = next.range(self.bias).round_out().end;
            rest = after;
        }
        self.loads = rest;
        Some(range)
    }
}

fn file_header(file: &impl ReadAt) -> Result<FileHeader<LittleEndian>, ElfError> {
    let len = file.len();
    let mut bytes = [0; FILE_HEADER];
    // The magic first: a short file that is something else is not a truncated ELF file.
    let readable = len.min(FILE_HEADER as u64) as usize;
    file.read_at(0, &mut bytes[..readable])?;
    let (ident, tail) = bytes.split_at(elf::abi::EI_NIDENT);
    let ident = parse_ident::<LittleEndian>(ident).map_err(|error| match error {
        ParseError::BadMagic(found) => ElfError::Magic { found },
        ParseError::UnsupportedElfClass(found) => ElfError::Class { found },
        ParseError::UnsupportedElfEndianness(found) => ElfError::Endianness { found },
        _ => ElfError::Version { found: ident[elf::abi::EI_VERSION] },
    })?;
    if ident.1 != Class::ELF64 {
        return Err(ElfError::Class { found: elf::abi::ELFCLASS32 });
    }
    let truncated = |needed| ElfError::Truncated { len, needed };
    if len < FILE_HEADER as u64 {
        return Err(truncated(FILE_HEADER as u64));
    }
    let header = FileHeader::parse_tail(ident, tail).map_err(|_| truncated(FILE_HEADER as u64))?;
    if header.e_phnum == 0 {
        return Err(ElfError::NoSegments);
    }
    // With PN_XNUM the true number stands elsewhere; no kernel has that many.
    if header.e_phnum == PN_XNUM {
        return Err(ElfError::TooManyProgramHeaders { count: header.e_phnum });
    }
    if u64::from(header.e_phentsize) != PROGRAM_HEADER {
        return Err(ElfError::ProgramHeaderSize { found: header.e_phentsize });
    }
    let table = u64::from(header.e_phnum) * PROGRAM_HEADER;
    match header.e_phoff.checked_add(table) {
        Some(end) if end <= len => Ok(header),
        end => Err(truncated(end.unwrap_or(u64::MAX))),
    }
}

/// Checks the program header of a `PT_LOAD` segment.
fn load(index: u16, header: &ProgramHeader, at_vaddr: bool, len: u64) -> Result<Load, ElfError> {
    let &ProgramHeader { p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_flags, p_align, .. } = header;
    if p_filesz > p_memsz {
        return Err(ElfError::FileSize { index, filesz: p_filesz, memsz: p_memsz });
    }
    match p_offset.checked_add(p_filesz) {
        Some(end) if end <= len => {}
        end => return Err(ElfError::SegmentTruncated { index, len, needed: end.unwrap_or(u64::MAX) }),
    }
    let destination = if at_vaddr { p_vaddr } else { p_paddr };
    if destination.checked_add(p_memsz).is_none_or(|end| end > PHYS_ADDR_LIMIT) {
        return Err(ElfError::NotPhysical { index, start: destination, memsz: p_memsz });
    }
    // The last byte may be that of the address space, so the end may be 2^64.
    if p_vaddr.checked_add(p_memsz - 1).is_none() {
        return Err(ElfError::WrapsAround { index, vaddr: p_vaddr, memsz: p_memsz });
    }
    if p_align > 1 && !p_align.is_power_of_two() {
        return Err(ElfError::Align { index, align: p_align });
    }
    Ok(Load {
        index,
        offset: p_offset,
        filesz: p_filesz,
        vaddr: p_vaddr,
        destination,
        memsz: p_memsz,
        align: p_align,
        executable: p_flags & PF_X != 0,
    })
}

/// The physical address of the entry point: `e_entry` is a virtual address by the specification, but a physical one in,
/// for instance, Linux's vmlinux.
fn entry(loads: &Loads, e_entry: u64) -> Result<u64, ElfError> {
    let executable = || loads.as_slice().iter().filter(|load| load.executable);
    executable()
        .find_map(|load| Some(load.destination + load.offset_of(e_entry, 1, load.memsz)?))
        .or_else(|| {
            executable().any(|load| load.range(0).contains(PhysAddr::new(e_entry))).then_some(e_entry)
        })
        .ok_or(ElfError::Entry { entry: e_entry })
}

/// Reads one of the specification's structures at `offset`.
fn read<P: ParseAt>(file: &impl ReadAt, offset: u64) -> Result<P, ReadError> {
    let mut bytes = [0; LARGEST];
    let len = P::size_for(Class::ELF64).min(LARGEST);
    file.read_at(offset, &mut bytes[..len])?;
    P::parse_at(LittleEndian, Class::ELF64, &mut 0, &bytes).map_err(|_| ReadError { offset, len: len as u64 })
}
