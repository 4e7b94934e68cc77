//! ELF files: good ones, judged by the `object` crate, and bad ones.

use kexec_abi::{MemoryKind, MemoryRegion, PhysAddr, PhysRange};
use kexec_payload::{Addresses, Elf64, ElfError, EntryState, LoadError, MAX_LOADS, Parameters};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{LittleEndian, elf};
use proptest::prelude::*;

use crate::recorder::{NotUsable, Recorder};
use crate::synthetic_elf::{PT_INTERP, R, Segment, SyntheticElf, X};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

fn load(file: &[u8], addresses: Addresses) -> (Elf64<&[u8]>, Recorder, EntryState) {
    let elf = Elf64::parse(file, addresses).unwrap();
    let mut recorder = Recorder::default();
    let entry = elf.load(&mut recorder).unwrap();
    assert_eq!(recorder.segments, elf.destinations().collect::<Vec<_>>());
    (elf, recorder, entry)
}

fn error(elf: &SyntheticElf) -> ElfError {
    Elf64::parse(elf.build().as_slice(), Addresses::Physical).unwrap_err()
}

/// What the file asks for in memory, by the `object` crate's reading of it: bytes at an address, later ones over earlier ones.
fn memory_by_object(file: &[u8], addresses: Addresses, bias: u64) -> Vec<(u64, Vec<u8>)> {
    let e = LittleEndian;
    let header = elf::FileHeader64::<LittleEndian>::parse(file).unwrap();
    let segments = header.program_headers(e, file).unwrap();
    let mut memory = Vec::new();
    for segment in segments.iter().filter(|segment| segment.p_type(e) == elf::PT_LOAD) {
        let address = match addresses {
            Addresses::Physical => segment.p_paddr(e),
            Addresses::Virtual => segment.p_vaddr(e),
        };
        let mut bytes = segment.data(e, file).unwrap().to_vec();
        bytes.resize(segment.p_memsz(e) as usize, 0);
        memory.push((address.wrapping_add(bias), bytes));
    }
    if header.e_type(e) == elf::ET_DYN {
        for dynamic in segments.iter().filter_map(|segment| segment.dynamic(e, file).unwrap()) {
            let value = |tag: elf::DynamicTag| {
                let entries = dynamic.iter().take_while(|d| d.tag(e) != elf::DT_NULL);
                // Of two alike the last counts, as it does for a dynamic linker that fills an array by tag.
                entries.filter(|d| d.tag(e) == tag).last().map_or(0, |d| d.d_val.get(e))
            };
            let (table, size) = (value(elf::DT_RELA), value(elf::DT_RELASZ));
            if size == 0 {
                continue;
            }
            let in_file =
                |segment: &elf::ProgramHeader64<_>| segment.data_range(e, file, table, size).ok()?;
            let table = segments.iter().find_map(in_file).unwrap();
            let relas: &[elf::Rela64<LittleEndian>] = object::pod::slice_from_all_bytes(table).unwrap();
            for rela in relas.iter().filter(|rela| rela.r_type(e, false) == elf::R_X86_64_RELATIVE) {
                let value = bias.wrapping_add_signed(rela.r_addend.get(e)).to_le_bytes();
                memory.push((bias.wrapping_add(rela.r_offset.get(e)), value.to_vec()));
            }
        }
    }
    memory
}

/// All of `expected` is in the destinations, and whatever else is in them is zero.
fn assert_memory(recorder: &Recorder, expected: &[(u64, Vec<u8>)]) {
    let mut segments: Vec<_> =
        recorder.segments.iter().map(|s| (s.start.as_u64(), vec![0; s.len() as usize])).collect();
    for (at, bytes) in expected.iter().filter(|(_, bytes)| !bytes.is_empty()) {
        let end = at + bytes.len() as u64;
        let (start, segment) = segments
            .iter_mut()
            .find(|(start, segment)| start <= at && end <= *start + segment.len() as u64)
            .unwrap_or_else(|| panic!("{at:#x}..{end:#x} is in no destination"));
        segment[(at - *start) as usize..(end - *start) as usize].copy_from_slice(bytes);
    }
    for (start, segment) in segments {
        let found = recorder.bytes(start, segment.len());
        let wrong = found.iter().zip(&segment).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "bytes from {start:#x}");
    }
}

#[test]
fn a_kernels_segments_are_loaded_as_the_object_crate_reads_them() {
    let file = SyntheticElf::default().build();
    let (_, recorder, entry) = load(&file, Addresses::Physical);
    assert_memory(&recorder, &memory_by_object(&file, Addresses::Physical, 0));
    assert_eq!(entry, EntryState::at(PhysAddr::new(0x20_0010)));
}

#[test]
fn segments_that_share_a_page_become_one_destination_and_others_stay_apart() {
    let file = SyntheticElf::default().build();
    let elf = Elf64::parse(file.as_slice(), Addresses::Physical).unwrap();
    let destinations: Vec<_> = elf.destinations().collect();
    assert_eq!(destinations, [range(0x20_0000, 0x20_2000), range(0x20_3000, 0x20_a000)]);
    assert_eq!(elf.extent(), range(0x20_0000, 0x20_a000));
}

#[test]
fn program_headers_may_come_in_any_order() {
    let mut elf = SyntheticElf::default();
    elf.segments.reverse();
    let file = elf.build();
    let (_, recorder, _) = load(&file, Addresses::Physical);
    assert_memory(&recorder, &memory_by_object(&file, Addresses::Physical, 0));
}

#[test]
fn a_higher_half_kernel_is_loaded_at_its_physical_addresses_and_entered_there() {
    let mut elf = SyntheticElf::default();
    for segment in &mut elf.segments {
        segment.vaddr += 0xffff_ffff_8000_0000;
    }
    // The virtual address of the entry point, as the specification has it, or the physical one, as Linux's vmlinux.
    for e_entry in [0xffff_ffff_8020_0010, 0x20_0010] {
        elf.e_entry = e_entry;
        let file = elf.build();
        let (_, recorder, entry) = load(&file, Addresses::Physical);
        assert_memory(&recorder, &memory_by_object(&file, Addresses::Physical, 0));
        assert_eq!(entry.rip.as_u64(), 0x20_0010);
    }
    assert_eq!(
        Elf64::parse(elf.build().as_slice(), Addresses::Virtual).unwrap_err(),
        ElfError::NotPhysical { index: 0, start: 0xffff_ffff_8020_0000, memsz: 0x1234 }
    );
}

#[test]
fn virtual_addresses_are_used_where_the_caller_says_so() {
    let mut elf = SyntheticElf::default();
    for segment in &mut elf.segments {
        segment.paddr = 0;
    }
    let file = elf.build();
    assert!(matches!(Elf64::parse(file.as_slice(), Addresses::Physical), Err(ElfError::Overlap { .. })));
    let (_, recorder, entry) = load(&file, Addresses::Virtual);
    assert_memory(&recorder, &memory_by_object(&file, Addresses::Virtual, 0));
    assert_eq!(entry.rip.as_u64(), 0x20_0010);
}

/// One relocation in the text, one in the middle of the data, one across two pages.
const RELOCATIONS: [(u64, u64, i64); 3] = [(0x1f8, 8, 0x1234), (0x4800, 8, -8), (0x3ffc, 8, 0x5fef)];

#[test]
fn a_position_independent_kernel_is_relocated_wherever_it_is_loaded() {
    let file = SyntheticElf::position_independent(&RELOCATIONS).build();
    for bias in [0, 0x1000, 0x1234_5000, 0x7_0000_0000] {
        let elf = Elf64::parse(file.as_slice(), Addresses::Physical).unwrap().biased(bias).unwrap();
        let mut recorder = Recorder::default();
        let entry = elf.load(&mut recorder).unwrap();
        assert_memory(&recorder, &memory_by_object(&file, Addresses::Virtual, bias));
        assert_eq!(recorder.u64(bias + 0x3ffc), bias + 0x5fef, "the relocation across two pages");
        assert_eq!(entry.rip.as_u64(), bias + 0x10);
        assert_eq!(elf.extent(), range(bias, bias + 0x6000));
    }
}

#[test]
fn a_position_independent_kernel_is_moved_down_by_a_bias_that_wraps() {
    let mut elf = SyntheticElf::position_independent(&[]);
    for segment in &mut elf.segments {
        segment.vaddr += 0xffff_8000_0000_0000;
    }
    elf.e_entry += 0xffff_8000_0000_0000;
    // Its linked addresses are not physical ones, and there is no other address to load it at.
    assert_eq!(error(&elf), ElfError::NotPhysical { index: 0, start: 0xffff_8000_0000_0000, memsz: 0x200 });
    let mut elf = SyntheticElf::position_independent(&[]);
    for segment in &mut elf.segments {
        segment.vaddr += 0x100_0000;
    }
    elf.e_entry += 0x100_0000;
    elf.segments.pop();
    let file = elf.build();
    let moved = Elf64::parse(file.as_slice(), Addresses::Physical)
        .unwrap()
        .biased(0x80_0000u64.wrapping_neg())
        .unwrap();
    assert_eq!((moved.entry(), moved.extent()), (PhysAddr::new(0x80_0010), range(0x80_0000, 0x80_6000)));
}

#[test]
fn a_kernel_is_moved_only_by_its_alignment_only_within_physical_memory_and_only_if_it_can_be() {
    let mut elf = SyntheticElf::position_independent(&RELOCATIONS);
    elf.segments[2].align = 0x20_0000;
    let file = elf.build();
    let parsed = Elf64::parse(file.as_slice(), Addresses::Physical).unwrap();
    assert_eq!(parsed.align(), 0x20_0000);
    for bias in [0x1000, 0x800, 1 << 52, (1 << 52) - 0x1000, 0x20_0000u64.wrapping_neg()] {
        assert_eq!(parsed.biased(bias).unwrap_err(), ElfError::Bias { bias });
    }
    let file = SyntheticElf::default().build();
    let fixed = Elf64::parse(file.as_slice(), Addresses::Physical).unwrap();
    assert!(!fixed.is_position_independent());
    assert_eq!(fixed.biased(0x1000).unwrap_err(), ElfError::PositionDependent);
}

#[test]
fn boot_params_of_an_elf_kernel_avoid_its_segments() {
    let map = [MemoryRegion::new(0x20_0000, 0x20_b000, MemoryKind::Usable)];
    let file = SyntheticElf::default().build();
    let (elf, mut recorder, entry) = load(&file, Addresses::Physical);
    // The page between two segments and the one after them are all that is free; two in a row are not.
    let error = Parameters::new(&map).load(entry, elf.destinations(), &mut recorder).unwrap_err();
    assert!(matches!(error, LoadError::Place(_)));
    let map = [MemoryRegion::new(0x20_0000, 0x20_c000, MemoryKind::Usable)];
    let entry = Parameters::new(&map).load(entry, elf.destinations(), &mut recorder).unwrap();
    assert_eq!((entry.rip.as_u64(), entry.rsi), (0x20_0010, 0x20_a000));
    assert_eq!(recorder.bytes(0x20_a1fe, 2), [0x55, 0xaa]);
}

#[test]
fn an_elf_file_cut_off_anywhere_is_an_error_that_says_how_long_it_must_be() {
    let file = SyntheticElf::default().build();
    for len in 8..file.len() {
        match Elf64::parse(&file[..len], Addresses::Physical) {
            Err(
                ElfError::Truncated { len: found, needed }
                | ElfError::SegmentTruncated { len: found, needed, .. },
            ) => {
                assert_eq!(found, len as u64);
                assert!(found < needed && needed <= file.len() as u64, "{needed:#x} for {len:#x}");
            }
            other => panic!("cut off at {len:#x}: {other:?}"),
        }
    }
}

#[test]
fn a_file_that_is_something_else_is_not_an_elf_file_however_short() {
    for file in [&b""[..], b"MZ", b"\x7fELG and so on", &[0; 100]] {
        assert!(matches!(Elf64::parse(file, Addresses::Physical), Err(ElfError::Magic { .. })), "{file:?}");
    }
}

#[test]
fn a_32_bit_elf_file_is_refused_by_its_class() {
    for class in [0, 1, 3] {
        let elf = SyntheticElf { ident: [0x7f, b'E', b'L', b'F', class, 1, 1], ..Default::default() };
        assert_eq!(error(&elf), ElfError::Class { found: class });
    }
}

#[test]
fn a_big_endian_elf_file_is_refused_by_its_endianness() {
    for data in [0, 2, 3] {
        let elf = SyntheticElf { ident: [0x7f, b'E', b'L', b'F', 2, data, 1], ..Default::default() };
        assert_eq!(error(&elf), ElfError::Endianness { found: data });
    }
}

#[test]
fn an_elf_file_of_another_version_is_refused() {
    let elf = SyntheticElf { ident: [0x7f, b'E', b'L', b'F', 2, 1, 2], ..Default::default() };
    assert_eq!(error(&elf), ElfError::Version { found: 2 });
}

#[test]
fn an_object_file_or_a_core_dump_is_refused_by_its_type() {
    for e_type in [0, 1, 4] {
        assert_eq!(error(&SyntheticElf { e_type, ..Default::default() }), ElfError::Type { found: e_type });
    }
}

#[test]
fn a_kernel_for_another_machine_is_refused() {
    let elf = SyntheticElf { e_machine: 183, ..Default::default() };
    assert_eq!(error(&elf), ElfError::Machine { found: 183 });
}

#[test]
fn absurd_numbers_of_program_headers_are_refused() {
    let with = |phnum| SyntheticElf { e_phnum: Some(phnum), ..Default::default() };
    assert_eq!(error(&with(0)), ElfError::NoSegments);
    assert_eq!(error(&with(0xffff)), ElfError::TooManyProgramHeaders { count: 0xffff });
    assert!(matches!(error(&with(0xfffe)), ElfError::Truncated { .. }));
}

#[test]
fn program_headers_of_another_size_or_beyond_the_file_are_refused() {
    let elf = SyntheticElf { e_phentsize: 32, ..Default::default() };
    assert_eq!(error(&elf), ElfError::ProgramHeaderSize { found: 32 });
    for e_phoff in [0x10_0000, u64::MAX, u64::MAX - 100] {
        assert!(matches!(error(&SyntheticElf { e_phoff, ..Default::default() }), ElfError::Truncated { .. }));
    }
}

#[test]
fn a_file_with_nothing_to_load_is_refused() {
    let mut elf = SyntheticElf::default();
    for segment in &mut elf.segments {
        segment.p_type = 4;
    }
    assert_eq!(error(&elf), ElfError::NoSegments);
    let elf = SyntheticElf { segments: vec![Segment::load(R | X, 0x20_0000, &[], 0)], ..Default::default() };
    assert_eq!(error(&elf), ElfError::NoSegments);
}

#[test]
fn more_segments_than_the_limit_are_refused_and_as_many_are_loaded() {
    let segments = |count: u64| -> Vec<_> {
        (0..count).map(|n| Segment::load(R | X, 0x20_0000 + n * 0x2000, &[n as u8; 0x20], 0x20)).collect()
    };
    let elf = SyntheticElf { segments: segments(MAX_LOADS as u64), ..Default::default() };
    assert_eq!(load(&elf.build(), Addresses::Physical).1.segments.len(), MAX_LOADS);
    let elf = SyntheticElf { segments: segments(MAX_LOADS as u64 + 1), ..Default::default() };
    assert_eq!(error(&elf), ElfError::TooManySegments { limit: MAX_LOADS });
}

#[test]
fn overlapping_segments_are_refused_and_both_are_named() {
    let mut elf = SyntheticElf::default();
    elf.segments[2].paddr = 0x20_1233;
    let expected = ElfError::Overlap {
        first: 0,
        first_range: range(0x20_0000, 0x20_1234),
        second: 2,
        second_range: range(0x20_1233, 0x20_6233),
    };
    assert_eq!(error(&elf), expected);
    assert_eq!(
        expected.to_string(),
        "segment 0 (0x200000..0x201234) and segment 2 (0x201233..0x206233) overlap"
    );
}

#[test]
fn an_entry_point_outside_of_every_executable_segment_is_refused() {
    for e_entry in [0, 0x20_1234, 0x20_3000, u64::MAX] {
        assert_eq!(
            error(&SyntheticElf { e_entry, ..Default::default() }),
            ElfError::Entry { entry: e_entry }
        );
    }
}

#[test]
fn a_segment_with_more_bytes_in_the_file_than_in_memory_is_refused() {
    let mut elf = SyntheticElf::default();
    elf.segments[1].memsz = 0x1800;
    assert_eq!(error(&elf), ElfError::FileSize { index: 1, filesz: 0x1801, memsz: 0x1800 });
    elf.segments[1].memsz = 0;
    assert_eq!(error(&elf), ElfError::FileSize { index: 1, filesz: 0x1801, memsz: 0 });
}

#[test]
fn a_segment_whose_bytes_are_not_in_the_file_is_refused() {
    for offset in [0x10_0000, u64::MAX, u64::MAX - 0x1800] {
        let mut elf = SyntheticElf::default();
        elf.segments[1].offset = Some(offset);
        assert!(matches!(error(&elf), ElfError::SegmentTruncated { index: 1, .. }), "{offset:#x}");
    }
}

#[test]
fn a_segment_that_wraps_around_or_leaves_physical_memory_is_refused() {
    for (paddr, memsz) in [(u64::MAX - 0xfff, 0x5000), ((1 << 52) - 0x1000, 0x5000), (0x100_0000, u64::MAX)] {
        let mut elf = SyntheticElf::default();
        (elf.segments[2].paddr, elf.segments[2].memsz) = (paddr, memsz);
        assert_eq!(error(&elf), ElfError::NotPhysical { index: 2, start: paddr, memsz });
    }
    let mut elf = SyntheticElf::default();
    elf.segments[2].vaddr = u64::MAX - 0x4ffe;
    assert_eq!(error(&elf), ElfError::WrapsAround { index: 2, vaddr: u64::MAX - 0x4ffe, memsz: 0x5000 });
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    let mut elf = SyntheticElf::default();
    elf.segments[0].align = 0x3000;
    assert_eq!(error(&elf), ElfError::Align { index: 0, align: 0x3000 });
}

#[test]
fn a_dynamically_linked_program_is_refused_by_its_interpreter_or_libraries() {
    let mut elf = SyntheticElf::position_independent(&[]);
    elf.segments[1].p_type = PT_INTERP;
    assert_eq!(error(&elf), ElfError::NeedsInterpreter);
    let mut elf = SyntheticElf::position_independent(&[]);
    elf.segments[3].data[0] = 1;
    assert_eq!(error(&elf), ElfError::NeedsLibrary);
}

#[test]
fn relocations_that_are_not_relative_are_refused_before_anything_is_loaded() {
    for kind in [1, 6, 37, 8 | 64, 0x1_0000_0001] {
        let found = kind as u32;
        let elf = SyntheticElf::position_independent(&[RELOCATIONS[0], (0x4008, kind, 0)]);
        assert_eq!(error(&elf), ElfError::RelocationType { vaddr: 0x4008, found });
    }
    // JMPREL, REL, RELR in place of the first tag.
    for tag in [23, 17, 36] {
        let mut elf = SyntheticElf::position_independent(&RELOCATIONS);
        elf.segments[3].data[0] = tag;
        assert_eq!(error(&elf), ElfError::UnsupportedRelocations { tag: i64::from(tag) });
    }
}

#[test]
fn relocations_outside_of_the_segments_are_refused() {
    for vaddr in [0x1f9, 0x5ff1 - 8 + 8, 0x800, u64::MAX - 3] {
        let elf = SyntheticElf::position_independent(&[(vaddr, 8, 0)]);
        assert_eq!(error(&elf), ElfError::RelocationOutside { vaddr });
    }
}

#[test]
fn a_dynamic_table_that_is_not_in_the_file_is_refused() {
    for (offset, filesz) in [(None, Some(0x51)), (None, Some(0x1000)), (Some(u64::MAX - 0x5f), None)] {
        let mut elf = SyntheticElf::position_independent(&RELOCATIONS);
        (elf.segments[3].offset, elf.segments[3].filesz) = (offset, filesz);
        assert!(matches!(error(&elf), ElfError::DynamicTable { .. }), "{offset:x?} {filesz:x?}");
    }
}

#[test]
fn a_relocation_table_that_is_not_in_the_file_is_refused() {
    for (byte, value) in [(24, 0x20), (25, 0x40), (40, 0x60), (40, 0x47), (47, 0x80)] {
        let mut elf = SyntheticElf::position_independent(&RELOCATIONS);
        elf.segments[3].data[byte] = value;
        assert!(matches!(error(&elf), ElfError::RelocationTable { .. }), "byte {byte}");
    }
}

#[test]
fn a_segment_that_the_sink_refuses_ends_the_load_with_the_sinks_error() {
    let file = SyntheticElf::default().build();
    let mut recorder = Recorder::refusing(range(0x20_5000, 0x20_5001));
    let elf = Elf64::parse(file.as_slice(), Addresses::Physical).unwrap();
    assert_eq!(elf.load(&mut recorder), Err(LoadError::Sink(NotUsable(range(0x20_3000, 0x20_a000)))));
    assert_eq!(recorder.written, 0);
}

/// This very test program, a large file by a real linker.
#[cfg(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"))]
mod this_program {
    use super::*;

    fn this_program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    /// Overwrites the type of the program headers of type `from`.
    fn retype(file: &mut [u8], from: u32, to: u32) {
        for n in 0..usize::from(u16::from_le_bytes([file[56], file[57]])) {
            let p_type = &mut file[64 + n * 56..][..4];
            if p_type == from.to_le_bytes() {
                p_type.copy_from_slice(&to.to_le_bytes());
            }
        }
    }

    #[test]
    fn is_refused_since_it_names_an_interpreter() {
        assert_eq!(
            Elf64::parse(this_program().as_slice(), Addresses::Physical).unwrap_err(),
            ElfError::NeedsInterpreter
        );
    }

    #[test]
    fn without_its_interpreter_is_refused_since_it_needs_libraries() {
        let mut file = this_program();
        retype(&mut file, PT_INTERP, 0);
        assert_eq!(Elf64::parse(file.as_slice(), Addresses::Physical).unwrap_err(), ElfError::NeedsLibrary);
    }

    #[test]
    fn as_a_position_dependent_file_is_loaded_as_the_object_crate_reads_it() {
        let mut file = this_program();
        retype(&mut file, PT_INTERP, 0);
        file[16] = 2;
        let (_, recorder, _) = load(&file, Addresses::Virtual);
        assert_memory(&recorder, &memory_by_object(&file, Addresses::Virtual, 0));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn an_elf_file_with_flipped_bits_is_refused_or_loads_as_the_object_crate_reads_it(
        position_independent: bool,
        flips in prop::collection::vec((0usize..64 + 4 * 56, 0u8..8), 0..4),
        table_flips in prop::collection::vec((0usize..0x400, 0u8..8), 0..3),
        cut in prop_oneof![3 => Just(0usize), 1 => 0..0x1000usize],
        bias in prop_oneof![Just(0u64), Just(0x10_0000), any::<u64>()],
    ) {
        let elf = if position_independent { SyntheticElf::position_independent(&RELOCATIONS) } else { SyntheticElf::default() };
        let mut file = elf.build();
        let tables = file.len().saturating_sub(0x400);
        for (at, bit) in flips.into_iter().chain(table_flips.into_iter().map(|(at, bit)| (tables + at, bit))) {
            if let Some(byte) = file.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        file.truncate(file.len() - cut.min(file.len()));
        if let Ok(parsed) = Elf64::parse(file.as_slice(), Addresses::Physical) {
            let moved = parsed.biased(bias).unwrap_or(parsed);
            let bias = moved.entry().as_u64().wrapping_sub(parsed.entry().as_u64());
            let mut recorder = Recorder::default();
            let entry = moved.load(&mut recorder).unwrap();
            prop_assert!(recorder.segment_at(entry.rip.as_u64(), 1).is_some());
            // A flipped bit may ask for a terabyte of zeros; the recorder keeps none of them, the oracle would.
            if recorder.segments.iter().map(PhysRange::len).sum::<u64>() < 0x10_0000 {
                let addresses = if parsed.is_position_independent() { Addresses::Virtual } else { Addresses::Physical };
                assert_memory(&recorder, &memory_by_object(&file, addresses, bias));
            }
        }
    }
}
