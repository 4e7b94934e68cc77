//! Damage to what was prepared, as a stray write does it.

use hobby::Failure;
use identmap::Tables;
use kexec_abi::list::{ENTRIES_PER_FRAME, Entry, Item};
use kexec_abi::page_code::Region;
use kexec_abi::{Frame, PAGE_SIZE, PhysAddr, PhysMemory, VirtAddr};
use reloc::{Cpu, ENGINE, Prepared};

/// No RAM and no device of the virtual machine: 4 TiB. It fits an entry of the list, and nothing maps it.
const NOWHERE: Frame = Frame::containing(PhysAddr::new(1 << 42));

/// The slot of a top-level table that belongs to 0x7f80_0000_0000 with 4 levels: the last of the lower half.
const TOP_SLOT: usize = 255;

/// A present entry with a bit that must be zero: bit 51 is above any MAXPHYADDR of QEMU's.
const RESERVED: u64 = 1 << 51 | 3;

/// The first byte of the pattern in that region of the engine, as an offset in the piece.
fn find(label: &'static str, pattern: &[u8]) -> Result<usize, Failure> {
    let region = |region: &Region| region.name == label;
    let Region { start, end, .. } = ENGINE.regions().find(region).ok_or(Failure::Missing(label))?;
    let code = &ENGINE.bytes()[start..end];
    let at = code.windows(pattern.len()).position(|code| code == pattern);
    at.map(|at| start + at).ok_or(Failure::Missing("instruction"))
}

/// Writes over the engine in this kernel's text, from where it has noted the phase `enter` on.
pub fn text<M: PhysMemory>(memory: &mut M, code: &[u8]) -> Result<(), Failure> {
    const MOV_RAX_CR3: &[u8] = &[0x0f, 0x20, 0xd8];
    let start = ENGINE.bytes().as_ptr() as u64 + find("enter", MOV_RAX_CR3)? as u64;
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };
    let tables = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
    for (virt, byte) in (start..).zip(code) {
        let frame = tables.translate(memory, VirtAddr::new(virt)).frame().ok_or(Failure::Missing("text"))?;
        memory.write_bytes(frame, (virt % PAGE_SIZE) as usize, &[*byte])?;
    }
    Ok(())
}

/// Writes over the copy of the engine, which lies first in the code frame: over the instruction that moves pages.
pub fn walk<M: PhysMemory>(memory: &mut M, prepared: &Prepared, code: &[u8]) -> Result<(), Failure> {
    const REP_MOVSQ: &[u8] = &[0xf3, 0x48, 0xa5];
    let frame = Frame::containing(prepared.code_frames().start);
    memory.write_bytes(frame, find("walk", REP_MOVSQ)?, code)?;
    Ok(())
}

/// A reserved bit in the top-level tables of both maps, in a slot that neither uses.
pub fn reserved_bit<M: PhysMemory>(memory: &mut M, prepared: &Prepared) -> Result<(), Failure> {
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cr3 = unsafe { Cpu::read() }.cr3;
    for root in [Frame::containing(PhysAddr::new(cr3)), prepared.map().root()] {
        memory.write_word(root, TOP_SLOT, RESERVED)?;
    }
    Ok(())
}

/// Damage by name.
pub fn prepared<M: PhysMemory>(memory: &mut M, prepared: &mut Prepared, what: &str) -> Result<(), Failure> {
    let code = Frame::containing(prepared.code_frames().start);
    match what {
        "list-source" => entry(memory, prepared, |item| match item {
            Item::Source { pages, .. } => Entry::source(NOWHERE, pages),
            _ => None,
        }),
        "list-destination" => entry(memory, prepared, |item| match item {
            Item::Destination(_) => Some(Entry::destination(NOWHERE)),
            _ => None,
        }),
        "list-over-code" => entry(memory, prepared, |item| match item {
            Item::Destination(_) => Some(Entry::destination(code)),
            _ => None,
        }),
        "list-link" => entry(memory, prepared, |item| match item {
            Item::Destination(_) => Some(Entry::indirection(NOWHERE)),
            _ => None,
        }),
        "entry-unmapped" => {
            prepared.set_entry(VirtAddr::new(NOWHERE.start().as_u64()));
            Ok(())
        }
        "entry-non-canonical" => {
            prepared.set_entry(VirtAddr::new(1 << 63));
            Ok(())
        }
        _ => Err(Failure::Missing("damage of that name")),
    }
}

/// Replaces the first entry of the list for which there is another one.
fn entry<M: PhysMemory>(
    memory: &mut M,
    prepared: &Prepared,
    other: impl Fn(Item) -> Option<Entry>,
) -> Result<(), Failure> {
    let Item::Indirection(frame) = prepared.head().decode() else { return Err(Failure::Missing("list")) };
    for index in 0..ENTRIES_PER_FRAME {
        if let Some(other) = other(Entry::from(memory.read_word(frame, index)?).decode()) {
            return Ok(memory.write_word(frame, index, other.as_u64())?);
        }
    }
    Err(Failure::Missing("entry of that kind"))
}

/// Ends the list at the first of the entries that fill up its frame.
pub fn shorten<M: PhysMemory>(memory: &mut M, prepared: &Prepared) -> Result<(), Failure> {
    let Item::Indirection(frame) = prepared.head().decode() else { return Err(Failure::Missing("list")) };
    for index in 0..ENTRIES_PER_FRAME {
        if memory.read_word(frame, index)? == 0 {
            return Ok(memory.write_word(frame, index, Entry::DONE.as_u64())?);
        }
    }
    Err(Failure::Missing("end of the list"))
}
