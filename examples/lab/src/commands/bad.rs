//! `bad CASE`: bad input. What comes of it is an error that a user would see; the kernel goes on, and no frame is lost.

use hobby::boot::Boot;
use hobby::{Bundle, Failure, Memory};
use kexec_abi::{MemoryKind, PAGE_SIZE, PhysAddr, PhysRange};
use reloc::{Image, Mode, Options, Prepared, Segment};

use super::kernels::split;
use crate::CONSOLE;
use crate::altered::Altered;
use crate::memory::Limited;
use crate::transition::{Around, load_elf, load_linux};

type Case = fn(&Around<'_>, &mut Memory, &Bundle) -> Result<(), Failure>;

const CASES: &[(&str, Case)] = &[
    ("elf-empty", |around, memory, bundle| elf(around, memory, |elf| Altered::truncated(elf, 0), bundle)),
    ("elf-truncated", |around, memory, bundle| {
        elf(around, memory, |elf| Altered::truncated(elf, 0x2000), bundle)
    }),
    // e_ident's first bytes, and e_machine.
    ("elf-corrupt", |around, memory, bundle| {
        elf(around, memory, |elf| Altered::patched(elf, 0, b"\x7fEXE"), bundle)
    }),
    ("elf-of-another-machine", |around, memory, bundle| {
        elf(around, memory, |elf| Altered::patched(elf, 18, &[183, 0]), bundle)
    }),
    ("elf-overlap", elf_overlap),
    ("bzimage-truncated", |around, memory, bundle| {
        bzimage(around, memory, |file| Altered::truncated(file, file.len() / 2), bundle)
    }),
    ("bzimage-short", |around, memory, bundle| {
        bzimage(around, memory, |file| Altered::truncated(file, 0x200), bundle)
    }),
    // "HdrS", boot_flag, version, init_size.
    ("bzimage-corrupt", |around, memory, bundle| {
        bzimage(around, memory, |file| Altered::patched(file, 0x202, b"HdrX"), bundle)
    }),
    ("bzimage-old", |around, memory, bundle| {
        bzimage(around, memory, |file| Altered::patched(file, 0x206, &[0x0b, 0x02]), bundle)
    }),
    ("bzimage-too-big", |around, memory, bundle| {
        bzimage(around, memory, |file| Altered::patched(file, 0x260, &[0, 0, 0, 0xf0]), bundle)
    }),
    ("command-line-too-long", command_line_too_long),
    ("segment-reserved", segment_reserved),
    ("segments-overlap", segments_overlap),
    ("too-many-segments", too_many_segments),
    ("no-file", |_, _, bundle| bundle.file("no-such-file").map(drop)),
    ("no-memory-to-load", no_memory_to_load),
    ("no-memory-to-prepare", no_memory_to_prepare),
];

/// `bad CASE`
pub fn bad(boot: &mut Boot, name: &str) {
    let Some((_, case)) = CASES.iter().find(|(case, _)| *case == name) else {
        return writeln!(CONSOLE, "no case {name}");
    };
    let free = boot.memory.frames.free_count();
    let (around, memory, bundle) = split(boot);
    match case(&around, memory, &bundle) {
        Ok(()) => writeln!(CONSOLE, "no error"),
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
    assert_eq!(boot.memory.frames.free_count(), free, "frames were lost");
    writeln!(CONSOLE, "{free} frames free, before and after");
}

/// The second kernel's file, made bad.
fn elf(
    around: &Around<'_>,
    memory: &mut Memory,
    alter: impl FnOnce(&'static [u8]) -> Altered<'static>,
    bundle: &Bundle,
) -> Result<(), Failure> {
    let file = alter(bundle.file("second")?);
    let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_elf(file, &[], None, parameters, image)
    });
    unexpected(prepared, memory)
}

/// Linux's file, made bad.
fn bzimage(
    around: &Around<'_>,
    memory: &mut Memory,
    alter: impl FnOnce(&'static [u8]) -> Altered<'static>,
    bundle: &Bundle,
) -> Result<(), Failure> {
    let file = alter(bundle.file("vmlinuz")?);
    let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_linux(file, &[], "", parameters, image)
    });
    unexpected(prepared, memory)
}

/// What was meant to be an error is given back.
fn unexpected(prepared: Result<Prepared, Failure>, memory: &mut Memory) -> Result<(), Failure> {
    prepared.map(|prepared| prepared.free(memory))
}

/// The second program header says of its segment what the first one says.
fn elf_overlap(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle) -> Result<(), Failure> {
    const PROGRAM_HEADERS: usize = 64;
    const PROGRAM_HEADER: usize = 56;
    const PT_LOAD: [u8; 4] = [1, 0, 0, 0];
    let file = bundle.file("second")?;
    let headers = file[PROGRAM_HEADERS..].chunks_exact(PROGRAM_HEADER).take(16).zip(0..);
    let mut loads = headers.filter(|(header, _)| header.starts_with(&PT_LOAD));
    let (Some((first, _)), Some((_, second))) = (loads.next(), loads.next()) else {
        return Err(Failure::Missing("second segment"));
    };
    // p_vaddr and p_paddr.
    let at = PROGRAM_HEADERS + second * PROGRAM_HEADER + 16;
    let addresses: &'static [u8] = &first[16..32];
    elf(around, memory, |file| Altered::patched(file, at, addresses), bundle)
}

fn command_line_too_long(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle) -> Result<(), Failure> {
    let (kernel, line) = (bundle.file("vmlinuz")?, [b'x'; 4096]);
    let line = core::str::from_utf8(&line).unwrap_or_default();
    let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_linux(kernel, &[], line, parameters, image)
    });
    unexpected(prepared, memory)
}

/// A kernel that is to stand where the memory map has something reserved.
fn segment_reserved(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle) -> Result<(), Failure> {
    let kernel = bundle.file("second")?;
    let reserved = around
        .memory_map
        .iter()
        .find(|region| region.kind == MemoryKind::Reserved && region.range.start.as_u64() >= 16 << 20)
        .ok_or(Failure::Missing("reserved region above 16 MiB"))?;
    let at = Some(reserved.range.start);
    let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_elf(kernel, &[], at, parameters, image)
    });
    unexpected(prepared, memory)
}

fn segments_overlap(around: &Around<'_>, memory: &mut Memory, _: &Bundle) -> Result<(), Failure> {
    let mut slots = [Segment::EMPTY; 4];
    let mut image = Image::new(&mut slots, around.memory_map, Mode::Replace);
    let result =
        image.add(segment(32 << 20, 4)).and_then(|()| image.add(segment((32 << 20) + 3 * PAGE_SIZE, 4)));
    image.free(memory);
    Ok(result?)
}

fn too_many_segments(around: &Around<'_>, memory: &mut Memory, _: &Bundle) -> Result<(), Failure> {
    let mut slots = [Segment::EMPTY; 4];
    let mut image = Image::new(&mut slots, around.memory_map, Mode::Replace);
    let result = (32..).try_for_each(|mib| image.add(segment(mib << 20, 1)));
    image.free(memory);
    Ok(result?)
}

fn segment(start: u64, pages: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(start + pages * PAGE_SIZE))
}

/// Half of the frames that the image needs.
fn no_memory_to_load(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle) -> Result<(), Failure> {
    let (kernel, initrd) = (bundle.file("vmlinuz")?, bundle.file("initrd")?);
    let left = (kernel.len() as u64 + initrd.len() as u64) / PAGE_SIZE / 2;
    let memory = &mut Limited { memory, left };
    let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
        load_linux(kernel, initrd, "", parameters, image)
    });
    prepared.map(|prepared| prepared.free(memory))
}

/// Too few frames by one, by two and so on, for each frame that loading and preparing takes: each time an error, and each time
/// all frames come back. The last error counts.
fn no_memory_to_prepare(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle) -> Result<(), Failure> {
    let kernel = bundle.file("second")?;
    let before = memory.frames.free_count();
    let mut try_with = |left| {
        let memory = &mut Limited { memory, left };
        let prepared = around.prepare(memory, Mode::Replace, Options::new, |parameters, image| {
            load_elf(kernel, &[], None, parameters, image)
        });
        let result = prepared.map(|prepared| prepared.free(memory));
        assert_eq!(memory.left, left, "frames were lost");
        result
    };
    let mut last = Ok(());
    let mut failed = 0;
    for left in 0.. {
        match try_with(left) {
            Ok(()) => break,
            Err(failure) => (last, failed) = (Err(failure), failed + 1),
        }
    }
    writeln!(CONSOLE, "{failed} times too few frames, none lost of {before}");
    last
}
