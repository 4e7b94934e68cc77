//! The number of tables is the least possible: found by trying, for each slot, every way to fill it.

mod common;

use common::Machine;
use identmap::{Attributes, Cache, Mapping, Options, Plan};
use kexec_abi::{Levels, PhysAddr, PhysRange, VirtAddr};
use proptest::prelude::*;

/// Pages `first..end` go to the frames from `frame` on. These do not overlap.
#[derive(Clone, Debug)]
struct Interval {
    first: u64,
    end: u64,
    frame: u64,
    attributes: Attributes,
}

/// What a page is mapped to.
fn page(intervals: &[Interval], page: u64) -> Option<(u64, Attributes)> {
    let interval = intervals.iter().find(|i| i.first <= page && page < i.end)?;
    Some((interval.frame + page - interval.first, interval.attributes))
}

/// The fewest tables below an entry of `level` that covers the pages from `first` on: the least over all trees that map
/// just the pages asked for.
fn fewest(intervals: &[Interval], level: u32, first: u64, giant_pages: bool) -> u64 {
    let pages = 1u64 << (9 * (level - 1));
    if !intervals.iter().any(|i| i.first < first + pages && first < i.end) {
        return 0; // the only way: not present
    }
    let mut ways = Vec::new();
    if level <= 2 || (level == 3 && giant_pages) {
        let start = page(intervals, first);
        let leaf = start.is_some_and(|(frame, attributes)| {
            frame % pages == 0
                && (0..pages).all(|n| page(intervals, first + n) == Some((frame + n, attributes)))
        });
        if leaf {
            ways.push(0);
        }
    }
    if level > 1 {
        let step = pages / 512;
        ways.push(
            1 + (0..512).map(|n| fewest(intervals, level - 1, first + n * step, giant_pages)).sum::<u64>(),
        );
    }
    ways.into_iter().min().expect("a page can always be a 4 KiB leaf")
}

/// Consecutive intervals and gaps near the border of a giant slot, some aligned so that larger leaves are possible.
fn intervals() -> impl Strategy<Value = Vec<Interval>> {
    let start =
        prop_oneof![(1u64 << 18) - 1030..(1 << 18), Just((1 << 18) - 512), Just(1 << 18), Just(0), 0u64..20];
    let length = prop_oneof![
        4 => 1u64..5,
        4 => Just(512),
        4 => (1u64..4).prop_map(|n| n * 512),
        4 => 400u64..1300,
        1 => Just(1 << 18),
        1 => (1u64 << 18) - 2..(1 << 18) + 1030,
    ];
    let gap = prop_oneof![6 => Just(0u64), 1 => 1u64..5, 1 => Just(512)];
    // The distance of the frame to the page; 0 twice in a row makes neighbours that can be joined.
    let delta = prop_oneof![6 => Just(0u64), 1 => Just(1), 1 => Just(512), 1 => Just(1 << 18)];
    let attributes = prop_oneof![5 => Just(Attributes::RWX), 1 => Just(Attributes::RX),
        1 => Just(Attributes::RW.with_cache(Cache::Uncached))];
    (start, prop::collection::vec((gap, length, delta, attributes), 1..7)).prop_map(|(start, pieces)| {
        let mut next = start;
        pieces
            .into_iter()
            .map(|(gap, length, delta, attributes)| {
                let first = next + gap;
                next = first + length;
                Interval { first, end: next, frame: first + delta, attributes }
            })
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_tree_that_maps_the_same_has_fewer_tables(
        intervals in intervals(),
        giant_pages in any::<bool>(),
        five in any::<bool>(),
        priorities in prop::collection::vec(0..Mapping::PRIORITIES, 7),
    ) {
        let levels = if five { Levels::Five } else { Levels::Four };
        let mut mappings: Vec<Mapping> = intervals
            .iter()
            .zip(priorities)
            .map(|(Interval { first, end, frame, attributes }, priority)| {
                let range = PhysRange::new(PhysAddr::new(frame << 12), PhysAddr::new((frame + end - first) << 12));
                Mapping::alias(VirtAddr::new(first << 12), range, *attributes).with_priority(priority)
            })
            .collect();
        let options = Options { levels, giant_pages, ..Options::default() };
        let plan = Plan::new(&mut mappings, &options).unwrap();
        let root = u32::from(levels.count());
        let below = (0..2).map(|n| fewest(&intervals, root, n << (9 * (root - 1)), giant_pages)).sum::<u64>();

        prop_assert_eq!(plan.frames(), 1 + below);

        let mut machine = Machine::with_frames(0x1000, plan.frames());
        let map = plan.build(&mut machine).unwrap();
        prop_assert_eq!(machine.given.len() as u64, plan.frames());
        map.free(&mut machine).unwrap();
    }
}

#[test]
fn an_empty_request_is_one_table() {
    let plan = Plan::new(&mut [], &Options::default()).unwrap();
    assert_eq!(plan.frames(), 1);
}
