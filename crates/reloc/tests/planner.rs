//! Plans on random machines, carried out by the real page code.
#![cfg(target_arch = "x86_64")]
#![allow(unreachable_pub, reason = "the common part serves several tests")]

mod common;

use common::{Order, Ram, enter_at, walk};
use identmap::Mapping;
use kexec_abi::{Console, ConsoleConfig, Levels, PAGE_SIZE, PhysAddr, PhysRange};
use proptest::prelude::*;
use reloc::{AddError, Image, Mode, PrepareError, Prepared, Segment, WriteError};

const FRAMES: u64 = 512;
const NO_MAPPING: Mapping =
    Mapping::identity(PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)), identmap::Attributes::R);

/// A segment to be loaded: frames from the start of memory, and what is written into it.
#[derive(Clone, Debug)]
struct Wanted {
    first: u64,
    pages: u64,
    writes: Vec<(u64, Vec<u8>)>,
}

#[derive(Clone, Debug)]
struct Case {
    order: Order,
    claims: bool,
    mode: Mode,
    segments: Vec<Wanted>,
    used_by_kernel: Vec<u64>,
    levels: Levels,
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Ascending), Just(Order::Descending), any::<u64>().prop_map(Order::Shuffled)]
}

fn wanted() -> impl Strategy<Value = Wanted> {
    (0..FRAMES - 64, 1_u64..40).prop_flat_map(|(first, pages)| {
        let write = (0..pages * PAGE_SIZE, 1..9000_usize, any::<u8>()).prop_map(|(at, len, seed)| {
            let bytes: Vec<u8> =
                (0..len).map(|n| (n as u8).wrapping_mul(3) ^ (n >> 8) as u8 ^ seed).collect();
            (at, bytes)
        });
        proptest::collection::vec(write, 0..4).prop_map(move |mut writes| {
            for (at, bytes) in &mut writes {
                bytes.truncate((pages * PAGE_SIZE - *at) as usize);
            }
            Wanted { first, pages, writes }
        })
    })
}

fn case() -> impl Strategy<Value = Case> {
    let mode = prop_oneof![Just(Mode::Replace), Just(Mode::Preserve)];
    let used = proptest::collection::vec(0..FRAMES, 0..30);
    let levels = prop_oneof![Just(Levels::Four), Just(Levels::Five)];
    (order(), any::<bool>(), mode, proptest::collection::vec(wanted(), 1..6), used, levels).prop_map(
        |(order, claims, mode, mut segments, used_by_kernel, levels)| {
            let mut kept: Vec<Wanted> = Vec::new();
            for segment in segments.drain(..) {
                if kept
                    .iter()
                    .all(|k| k.first + k.pages <= segment.first || segment.first + segment.pages <= k.first)
                {
                    kept.push(segment);
                }
            }
            Case { order, claims, mode, segments: kept, used_by_kernel, levels }
        },
    )
}

/// Loads and prepares; the memory that the kernel uses is out of the allocator's reach.
fn prepare(case: &Case, ram: &mut Ram) -> Result<Prepared, PrepareError> {
    let map = ram.memory_map();
    let mut slots = [Segment::EMPTY; 8];
    let mut image = Image::new(&mut slots, &map, case.mode);
    for wanted in &case.segments {
        image.add(ram.frames(wanted.first, wanted.pages)).unwrap();
    }
    for wanted in &case.segments {
        for (at, bytes) in &wanted.writes {
            let address = PhysAddr::new(ram.frame(wanted.first).start().as_u64() + at);
            if let Err(error) = image.write(ram, address, bytes) {
                assert!(matches!(error, WriteError::OutOfMemory(_)));
                image.free(ram);
                return Err(PrepareError::OutOfMemory);
            }
        }
    }
    let entry = ram.frame(case.segments[0].first).start();
    let (machine, mut mappings) = (ram.machine(), [NO_MAPPING; 64]);
    let mut options = enter_at(entry);
    options.entry.levels = Some(case.levels);
    image.prepare(ram, &machine, &options, &mut mappings)
}

/// What each segment has to hold, computed from the writes alone.
fn content(wanted: &Wanted) -> Vec<u8> {
    let mut bytes = vec![0; (wanted.pages * PAGE_SIZE) as usize];
    for (at, data) in &wanted.writes {
        bytes[*at as usize..][..data.len()].copy_from_slice(data);
    }
    bytes
}

fn machine(case: &Case) -> Ram {
    use kexec_abi::FrameAllocator as _;
    let mut ram = Ram::new(FRAMES, case.order);
    ram.claims = true;
    for number in &case.used_by_kernel {
        let range = ram.frames(*number, 1);
        // Taken for good: this frame is the running kernel's.
        let _ = ram.claim(range);
    }
    ram.claims = case.claims;
    ram
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_destination_byte_is_the_segments_byte_or_zero_and_nothing_else_changes(case in case()) {
        let mut ram = machine(&case);
        fill_free(&mut ram);
        let free = ram.free_frames();
        let prepared = prepare(&case, &mut ram).unwrap();
        let before = ram.bytes().to_vec();
        let swap = case.mode == Mode::Preserve;
        // SAFETY: the list was planned for this memory, to which nothing refers.
        unsafe { walk(prepared.head().as_u64(), swap) };
        for wanted in &case.segments {
            let range = ram.frames(wanted.first, wanted.pages);
            prop_assert!(ram.at(range) == content(wanted), "segment {range}");
        }
        if swap {
            // SAFETY: as above.
            unsafe { walk(prepared.head().as_u64(), true) };
            prop_assert!(ram.bytes() == before, "the way back restores every byte");
        } else {
            for number in 0..FRAMES {
                let destination = case.segments.iter().any(|w| (w.first..w.first + w.pages).contains(&number));
                let at = (number * PAGE_SIZE) as usize..((number + 1) * PAGE_SIZE) as usize;
                prop_assert!(destination || ram.bytes()[at.clone()] == before[at], "frame {number} changed");
            }
        }
        prepared.free(&mut ram);
        prop_assert_eq!(ram.free_frames(), free, "frames leaked");
    }

    #[test]
    fn no_table_no_list_and_no_source_can_be_executed_and_every_destination_can(case in case()) {
        use kexec_abi::list::{Entries, Item};
        let mut ram = machine(&case);
        let prepared = prepare(&case, &mut ram).unwrap();
        let root = prepared.map().root().start().as_u64();
        let levels = u32::from(prepared.map().levels().count());
        let mut data = Vec::new();
        tables(&ram, root, levels, &mut data);
        prop_assert_eq!(data.len() as u64, prepared.table_frames());
        data.extend(prepared.data_frames().map(|frame| frame.start().as_u64()));
        let mut sources = 0;
        for entry in Entries::new(&ram, prepared.head()).map(|located| located.unwrap().entry) {
            match entry.decode() {
                Item::Source { frame, pages } => {
                    sources += pages;
                    data.extend((0..pages).map(|n| frame.start().as_u64() + n * PAGE_SIZE));
                }
                Item::Indirection(frame) => data.push(frame.start().as_u64()),
                _ => {}
            }
        }
        prop_assert_eq!(sources, prepared.counts().moved);
        for address in data {
            prop_assert_eq!(executable(&ram, root, levels, address), Some(false), "{:#x}", address);
        }
        for wanted in &case.segments {
            for frame in ram.frames(wanted.first, wanted.pages).frames() {
                prop_assert_eq!(executable(&ram, root, levels, frame.start().as_u64()), Some(true), "{}", frame);
            }
        }
        prepared.free(&mut ram);
    }

    #[test]
    fn a_load_that_runs_out_of_memory_leaks_no_frame(case in case(), budget in 0_u64..400) {
        let mut ram = machine(&case);
        let free = ram.free_frames();
        ram.budget = budget;
        if let Ok(prepared) = prepare(&case, &mut ram) {
            prepared.free(&mut ram);
        }
        prop_assert_eq!(ram.free_frames(), free);
    }

    #[test]
    fn a_damaged_list_is_found_or_does_no_harm(case in case(), which in any::<proptest::sample::Index>(), bit in 0..64_u32) {
        use kexec_abi::PhysMemory as _;
        use kexec_abi::list::{Entries, Item};
        let mut ram = machine(&case);
        let prepared = prepare(&case, &mut ram).unwrap();
        prepared.verify(&ram).unwrap();
        let entries: Vec<_> = Entries::new(&ram, prepared.head()).map(Result::unwrap).filter(|l| l.at.is_some()).collect();
        prop_assume!(!entries.is_empty());
        let located = which.get(&entries);
        let at = located.at.unwrap();
        let frame = kexec_abi::Frame::containing(at);
        let damaged = located.entry.as_u64() ^ (1 << bit);
        ram.write_word(frame, (at.as_u64() % PAGE_SIZE / 8) as usize, damaged).unwrap();
        if prepared.verify(&ram).is_ok() {
            // What is not found: a bit that the walker ignores, another frame as a source, which only the content could
            // tell, or the end of a list that was at its end.
            let item = kexec_abi::list::Entry::from(damaged).decode();
            let same = item == located.entry.decode();
            let moved = matches!((item, located.entry.decode()), (Item::Source { pages: a, .. }, Item::Source { pages: b, .. }) if a == b);
            let end = matches!(item, Item::Destination(_) | Item::InPlace { .. }) || located.entry.as_u64() == 0;
            prop_assert!(same || moved || end, "{:?} became {:?}", located.entry, item);
        }
    }
}

// Bits of a table's entry (SDM Vol. 3A, tables 5-14 to 5-20).
const PRESENT: u64 = 1;
const PAGE: u64 = 1 << 7;
const NX: u64 = 1 << 63;
const ADDRESS: u64 = 0xf_ffff_ffff_f000;

/// The entries of the table at an address.
fn entries(ram: &Ram, table: u64) -> impl Iterator<Item = u64> {
    let bytes = ram.at(PhysRange::from_len(PhysAddr::new(table), PAGE_SIZE).unwrap());
    bytes.chunks_exact(8).map(|entry| u64::from_le_bytes(entry.try_into().unwrap()))
}

/// The table at an address, and all below it.
fn tables(ram: &Ram, table: u64, level: u32, found: &mut Vec<u64>) {
    found.push(table);
    for entry in entries(ram, table).filter(|entry| level > 1 && entry & PRESENT != 0 && entry & PAGE == 0) {
        tables(ram, entry & ADDRESS, level - 1, found);
    }
}

/// Whether what is mapped at an address can be executed: no entry on the way says no.
fn executable(ram: &Ram, root: u64, levels: u32, address: u64) -> Option<bool> {
    let (mut table, mut executable) = (root, true);
    for level in (1..=levels).rev() {
        let index = address >> (12 + 9 * (level - 1)) & 511;
        let entry = entries(ram, table).nth(index as usize).filter(|entry| entry & PRESENT != 0)?;
        executable &= entry & NX == 0;
        if level == 1 || (level <= 3 && entry & PAGE != 0) {
            break;
        }
        table = entry & ADDRESS;
    }
    Some(executable)
}

/// Distinct words in the memory that is free, each the hash of its address. The rest holds the tables of the "running kernel".
fn fill_free(ram: &mut Ram) {
    use kexec_abi::PhysMemory as _;
    for frame in ram.all_free() {
        ram.with_frame(frame, |words| {
            let first = frame.start().as_u64();
            let content: [u64; 512] =
                std::array::from_fn(|n| (first + n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            // SAFETY: 512 words, and no reference to them is held.
            unsafe { words.write(content) }
        })
        .unwrap();
    }
}

#[test]
fn where_the_allocator_can_give_the_destination_nothing_is_left_to_move() {
    let case = Case {
        order: Order::Descending,
        claims: true,
        mode: Mode::Replace,
        segments: vec![Wanted { first: 40, pages: 30, writes: vec![(100, vec![7; 9000])] }],
        used_by_kernel: vec![],
        levels: Levels::Four,
    };
    let mut ram = machine(&case);
    let prepared = prepare(&case, &mut ram).unwrap();
    assert_eq!((prepared.counts().moved, prepared.counts().in_place, prepared.counts().zero), (0, 30, 0));
    prepared.free(&mut ram);
}

#[test]
fn frames_that_come_from_a_destination_are_loaded_in_place() {
    // Ascending: the allocator gives the destination's own frames first, in an order that suits nothing.
    let case = Case {
        order: Order::Shuffled(3),
        claims: false,
        mode: Mode::Replace,
        segments: vec![Wanted {
            first: 0,
            pages: FRAMES - 64,
            writes: vec![(0, vec![1; 200 * PAGE_SIZE as usize])],
        }],
        used_by_kernel: vec![],
        levels: Levels::Four,
    };
    let mut ram = machine(&case);
    let prepared = prepare(&case, &mut ram).unwrap();
    // 200 pages were written. Whatever was allocated inside the destination has found its place.
    assert!(prepared.counts().in_place >= 200 * 3 / 4, "{:?}", prepared.counts());
    prepared.free(&mut ram);
}

#[test]
fn planning_is_linear_whatever_the_allocator_hands_out() {
    let reached = |frames: u64| {
        let mut ram = Ram::new(frames, Order::Shuffled(11));
        let map = ram.memory_map();
        let mut slots = [Segment::EMPTY; 2];
        let mut image = Image::new(&mut slots, &map, Mode::Preserve);
        let pages = frames * 3 / 8;
        image.add(ram.frames(0, pages)).unwrap();
        let entry = ram.frame(0).start();
        for page in 0..pages {
            let address = ram.frame(page).start();
            image.write(&mut ram, address, &[1]).unwrap();
        }
        let (machine, mut mappings) = (ram.machine(), [NO_MAPPING; 64]);
        ram.reached.set(0);
        let prepared = image.prepare(&mut ram, &machine, &enter_at(entry), &mut mappings).unwrap();
        let reached = ram.reached.get();
        prepared.free(&mut ram);
        (reached, pages)
    };
    let (small, few) = reached(2048);
    let (large, many) = reached(16384);
    // Frames reached a page: the same, but for one more level of the source map.
    assert!(large * few <= small * many * 2, "{small} for {few} pages, {large} for {many}");
}

#[test]
fn a_segment_over_reserved_memory_is_named_with_the_address() {
    use kexec_abi::{MemoryKind, MemoryRegion};
    let map = [
        MemoryRegion::new(0, 0x8_0000, MemoryKind::Usable),
        MemoryRegion::new(0x8_0000, 0x9_0000, MemoryKind::Reserved),
        MemoryRegion::new(0x9_0000, 0x10_0000, MemoryKind::Usable),
    ];
    let mut slots = [Segment::EMPTY; 2];
    let mut image = Image::new(&mut slots, &map, Mode::Replace);
    let segment = PhysRange::new(PhysAddr::new(0x7_f000), PhysAddr::new(0x9_1000));
    let error = image.add(segment).unwrap_err();
    assert_eq!(
        error,
        AddError::NotUsable { segment, address: PhysAddr::new(0x8_0000), kind: Some(MemoryKind::Reserved) }
    );
    assert_eq!(
        error.to_string(),
        "segment 0x7f000..0x91000 lies over memory that is not usable: 0x80000 is Reserved"
    );
    let beyond = PhysRange::new(PhysAddr::new(0xf_f000), PhysAddr::new(0x10_1000));
    assert_eq!(
        image.add(beyond),
        Err(AddError::NotUsable { segment: beyond, address: PhysAddr::new(0x10_0000), kind: None })
    );
}

#[test]
fn overlapping_unaligned_and_too_many_segments_are_errors_that_name_them() {
    let map = [kexec_abi::MemoryRegion::new(0, 0x10_0000, kexec_abi::MemoryKind::Usable)];
    let mut slots = [Segment::EMPTY; 1];
    let mut image = Image::new(&mut slots, &map, Mode::Replace);
    let range = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
    image.add(range(0x1000, 0x3000)).unwrap();
    assert_eq!(
        image.add(range(0x2000, 0x4000)),
        Err(AddError::Overlap { segment: range(0x2000, 0x4000), other: range(0x1000, 0x3000) })
    );
    assert_eq!(image.add(range(0x5001, 0x6000)), Err(AddError::BadRange(range(0x5001, 0x6000))));
    assert_eq!(image.add(range(0x5000, 0x5000)), Err(AddError::BadRange(range(0x5000, 0x5000))));
    assert_eq!(image.add(range(0x5000, 0x6000)), Err(AddError::TooMany(1)));
}

#[test]
fn an_entry_point_outside_all_segments_is_an_error() {
    let mut ram = Ram::new(64, Order::Ascending);
    let map = ram.memory_map();
    let mut slots = [Segment::EMPTY; 1];
    let mut image = Image::new(&mut slots, &map, Mode::Replace);
    image.add(ram.frames(8, 1)).unwrap();
    let (machine, mut mappings) = (ram.machine(), [NO_MAPPING; 64]);
    let entry = ram.frame(9).start();
    let error = image.prepare(&mut ram, &machine, &enter_at(entry), &mut mappings).unwrap_err();
    assert_eq!(error, PrepareError::EntryOutside(kexec_abi::VirtAddr::new(entry.as_u64())));
}

kexec_abi::page_code! {
    /// A console that prints nothing.
    static SILENT: [16];
    labels { 20: Code64 "put_byte" }
    asm { "20:", "endbr64", "ret" }
    operands {}
}

#[test]
fn a_consoles_registers_in_a_destination_are_an_error_that_names_both() {
    let mut ram = Ram::new(64, Order::Ascending);
    let free = ram.free_frames();
    let map = ram.memory_map();
    let segment = ram.frames(8, 2);
    let entry = segment.start;
    let mut prepare = |first: u64, len: u64| {
        let registers = PhysRange::from_len(PhysAddr::new(first), len).unwrap();
        let mut slots = [Segment::EMPTY; 1];
        let mut image = Image::new(&mut slots, &map, Mode::Replace);
        image.add(segment).unwrap();
        let mut machine = ram.machine();
        let (code, config) = (&SILENT, ConsoleConfig([0; 64]));
        machine.console = Some(Console { code, config, mmio: Some(registers), live: None });
        let mut mappings = [NO_MAPPING; 64];
        let prepared = image.prepare(&mut ram, &machine, &enter_at(entry), &mut mappings);
        prepared.map(|prepared| prepared.free(&mut ram)).map_err(|error| (error, registers))
    };
    // In its last page; from the page before into it; and beside it.
    for (first, len) in [(segment.end.as_u64() - 0x20, 0x20), (segment.start.as_u64() - 4, 0x20)] {
        let (error, console) = prepare(first, len).unwrap_err();
        assert_eq!(error, PrepareError::ConsoleInDestination { console, segment });
        assert_eq!(error.to_string(), format!("the console's registers {console} lie in segment {segment}"));
    }
    // This process maps no text of the console's for the transition, which is found out later.
    let beside = prepare(segment.end.as_u64(), 0x20).map_err(|(error, _)| error);
    assert!(matches!(beside, Err(PrepareError::NotMapped(_))), "{beside:?}");
    assert_eq!(ram.free_frames(), free);
}
