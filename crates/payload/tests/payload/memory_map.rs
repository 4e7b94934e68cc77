//! `e820::sanitize` and `place`, against models that look at one unit of memory after the other.

use kexec_abi::{MemoryKind, MemoryRegion, PhysAddr, PhysRange};
use kexec_payload::{Request, e820, place};
use proptest::prelude::*;

const KINDS: [MemoryKind; 6] = [
    MemoryKind::Usable,
    MemoryKind::Reserved,
    MemoryKind::AcpiReclaimable,
    MemoryKind::AcpiNvs,
    MemoryKind::Unusable,
    MemoryKind::Persistent,
];

/// The smallest unit in which the maps of these tests are made, in bytes, and how many of them there are.
const UNIT: u64 = 0x400;
const UNITS: u64 = 96;
const UNITS_PER_FRAME: u64 = 4;

fn regions() -> impl Strategy<Value = Vec<MemoryRegion>> {
    let kind = prop_oneof![4 => Just(0), 1 => 1..KINDS.len()];
    let region = (0..UNITS, 0..40u64, kind).prop_map(|(start, len, kind)| {
        MemoryRegion::new(start * UNIT, (start + len).min(UNITS) * UNIT, KINDS[kind])
    });
    prop::collection::vec(region, 0..8)
}

/// What each unit is. `KINDS` is in the order in which one kind wins over another.
fn model(map: &[MemoryRegion]) -> Vec<Option<usize>> {
    (0..UNITS)
        .map(|unit| {
            (0..KINDS.len()).rev().find(|&kind| {
                map.iter().any(|region| {
                    region.kind == KINDS[kind] && region.range.contains(PhysAddr::new(unit * UNIT))
                })
            })
        })
        .collect()
}

fn frame_is_usable(model: &[Option<usize>], frame: u64) -> bool {
    (0..UNITS_PER_FRAME).all(|n| model.get((frame * UNITS_PER_FRAME + n) as usize) == Some(&Some(0)))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_sanitized_map_says_of_each_byte_what_the_map_said_but_frames_are_usable_as_a_whole_or_not_at_all(map in regions()) {
        let model = model(&map);
        let sanitized: Vec<_> = e820::sanitize(&map).collect();
        for unit in 0..UNITS {
            let expected = match model[unit as usize] {
                Some(0) if !frame_is_usable(&model, unit / UNITS_PER_FRAME) => None,
                other => other.map(|kind| KINDS[kind]),
            };
            let found: Vec<_> = sanitized
                .iter()
                .filter(|region| region.range.contains(PhysAddr::new(unit * UNIT)))
                .map(|region| region.kind)
                .collect();
            prop_assert_eq!(found, Vec::from_iter(expected), "unit {}", unit);
        }
    }

    #[test]
    fn a_sanitized_map_is_sorted_and_its_neighbours_of_one_kind_are_merged(map in regions()) {
        let sanitized: Vec<_> = e820::sanitize(&map).collect();
        for pair in sanitized.windows(2) {
            prop_assert!(pair[0].range.end <= pair[1].range.start);
            prop_assert!(pair[0].range.end < pair[1].range.start || pair[0].kind != pair[1].kind);
        }
        prop_assert!(sanitized.iter().all(|region| !region.range.is_empty()));
    }

    #[test]
    fn a_place_is_the_lowest_that_the_map_and_the_request_allow(
        map in regions(),
        size in 0..0x7000u64,
        align in prop_oneof![Just(1u64), Just(0x1000), Just(0x2000), Just(0x4000), Just(0x3000)],
        at_or_above in 0..UNITS * UNIT,
        below in 0..UNITS * UNIT + 0x2000,
        taken in prop::collection::vec((0..UNITS, 0..9u64), 0..4),
    ) {
        let taken: Vec<_> = taken
            .iter()
            .map(|&(start, len)| PhysRange::new(PhysAddr::new(start * UNIT + 1), PhysAddr::new((start + len) * UNIT + 1)))
            .collect();
        let request = Request { size, align, at_or_above: PhysAddr::new(at_or_above), below: PhysAddr::new(below) };
        let model = model(&map);
        let frames = size.div_ceil(0x1000);
        let expected = (0..UNITS / UNITS_PER_FRAME).find(|&first| {
            let start = first * 0x1000;
            let end = start + frames * 0x1000;
            frames > 0
                && align != 0x3000
                && start % align == 0
                && start >= at_or_above
                && end <= below
                && (first..first + frames).all(|frame| frame_is_usable(&model, frame))
                && (start..end).step_by(0x200).chain([end - 1]).all(|at| !taken.iter().any(|t| t.contains(PhysAddr::new(at))))
        });
        let found = place(&map, request, taken.iter().copied());
        let expected = expected.map(|first| {
            PhysRange::new(PhysAddr::new(first * 0x1000), PhysAddr::new((first + frames) * 0x1000))
        });
        prop_assert_eq!(found, expected);
    }
}

#[test]
fn sizes_and_addresses_at_the_end_of_the_address_space_do_not_overflow() {
    let map = [MemoryRegion::new(u64::MAX - 0x5000, u64::MAX, MemoryKind::Usable)];
    let request =
        |size, align| Request { size, align, at_or_above: PhysAddr::new(0), below: PhysAddr::new(u64::MAX) };
    assert_eq!(place(&map, request(u64::MAX, 0x1000), []), None);
    assert_eq!(place(&map, request(0x10_0000, 0x1000), []), None);
    assert_eq!(place(&map, request(0x1000, 1 << 63), []), None);
    assert!(place(&map, request(0x1000, 0x1000), []).is_some());
    let everything = [PhysRange::new(PhysAddr::new(0), PhysAddr::new(u64::MAX))];
    assert_eq!(place(&map, request(0x1000, 0x1000), everything), None);
}

#[test]
fn a_region_that_starts_where_it_ends_or_later_says_nothing() {
    let map = [
        MemoryRegion::new(0x5000, 0x5000, MemoryKind::Reserved),
        MemoryRegion::new(0x9000, 0x2000, MemoryKind::Reserved),
        MemoryRegion::new(0x1000, 0x8000, MemoryKind::Usable),
    ];
    assert_eq!(e820::sanitize(&map).collect::<Vec<_>>(), [map[2]]);
}
