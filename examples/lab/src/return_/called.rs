//! Images to be called, and what their pages hold afterwards.

use hobby::{Bundle, Failure, Memory};
use kexec_abi::list::{Entries, Item};
use kexec_abi::page_code::PageCode;
use kexec_abi::{EntryState, Frame, PAGE_SIZE, PhysAddr, PhysMemory as _, PhysRange, VirtAddr};
use kexec_payload::{Addresses, Elf64, LoadError, Sink as _};
use reloc::{Mode, Options, Prepared};
use x86_64::instructions::interrupts;

use crate::memory::Ordered;
use crate::transition::Around;

/// Where peers are loaded: 4 MiB.
pub const AT: PhysAddr = PhysAddr::new(0x40_0000);

/// A page of code at [`AT`], with zeroed pages behind it, `pages` in all. None of its frames lies where it is to stand.
pub fn page(
    around: &Around<'_>,
    memory: &mut Memory,
    code: &PageCode,
    entry: &str,
    pages: u64,
    options: impl FnOnce(EntryState) -> Options,
) -> Result<Prepared, Failure> {
    around.prepare(&mut Ordered::down(memory), Mode::Preserve, options, |_, image| {
        let destination = PhysRange::new(AT, PhysAddr::new(AT.as_u64() + pages * PAGE_SIZE));
        image.segment(destination).and_then(|()| image.write(AT, code.bytes())).map_err(LoadError::Sink)?;
        let entry = code.find(entry).ok_or(Failure::Missing("entry in the page"))? as u64;
        Ok(EntryState::at(PhysAddr::new(AT.as_u64() + entry)))
    })
}

/// The bundle's peer at [`AT`].
pub fn peer(
    around: &Around<'_>,
    memory: &mut Memory,
    bundle: &Bundle,
    mode: Mode,
    options: impl FnOnce(EntryState) -> Options,
) -> Result<Prepared, Failure> {
    let file = bundle.file("peer")?;
    around.prepare(&mut Ordered::down(memory), mode, options, |_, image| {
        let elf = Elf64::parse(file, Addresses::Physical)?;
        let bias = AT.as_u64().wrapping_sub(elf.extent().start.as_u64());
        Ok(elf.biased(bias)?.load(image)?)
    })
}

/// Calls it, at the entry point that it named the time before.
pub fn jump(prepared: &mut Prepared) -> Result<VirtAddr, Failure> {
    interrupts::disable();
    // SAFETY: interrupts are off, no device was started, one processor runs; the image's memory is the image's alone. The
    // peers keep a callee's duties.
    let next = unsafe { prepared.jump() }?;
    prepared.set_entry(next);
    Ok(next)
}

/// The frames that hold an image while it is not in place, with the pages for which they stand.
pub fn sources<'m>(
    prepared: &Prepared,
    memory: &'m Memory,
) -> impl Iterator<Item = (PhysAddr, Frame)> + use<'m> {
    let mut cursor = 0;
    Entries::new(memory, prepared.head()).flatten().flat_map(move |located| {
        let (first, pages) = match located.entry.decode() {
            Item::Destination(frame) => {
                cursor = frame.start().as_u64();
                (frame, 0)
            }
            Item::Source { frame, pages } => (frame, pages),
            _ => (Frame::containing(PhysAddr::new(0)), 0),
        };
        let start = cursor;
        cursor += pages * PAGE_SIZE;
        (0..pages)
            .filter_map(move |page| Some((PhysAddr::new(start + page * PAGE_SIZE), first.checked_add(page)?)))
    })
}

/// A word of the image while it is not in place.
pub fn word(prepared: &Prepared, memory: &Memory, address: PhysAddr) -> Option<u64> {
    let page = address.align_down(PAGE_SIZE);
    let (_, frame) = sources(prepared, memory).find(|(at, _)| *at == page)?;
    memory.read_word(frame, (address.as_u64() % PAGE_SIZE / 8) as usize).ok()
}
