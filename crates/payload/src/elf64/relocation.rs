//! Relative relocations of a position-independent file: the loader's part of a static-pie.

use elf::abi::{
    DT_JMPREL, DT_NEEDED, DT_NULL, DT_PLTRELSZ, DT_REL, DT_RELA, DT_RELAENT, DT_RELASZ, R_X86_64_NONE,
    R_X86_64_RELATIVE,
};
use elf::dynamic::Dyn;
use elf::relocation::Rela;
use elf::segment::ProgramHeader;
use kexec_abi::PhysAddr;

use super::{ElfError, Load, Loads, read};
use crate::load::{LoadError, Sink, write};
use crate::read::ReadAt;

/// Packed relative relocations, which this crate does not unpack (generic ABI, 2022; a linker makes them only when asked).
const DT_RELR: i64 = 36;

const DYN: u64 = 16;
const RELA: u64 = 24;

/// The file's `DT_RELA` table; its entries have been checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relocations {
    /// Where in the file.
    offset: u64,
    count: u64,
}

impl Relocations {
    pub(super) const NONE: Self = Self { offset: 0, count: 0 };

    /// Finds the table through the `PT_DYNAMIC` segment and checks each entry.
    pub(super) fn parse(
        file: &impl ReadAt,
        dynamic: &ProgramHeader,
        loads: &Loads,
    ) -> Result<Self, ElfError> {
        let &ProgramHeader { p_offset, p_filesz, .. } = dynamic;
        if !p_filesz.is_multiple_of(DYN) || p_offset.checked_add(p_filesz).is_none_or(|end| end > file.len())
        {
            return Err(ElfError::DynamicTable { offset: p_offset, size: p_filesz });
        }
        let (mut table, mut size) = (None, 0);
        for n in 0..p_filesz / DYN {
            let entry: Dyn = read(file, p_offset + n * DYN)?;
            match entry.d_tag {
                DT_NULL => break,
                DT_RELA => table = Some(entry.d_ptr()),
                DT_RELASZ => size = entry.d_val(),
                DT_RELAENT if entry.d_val() == RELA => {}
                DT_NEEDED => return Err(ElfError::NeedsLibrary),
                DT_PLTRELSZ if entry.d_val() == 0 => {}
                tag @ (DT_RELAENT | DT_REL | DT_RELR | DT_JMPREL | DT_PLTRELSZ) => {
                    return Err(ElfError::UnsupportedRelocations { tag });
                }
                _ => {}
            }
        }
        if size == 0 {
            return Ok(Self::NONE);
        }
        let in_file = |load: &Load| Some(load.offset + load.offset_of(table?, size, load.filesz)?);
        let offset = loads
            .as_slice()
            .iter()
            .find_map(in_file)
            .filter(|_| size.is_multiple_of(RELA))
            .ok_or(ElfError::RelocationTable { vaddr: table.unwrap_or(0), size })?;
        let relocations = Self { offset, count: size / RELA };
        for entry in relocations.entries(file) {
            let Rela { r_offset, r_type, .. } = entry?;
            match r_type {
                R_X86_64_NONE => {}
                R_X86_64_RELATIVE => {
                    // What is relocated is in one segment, so that it is in a destination.
                    let inside = |load: &Load| load.offset_of(r_offset, 8, load.memsz).is_some();
                    if !loads.as_slice().iter().any(inside) {
                        return Err(ElfError::RelocationOutside { vaddr: r_offset });
                    }
                }
                _ => return Err(ElfError::RelocationType { vaddr: r_offset, found: r_type }),
            }
        }
        Ok(relocations)
    }

    /// Writes each relocated address over the segments' bytes. A position-independent file's destinations are its linked
    /// virtual addresses plus `bias`.
    pub(super) fn apply<S: Sink + ?Sized>(
        &self,
        file: &impl ReadAt,
        bias: u64,
        sink: &mut S,
    ) -> Result<(), LoadError<S::Error>> {
        for entry in self.entries(file) {
            let Rela { r_offset, r_type, r_addend, .. } = entry?;
            if r_type == R_X86_64_RELATIVE {
                let value = bias.wrapping_add_signed(r_addend);
                write(&value.to_le_bytes(), PhysAddr::new(r_offset.wrapping_add(bias)), sink)?;
            }
        }
        Ok(())
    }

    fn entries(self, file: &impl ReadAt) -> impl Iterator<Item = Result<Rela, crate::read::ReadError>> {
        (0..self.count).map(move |n| read(file, self.offset + n * RELA))
    }
}
