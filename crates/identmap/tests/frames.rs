//! No frame is lost, wherever a build fails.

mod common;

use common::{Machine, frame};
use identmap::{Attributes, Error, Map, Mapping, Options, Plan};
use kexec_abi::{Levels, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

const OPTIONS: Options = Options {
    levels: Levels::Five,
    giant_pages: true,
    nx: true,
    phys_bits: 40,
    encryption: identmap::Encryption::Off,
    table_flags: 0,
};

/// Tables of every level, several of each but the root.
fn mappings() -> [Mapping; 6] {
    [
        Mapping::identity(range(0x1000, 0x9f000), Attributes::RWX),
        Mapping::identity(range(0x10_0000, 0x4020_0000), Attributes::RWX),
        Mapping::identity(range(0x30_0000, 0x30_1000), Attributes::RX).with_priority(1),
        Mapping::identity(range(0xff_ffe0_0000, 0x100_0000_0000), Attributes::RW),
        Mapping::alias(VirtAddr::new(0xff00_0000_0000_0000), range(0x1000, 0x3000), Attributes::RX),
        Mapping::alias(VirtAddr::new(0xffff_ffff_ffff_f000), range(0x1000, 0x2000), Attributes::RW),
    ]
}

fn build(machine: &mut Machine) -> Result<Map, Error> {
    Plan::new(&mut mappings(), &OPTIONS)?.build(machine)
}

fn needed() -> u64 {
    Plan::new(&mut mappings(), &OPTIONS).unwrap().frames()
}

#[test]
fn an_allocator_that_runs_out_at_any_call_gets_all_frames_back() {
    for available in 0..needed() {
        let mut machine = Machine::with_frames(0x10_0000, available);
        assert_eq!(build(&mut machine), Err(Error::OutOfFrames { needed: needed(), available }));
        assert!(machine.given.is_empty());
        assert_eq!(machine.free.len() as u64, available);
    }
    let mut machine = Machine::with_frames(0x10_0000, needed());
    let map = build(&mut machine).unwrap();
    assert_eq!(machine.given.len() as u64, needed());
    map.free(&mut machine).unwrap();
    assert!(machine.given.is_empty());
}

#[test]
fn a_shortage_is_reported_before_a_table_is_made() {
    let mut machine = Machine::with_frames(0x10_0000, needed() - 1);
    build(&mut machine).unwrap_err();
    for n in 0..needed() - 1 {
        let bytes = machine.bytes(frame(0x10_0000 + n * 4096)).unwrap();
        // The garbage that the frame was given out with, but for the first word, by which the frames waited.
        assert!(bytes[8..].chunks(8).all(|word| word == 0xdead_beef_dead_beef_u64.to_le_bytes()));
    }
}

#[test]
fn a_frame_that_cannot_be_reached_fails_the_build_and_comes_back_with_all_others() {
    for n in 0..needed() {
        let mut machine = Machine::with_frames(0x10_0000, needed());
        let bad = frame(0x10_0000 + n * 4096);
        machine.unreachable.insert(bad);
        assert_eq!(build(&mut machine), Err(Error::Unreachable(Unreachable(bad))));
        assert!(machine.given.is_empty());
    }
}

#[test]
fn all_frames_come_back_when_any_single_visit_fails() {
    let mut machine = Machine::with_frames(0x10_0000, needed());
    build(&mut machine).unwrap().free(&mut machine).unwrap();
    let mut machine = Machine::with_frames(0x10_0000, needed());
    let map = build(&mut machine).unwrap();
    let visits = machine.visits.get();
    map.free(&mut machine).unwrap();
    for visit in 0..visits {
        let mut machine = Machine::with_frames(0x10_0000, needed());
        machine.failing_visit.set(Some(visit));
        let error = build(&mut machine).unwrap_err();
        assert!(matches!(error, Error::Unreachable(_)), "{error}");
        assert!(machine.given.is_empty(), "visit {visit} of {visits}: {:?}", machine.given);
    }
}

#[test]
fn a_table_is_visited_once_for_itself_and_once_for_each_table_that_it_points_to() {
    let mut machine = Machine::with_frames(0x10_0000, needed());
    let map = build(&mut machine).unwrap();
    // Taking and popping each frame is a visit each; then each table, and once more for each of the others' entries.
    assert_eq!(machine.visits.get(), 2 * needed() + needed() + (needed() - 1));
    map.free(&mut machine).unwrap();
}

#[test]
fn a_frame_that_no_entry_can_point_to_is_refused_and_comes_back() {
    let mut machine = Machine::new([frame(0x1000), frame(1 << 40), frame(0x2000)]);
    assert_eq!(build(&mut machine), Err(Error::FrameBeyondPhysBits(frame(1 << 40))));
    assert!(machine.given.is_empty());
}

#[test]
fn protecting_the_tables_makes_each_of_them_read_write_and_not_executable() {
    for giant_pages in [false, true] {
        // Frames all over the map, several in one 2 MiB, some in the giant leaf, one outside the map.
        let frames = [
            0x20_0000u64,
            0x40_3000,
            0x40_5000,
            0x4000_0000,
            0x4010_0000,
            0x3fff_f000,
            0x1000_0000,
            0x5000_0000,
        ]
        .into_iter()
        .chain((0..10).map(|n| 0x2000_0000 + n * 0x41_1000))
        .chain((0..40).map(|n| 0x3000_0000 + n * 0x1000))
        .map(frame);
        let mut machine = Machine::new(frames);
        let options = Options { giant_pages, levels: Levels::Four, ..Options::default() };
        let mut mappings = [Mapping::identity(range(0, 0x4800_0000), Attributes::RWX)];
        let mut map = Plan::new(&mut mappings, &options).unwrap().build(&mut machine).unwrap();
        let before = map.frames();
        map.protect_tables(Attributes::RW, &mut machine).unwrap();
        assert!(map.frames() > before);
        assert_eq!(machine.given.len() as u64, map.frames());
        assert_eq!(map.tables().census(&machine).unwrap().table_count(), map.frames());

        let found = common::read_all(&machine, map.root().start().as_u64(), common::model::cpu(&options));
        assert_eq!(found.table_frames.len() as u64, map.frames());
        // Every page still maps to itself, and is executable unless a table lies in it.
        let mut page = 0;
        for leaf in &found.leaves {
            assert_eq!((leaf.virt, leaf.phys), (page, page));
            page += leaf.bytes;
            assert!(leaf.writable);
            let tables =
                found.table_frames.iter().filter(|t| (leaf.virt..leaf.virt + leaf.bytes).contains(t)).count();
            assert_eq!(leaf.no_execute, tables != 0);
            assert!(tables == 0 || leaf.bytes == 4096);
        }
        assert_eq!(page, 0x4800_0000);
        map.free(&mut machine).unwrap();
        assert!(machine.given.is_empty());
    }
}

#[test]
fn protecting_tables_without_frames_left_is_an_error_and_the_map_stays_complete() {
    let mut mappings = [Mapping::identity(range(0, 0x4800_0000), Attributes::RWX)];
    for extra in 0..3 {
        let plan = Plan::new(&mut mappings, &Options::default()).unwrap();
        let frames = (0..plan.frames() + extra).map(|n| frame(0x10_0000 + n * 0x20_0000));
        let mut machine = Machine::new(frames);
        let mut map = plan.build(&mut machine).unwrap();
        let error = map.protect_tables(Attributes::RW, &mut machine).unwrap_err();
        assert_eq!(error, Error::OutOfFrames { needed: 1, available: 0 });
        assert_eq!(machine.given.len() as u64, map.frames());
        let pages: u64 = map.tables().census(&machine).unwrap().pages();
        assert_eq!(pages * 4096, 0x4800_0000);
        map.free(&mut machine).unwrap();
        assert!(machine.given.is_empty());
    }
}

#[test]
fn protecting_a_page_changes_that_page_only() {
    let mut machine = Machine::with_frames(0x8000_0000, 16);
    let options = Options { giant_pages: true, ..Options::default() };
    let cache = Attributes::RWX.with_cache(identmap::Cache::Pat5);
    let mut mappings = [Mapping::identity(range(0, 0x8000_0000), cache)];
    let mut map = Plan::new(&mut mappings, &options).unwrap().build(&mut machine).unwrap();
    let page = VirtAddr::new(0x4020_3000);
    map.protect(page, Attributes::RX, &mut machine).unwrap();
    let runs: Vec<String> = map.tables().runs(&machine).map(|run| run.unwrap().to_string()).collect();
    assert_eq!(
        runs,
        ["0x0..0x40203000 rwx pat5", "0x40203000..0x40204000 r-x wb", "0x40204000..0x80000000 rwx pat5"]
    );
    assert_eq!(map.frames(), 2 + 2);

    // Again, it is done already; elsewhere, it is not mapped.
    map.protect(page, Attributes::RX, &mut machine).unwrap();
    assert_eq!(map.frames(), 2 + 2);
    for virt in [0x8000_0000, 0x7fff_ffff_f000, 0x8000_0000_0000, 0xffff_ffff_ffff_f000].map(VirtAddr::new) {
        assert_eq!(map.protect(virt, Attributes::RX, &mut machine), Err(Error::NotMapped(virt)));
    }

    // A frame that fails while it is filled comes back.
    let given = machine.given.len();
    for visit in 0..8 {
        machine.failing_visit.set(Some(machine.visits.get() + visit));
        if map.protect(VirtAddr::new(0x5000_0000), Attributes::RX, &mut machine).is_err() {
            assert_eq!(machine.given.len() as u64, map.frames());
        }
        machine.failing_visit.set(None);
    }
    assert!(machine.given.len() > given);
    assert_eq!(machine.read_word(map.root(), 1), Ok(0));
    map.free(&mut machine).unwrap();
    assert!(machine.given.is_empty());
}

#[test]
fn protecting_the_tables_ends_even_where_every_frame_lies_in_another_2_mib() {
    let mut machine =
        Machine::new((0..1300).map(|n| frame(0x1000 + n * 0x20_0000 % 0x4800_0000 + n / 576 * 0x1000)));
    let mut mappings = [Mapping::identity(range(0, 0x4800_0000), Attributes::RWX)];
    let mut map = Plan::new(&mut mappings, &Options::default()).unwrap().build(&mut machine).unwrap();
    map.protect_tables(Attributes::RW, &mut machine).unwrap();
    // A PT for each of the 576.
    assert_eq!(map.frames(), 4 + 576);
    map.free(&mut machine).unwrap();
    assert!(machine.given.is_empty());
}
