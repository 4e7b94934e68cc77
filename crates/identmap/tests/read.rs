//! Reading tables that this crate did not build: well-formed, defective, and garbage.

mod common;

use common::{Cpu, Machine, canonical, frame, read_all};
use identmap::{Attributes, Defect, Encryption, End, Level, Mapping, Options, Plan, Tables};
use kexec_abi::memory::Words;
use kexec_abi::{Levels, PhysAddr, PhysMemory, PhysRange, VirtAddr};
use proptest::prelude::*;

const ROOT: u64 = 0x1000;

/// A machine with these tables, the first one at `ROOT`, the others after it.
fn machine(tables: &[Words]) -> Machine {
    let mut machine = Machine::new([]);
    for (n, table) in (0..).zip(tables) {
        machine.put(frame(ROOT + n * 4096), *table);
    }
    machine
}

fn table(entries: &[(usize, u64)]) -> Words {
    let mut words = [0; 512];
    for (index, entry) in entries {
        words[*index] = *entry;
    }
    words
}

fn tables(levels: Levels) -> Tables {
    Tables::new(frame(ROOT), levels)
}

/// A table of `level` with random entries, in `frames` from its own on; the tables below follow.
fn grow(frames: &mut Vec<Words>, level: u32, seeds: &mut impl Iterator<Item = (usize, u64)>) -> usize {
    let at = frames.len();
    frames.push([0; 512]);
    for _ in 0..4 {
        let Some((index, bits)) = seeds.next() else { break };
        if frames[at][index] != 0 {
            continue;
        }
        // All bits that may be set or not: R/W, U/S, PWT, PCD, A, D, G, ignored ones, the protection key, NX.
        let flags = bits & 0xfff0_0000_0000_0f7e | 1;
        let leaf = level == 1 || (level <= 3 && bits >> 12 & 3 == 0);
        frames[at][index] = if leaf {
            let bytes = 1u64 << (12 + 9 * (level - 1));
            let pat = if level == 1 { bits & 0x80 } else { 0x80 | bits & 0x1000 };
            flags | pat | (bits & 0x000f_ffff_ffff_f000 & !(bytes - 1))
        } else {
            let below = grow(frames, level - 1, seeds);
            flags | (ROOT + below as u64 * 4096)
        };
    }
    at
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_well_formed_tables_are_read_as_the_manual_says(
        five in any::<bool>(),
        seeds in prop::collection::vec((prop_oneof![0usize..4, 0usize..512, 508usize..512], any::<u64>()), 1..60),
    ) {
        let levels = if five { Levels::Five } else { Levels::Four };
        let mut frames = Vec::new();
        grow(&mut frames, u32::from(levels.count()), &mut seeds.into_iter());
        let machine = machine(&frames);
        let cpu = Cpu { levels: u32::from(levels.count()), phys_bits: 52, nx: true, giant_pages: true, c_bit: 0 };
        let found = read_all(&machine, ROOT, cpu);
        let tables = tables(levels);

        let leaves: Vec<_> = tables.leaves(&machine).map(Result::unwrap).collect();
        prop_assert_eq!(leaves.len(), found.leaves.len());
        for ((leaf, piece), entry) in leaves.iter().zip(&found.leaves).zip(&found.leaf) {
            prop_assert_eq!(leaf.virt.as_u64(), canonical(piece.virt, cpu.levels));
            prop_assert_eq!((leaf.frame.start().as_u64(), leaf.size.bytes()), (piece.phys, piece.bytes));
            prop_assert_eq!(leaf.attributes.writable, piece.writable);
            prop_assert_eq!(leaf.attributes.executable, !piece.no_execute);
            prop_assert_eq!(leaf.attributes.cache as u64, piece.pat);
            prop_assert_eq!(leaf.user, piece.user);
            prop_assert_eq!(leaf.entry, *entry);
            for offset in [0, leaf.size.bytes() - 1] {
                let translation = tables.translate(&machine, VirtAddr::new(leaf.virt.as_u64() + offset));
                prop_assert_eq!(translation.end, End::Leaf(*leaf));
                prop_assert_eq!(translation.phys(), Some(PhysAddr::new(piece.phys + offset)));
                prop_assert_eq!(translation.steps().last().map(|step| step.entry), Some(*entry));
                prop_assert_eq!(translation.steps()[0].table, frame(ROOT));
            }
        }
        let census = tables.census(&machine).unwrap();
        for (level, count) in Level::ALL.into_iter().zip(found.tables) {
            prop_assert_eq!(census.tables(level), count);
        }

        // Runs say the same as leaves.
        let runs: Vec<_> = tables.runs(&machine).map(Result::unwrap).collect();
        prop_assert_eq!(runs.iter().map(|run| run.pages).sum::<u64>(), census.pages());
        for pair in runs.windows(2) {
            prop_assert!(pair[0].last() < pair[1].virt);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_is_read_without_panic_or_endless_loop(
        five in any::<bool>(),
        words in prop::collection::vec((0usize..5, 0usize..512, any::<u64>(), 0u64..7), 0..200),
        virt in any::<u64>(),
        options in (any::<bool>(), any::<bool>(), any::<u8>(), any::<u64>()),
    ) {
        let levels = if five { Levels::Five } else { Levels::Four };
        // Pointers into the five frames there are, into one that is not, or anywhere.
        let mut frames = [[0; 512]; 5];
        for (table, index, word, target) in words {
            frames[table][index] = match target {
                0 => word,
                n => word & !0x000f_ffff_ffff_f000 | (n * 4096),
            };
        }
        let machine = machine(&frames);
        let (nx, giant_pages, phys_bits, mask) = options;
        let encryption = if mask % 3 == 0 { Encryption::EncryptedBit(mask) } else { Encryption::Off };
        let options = Options { levels, nx, giant_pages, phys_bits, encryption, table_flags: mask };
        for tables in [tables(levels), Tables::of(frame(ROOT), options)] {
            let tables = tables.with_table_limit(12);
            for virt in [virt, virt >> 20, 0, u64::MAX] {
                let translation = tables.translate(&machine, VirtAddr::new(virt));
                prop_assert!(translation.steps().len() <= 5);
                let _ = translation.to_string();
                let _ = translation.frame();
            }
            for leaf in tables.leaves(&machine) {
                match leaf {
                    Ok(leaf) => prop_assert_eq!(tables.translate(&machine, leaf.virt).end, End::Leaf(leaf)),
                    Err(defect) => drop(defect.to_string()),
                }
            }
            let _ = tables.drawing(&machine).to_string();
            let _ = tables.census(&machine);
        }
    }
}

#[test]
fn a_recursive_entry_is_followed_and_the_walk_ends() {
    // The root's last entry points to the root, as kernels do that reach their tables that way.
    let machine = machine(&[table(&[(0, 0x2003), (511, ROOT | 3)]), table(&[(0, 0x0000_0083)])]);
    let tables = tables(Levels::Four);
    // The last entry of the last page of the space is the recursive one.
    let translation = tables.translate(&machine, VirtAddr::new(0xffff_ffff_ffff_fff8));
    assert_eq!(translation.phys(), Some(PhysAddr::new(ROOT + 0xff8)));
    assert_eq!(translation.steps().len(), 4);
    let census = tables.census(&machine).unwrap();
    // Once for itself, and three times as the table of each level below; likewise the PDPT.
    assert_eq!(Level::ALL.map(|level| census.tables(level)), [2, 2, 2, 1, 0]);
}

#[test]
fn tables_that_point_at_each_other_512_times_stop_at_the_limit() {
    let machine = machine(&[[ROOT | 3; 512]]);
    let tables = tables(Levels::Four).with_table_limit(1000);
    let mut leaves = tables.leaves(&machine);
    let last = leaves.by_ref().last().unwrap().unwrap_err();
    assert!(matches!(last, Defect::TableLimit { limit: 1000, .. }));
    assert!(leaves.next().is_none());
    assert!(matches!(tables.census(&machine), Err(Defect::TableLimit { .. })));
}

#[test]
fn reserved_bits_end_the_walk_where_the_processor_faults() {
    let reserved = |level: Level, entry: u64, options: Options| {
        // A path to a table of `level`, whose entry 0 is the one on trial.
        let depth = Level::root(options.levels).number() - level.number();
        let mut frames: Vec<Words> =
            (0..depth).map(|n| table(&[(0, (ROOT + (n as u64 + 1) * 4096) | 3)])).collect();
        frames.push(table(&[(0, entry)]));
        let tables = Tables::of(frame(ROOT), options);
        match tables.translate(&machine(&frames), VirtAddr::new(0)).end {
            End::Defect(Defect::Reserved { level: at, bits, entry: raw, .. }) => {
                assert_eq!((at, raw), (level, entry));
                bits
            }
            _ => 0,
        }
    };
    let lenient = *tables(Levels::Five).options();
    assert_eq!(reserved(Level::Pml5, 0x83, lenient), 0x80);
    assert_eq!(reserved(Level::Pml4, 0x83, lenient), 0x80);
    assert_eq!(reserved(Level::Pdpt, 0x83, lenient), 0);
    assert_eq!(reserved(Level::Pdpt, 0x83, Options { giant_pages: false, ..lenient }), 0x80);
    assert_eq!(reserved(Level::Pdpt, 0x3fff_f083, lenient), 0x3fff_e000);
    assert_eq!(reserved(Level::Pd, 0x001f_f083, lenient), 0x1f_e000);
    assert_eq!(reserved(Level::Pt, 0x001f_f083, lenient), 0);
    assert_eq!(reserved(Level::Pt, 1 << 63 | 1, lenient), 0);
    assert_eq!(reserved(Level::Pt, 1 << 63 | 1, Options { nx: false, ..lenient }), 1 << 63);
    assert_eq!(
        reserved(Level::Pt, 1 << 51 | 1 << 40 | 1, Options { phys_bits: 40, ..lenient }),
        1 << 51 | 1 << 40
    );
    let encryption = Encryption::EncryptedBit(1 << 51);
    assert_eq!(reserved(Level::Pt, 1 << 51 | 1, Options { phys_bits: 40, encryption, ..lenient }), 0);
    // Not present: the processor looks at no other bit.
    assert_eq!(reserved(Level::Pml4, 0x82, lenient), 0);
}

#[test]
fn what_lies_behind_a_table_that_cannot_be_reached_is_still_read() {
    let machine = machine(&[
        table(&[(0, 0x2003), (1, 0x7777_7000 | 3), (2, 0x3003), (511, 0x7777_7000 | 3)]),
        table(&[(5, 0x4000_0083)]),
        table(&[(511, 0x8000_0083)]),
    ]);
    let tables = tables(Levels::Four);
    let found: Vec<_> = tables.leaves(&machine).collect();
    let unreachable = |virt| Err(Defect::Unreachable { virt, level: Level::Pdpt, table: frame(0x7777_7000) });
    assert_eq!(found.len(), 4);
    assert_eq!(found[0].unwrap().virt.as_u64(), 5 << 30);
    assert_eq!(found[1], unreachable(VirtAddr::new(1 << 39)));
    assert_eq!(found[2].unwrap().virt.as_u64(), (2 << 39) + (511 << 30));
    assert_eq!(found[3], unreachable(VirtAddr::new(0xffff_ff80_0000_0000)));
    let drawing = tables.drawing(&machine).to_string();
    assert!(drawing.contains("0x8000000000: the PDPT in frame 0x77777000 cannot be reached"), "{drawing}");

    // Not even the root: one defect.
    let nowhere = Tables::new(frame(0x9000), Levels::Five);
    assert_eq!(nowhere.leaves(&machine).count(), 1);
    let end = nowhere.translate(&machine, VirtAddr::new(0x1234)).end;
    let virt = VirtAddr::new(0x1234);
    assert_eq!(end, End::Defect(Defect::Unreachable { virt, level: Level::Pml5, table: frame(0x9000) }));
}

#[test]
fn an_address_that_is_not_canonical_is_told_from_one_that_is_not_mapped() {
    let machine = machine(&[table(&[])]);
    for (levels, bits) in [(Levels::Four, 48), (Levels::Five, 57)] {
        for virt in [1 << (bits - 1), u64::MAX << bits, 1 << 63, 1 << 62] {
            let translation = tables(levels).translate(&machine, VirtAddr::new(virt));
            assert_eq!(translation.end, End::NonCanonical, "{virt:#x}");
            assert!(translation.steps().is_empty());
        }
        for virt in [0, (1 << (bits - 1)) - 1, u64::MAX << (bits - 1), u64::MAX] {
            let translation = tables(levels).translate(&machine, VirtAddr::new(virt));
            assert_eq!(translation.end, End::NotPresent(Level::root(levels)), "{virt:#x}");
            assert_eq!(translation.steps().len(), 1);
        }
    }
}

#[test]
fn what_one_entry_of_the_walk_forbids_is_forbidden() {
    // Read-only in the PML4, no-execute in the PDPT, supervisor in the PD; the leaf allows all.
    let nx = 1 << 63;
    let machine = machine(&[
        table(&[(0, 0x2005)]),
        table(&[(0, 0x3007 | nx)]),
        table(&[(0, 0x4003)]),
        table(&[(0, 0x5007)]),
    ]);
    let translation = tables(Levels::Four).translate(&machine, VirtAddr::new(0xabc));
    let leaf = translation.leaf().unwrap();
    assert_eq!((leaf.attributes, leaf.user), (Attributes::R, false));
    let text = translation.to_string();
    assert!(text.starts_with("0xabc -> 0x5abc r-- wb 4 KiB\n"), "{text}");
    assert_eq!(text.lines().count(), 5);
}

#[test]
fn a_map_is_printed_as_a_person_would_draw_it() {
    let mut machine = Machine::with_frames(0x100_0000, 64);
    let range = |start, end| PhysRange::new(PhysAddr::new(start), PhysAddr::new(end));
    let mut mappings = [
        Mapping::identity(range(0, 0x9_f000), Attributes::RWX),
        Mapping::identity(range(0x10_0000, 0x8000_0000), Attributes::RWX),
        Mapping::identity(range(0x20_0000, 0x20_1000), Attributes::RX).with_priority(1),
        Mapping::alias(VirtAddr::new(0xffff_8000_0000_0000), range(0x20_0000, 0x20_1000), Attributes::RX),
    ];
    let plan = Plan::new(&mut mappings, &Options { giant_pages: true, ..Options::default() }).unwrap();
    let map = plan.build(&mut machine).unwrap();
    let drawing = map.tables().drawing(&machine).to_string();
    let expected = [
        "0x0000000000000000..0x000000000009f000    636   KiB  rwx wb  159 x 4 KiB",
        "0x000000000009f000..0x0000000000100000    388   KiB  -",
        "0x0000000000100000..0x0000000000200000      1   MiB  rwx wb  256 x 4 KiB",
        "0x0000000000200000..0x0000000000201000      4   KiB  r-x wb  1 x 4 KiB",
        "0x0000000000201000..0x0000000080000000      1.9 GiB  rwx wb  511 x 4 KiB + 510 x 2 MiB + 1 x 1 GiB",
        "0x0000000080000000..0xffff800000000000    127.9 TiB  -",
        "0xffff800000000000..0xffff800000001000      4   KiB  r-x wb  1 x 4 KiB  -> 0x200000",
        "4 levels from 0x1007000: 8 tables (1 PML4, 2 PDPT, 2 PD, 3 PT), 1439 leaves (928 of 4 KiB, 510 of 2 MiB, 1 of 1 GiB)",
    ];
    assert_eq!(drawing.lines().collect::<Vec<_>>(), expected);
    let runs: Vec<String> = map.tables().runs(&machine).map(|run| run.unwrap().to_string()).collect();
    assert_eq!(runs[0], "0x0..0x9f000 rwx wb");
    assert_eq!(runs[4], "0xffff800000000000..0xffff800000001000 -> 0x200000 r-x wb");
    assert_eq!(machine.read_word(map.root(), 1), Ok(0));
    map.free(&mut machine).unwrap();
}
