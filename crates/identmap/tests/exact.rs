//! Randomly drawn requests, judged by a model of what they mean and a walker that reads raw bytes, both ways.

mod common;

use common::model::{Refusal, cpu, expected};
use common::{Machine, Piece, canonical, read_all};
use identmap::{Attributes, Cache, Encryption, End, Error, LeafSize, Level, Mapping, Options, Plan};
use kexec_abi::{Levels, PhysAddr, PhysRange, VirtAddr};
use proptest::prelude::*;

/// Page numbers around which something may go wrong: the borders of slots and the ends of the halves.
fn border(levels: u32) -> impl Strategy<Value = i64> {
    let half = 1i64 << (9 * levels - 1);
    prop_oneof![
        4 => Just(0),
        4 => Just(512),
        4 => Just(1 << 18),
        2 => Just(1 << 27),
        1 => Just(1 << 36),
        2 => Just(half),
        2 => Just(2 * half),
        1 => Just(half + (1 << 18)),
    ]
}

fn offset() -> impl Strategy<Value = i64> {
    prop_oneof![
        4 => -3i64..=3,
        4 => (-4i64..=4).prop_map(|n| n * 512),
        2 => (-2i64..=2).prop_map(|n| n << 18),
        2 => -1500i64..=1500,
    ]
}

fn length() -> impl Strategy<Value = i64> {
    prop_oneof![
        6 => 0i64..=6,
        4 => 500i64..=530,
        4 => (1i64..=4).prop_map(|n| n * 512),
        3 => 1000i64..=1600,
        2 => (1i64..=2).prop_map(|n| n << 18),
        2 => (1i64 << 18) - 3..=(1 << 18) + 3,
        // Hundreds of giant slots, in few tables only where they may be giant leaves.
        1 => (500i64..=520).prop_map(|n| n << 18),
    ]
}

fn attributes() -> impl Strategy<Value = Attributes> {
    (any::<bool>(), any::<bool>(), prop_oneof![3 => Just(0u8), 1 => 0u8..8], prop::bool::weighted(0.2))
        .prop_map(|(writable, executable, cache, shared)| Attributes {
            writable,
            executable,
            cache: Cache::from_pat_index(cache),
            shared,
        })
}

fn options() -> impl Strategy<Value = Options> {
    (
        prop_oneof![Just(Levels::Four), Just(Levels::Five)],
        any::<bool>(),
        any::<bool>(),
        prop_oneof![2 => Just(52u8), 1 => 31u8..=52],
        prop_oneof![
            4 => Just(Encryption::Off),
            1 => (39u32..52).prop_map(|bit| Encryption::EncryptedBit(1 << bit)),
            1 => (39u32..52).prop_map(|bit| Encryption::SharedBit(1 << bit)),
        ],
        prop_oneof![Just(0u64), any::<u64>().prop_map(|bits| bits & 0xf5c)],
    )
        .prop_map(|(levels, giant_pages, nx, phys_bits, encryption, table_flags)| Options {
            levels,
            giant_pages,
            nx,
            phys_bits,
            encryption,
            table_flags,
        })
}

/// A mapping near a border; an alias by a multiple of some leaf's size or not.
fn mapping(levels: u32) -> impl Strategy<Value = Mapping> {
    let alias = prop_oneof![
        6 => Just(None),
        1 => (-3i64..=3).prop_map(|n| Some(n << 18)),
        1 => (-3i64..=3).prop_map(|n| Some(n * 512)),
        1 => (-3i64..=3).prop_map(Some),
    ];
    let ragged = prop_oneof![3 => Just((0, 0)), 1 => (0i64..4096, 0i64..4096)];
    let rounding = prop_oneof![
        6 => Just(None),
        2 => Just(Some(12)),
        1 => Just(Some(21)),
        1 => (12u32..32).prop_map(Some),
    ];
    (border(levels), offset(), length(), alias, ragged, rounding, attributes(), 0u8..8).prop_map(
        move |(border, offset, length, alias, (head, tail), rounding, attributes, priority)| {
            let page = border + offset;
            // Aliases of the upper half go to low memory: nothing is as high as their own address.
            let upper = border >= 1 << (9 * levels - 1);
            let phys = if upper { offset + 2000 } else { page } + alias.unwrap_or(0);
            let start = ((phys << 12) + head).max(0) as u64;
            let end = ((phys + length) * 4096 - tail).max(0) as u64;
            let linear = (page << 12) + head;
            let virt = match u64::try_from(linear) {
                // One past the end of the space stays there: it is the address 0 to a builder that wraps.
                Ok(linear) if linear < 1 << (12 + 9 * levels) => canonical(linear, levels),
                _ => linear as u64,
            };
            let mapping = Mapping::alias(
                VirtAddr::new(virt),
                PhysRange::new(PhysAddr::new(start), PhysAddr::new(end)),
                attributes,
            )
            .with_priority(priority);
            match rounding {
                Some(shift) => mapping.rounded_out(1 << shift),
                None => mapping,
            }
        },
    )
}

/// Some mappings; those of one priority mostly have equal attributes.
fn request() -> impl Strategy<Value = (Options, Vec<Mapping>)> {
    options().prop_flat_map(|options| {
        let levels = u32::from(options.levels.count());
        let mappings = prop::collection::vec((mapping(levels), prop::bool::weighted(0.9)), 0..12);
        (mappings, prop::collection::vec(attributes(), 8)).prop_map(move |(mappings, of_priority)| {
            let mappings = mappings.into_iter().map(|(mapping, alike)| {
                let attributes =
                    if alike { of_priority[usize::from(mapping.priority)] } else { mapping.attributes };
                Mapping { attributes, ..mapping }
            });
            (options, mappings.collect())
        })
    })
}

fn refusal(error: Error) -> Option<Refusal> {
    match error {
        Error::Unaligned(_) => Some(Refusal::Unaligned),
        Error::BeyondPhysBits(_) => Some(Refusal::BeyondPhysBits),
        Error::NonCanonical(_) => Some(Refusal::NonCanonical),
        Error::Conflict(..) => Some(Refusal::Conflict),
        _ => None,
    }
}

fn check(options: Options, mut mappings: Vec<Mapping>, most_frames: u64) -> Result<(), TestCaseError> {
    let expected = expected(&mappings, &options);
    let mut again = mappings.clone();
    let plan = match (Plan::new(&mut mappings, &options), &expected) {
        (Ok(plan), Ok(_)) => plan,
        (Err(error), Err(reason)) => {
            prop_assert_eq!(refusal(error), Some(*reason));
            return Ok(());
        }
        (got, model) => return Err(TestCaseError::fail(format!("{got:?}, but {model:?}"))),
    };
    let Ok(expected) = expected else { return Ok(()) };
    prop_assume!(plan.frames() <= most_frames);

    let mut machine = Machine::with_frames(0x1000, plan.frames());
    let map = plan.build(&mut machine).unwrap();
    prop_assert_eq!(machine.free.len(), 0);
    let found = read_all(&machine, map.root().start().as_u64(), cpu(&options));

    // Both ways at once: the pieces are equal, so every page is mapped where it should be and no other is.
    prop_assert_eq!(&found.joined(), &expected);

    // The plan was exact, and the reader counts as the oracle does.
    let census = map.tables().census(&machine).unwrap();
    prop_assert_eq!(census, *plan.census());
    for (level, count) in Level::ALL.into_iter().zip(found.tables) {
        prop_assert_eq!(census.tables(level), count);
    }
    prop_assert_eq!(census.pages() * 4096, expected.iter().map(|piece| piece.bytes).sum::<u64>());
    for size in LeafSize::ALL {
        let count = found.leaves.iter().filter(|leaf| leaf.bytes == size.bytes()).count();
        prop_assert_eq!(census.leaves(size), count as u64);
    }

    // What every entry must have.
    let encrypted_tables = matches!(options.encryption, Encryption::EncryptedBit(_));
    for entry in &found.non_leaf {
        prop_assert_eq!(entry >> 52, 0, "bits from 52 up in a non-leaf entry");
        prop_assert_eq!(entry & 0xfff, 0x23 | options.table_flags);
        prop_assert_eq!(entry & options.encryption.mask() != 0, encrypted_tables);
    }
    for entry in &found.leaf {
        prop_assert!(entry & 0x20 != 0, "A in advance");
        prop_assert_eq!(entry & 0x40 != 0, entry & 2 != 0, "D in advance where it can be written");
    }

    // The reader agrees with the model, at every border and beside it.
    let runs: Vec<_> = map.tables().runs(&machine).map(Result::unwrap).collect();
    for (run, piece) in runs.iter().filter(|_| runs.len() == expected.len()).zip(&expected) {
        prop_assert_eq!(run.virt.as_u64(), canonical(piece.virt, cpu(&options).levels));
        prop_assert_eq!((run.phys.as_u64(), run.len()), (piece.phys, piece.bytes));
    }
    // A piece that goes on across the hole in the middle of the space is two runs.
    let half = 1u64 << (11 + 9 * cpu(&options).levels);
    let across = expected.iter().filter(|p| p.virt < half && half < p.virt + p.bytes).count();
    prop_assert_eq!(runs.len(), expected.len() + across);
    for piece in &expected {
        for offset in [-1, 0, 4095, 4096, piece.bytes as i64 / 2, piece.bytes as i64 - 1, piece.bytes as i64]
        {
            let Some(linear) = piece.virt.checked_add_signed(offset).filter(|&linear| linear < 2 * half)
            else {
                continue;
            };
            let virt = VirtAddr::new(canonical(linear, cpu(&options).levels));
            let there =
                expected.iter().find(|piece| (piece.virt..piece.virt + piece.bytes).contains(&linear));
            let translation = map.tables().translate(&machine, virt);
            prop_assert_eq!(
                translation.phys().map(PhysAddr::as_u64),
                there.map(|p| p.phys + (linear - p.virt))
            );
            match (translation.end, there) {
                (End::Leaf(leaf), Some(piece)) => check_leaf(&leaf, piece, &options)?,
                (End::NotPresent(level), None) => {
                    prop_assert_eq!(translation.steps().last().map(|step| step.level), Some(level));
                }
                (end, there) => return Err(TestCaseError::fail(format!("{end:?}, but {there:?}"))),
            }
        }
    }

    // The order of the request means nothing.
    again.reverse();
    let again = Plan::new(&mut again, &options).unwrap();
    prop_assert_eq!(again.census(), &census);

    map.free(&mut machine).unwrap();
    prop_assert!(machine.given.is_empty());
    Ok(())
}

fn check_leaf(leaf: &identmap::Leaf, piece: &Piece, options: &Options) -> Result<(), TestCaseError> {
    let attributes = leaf.attributes;
    prop_assert_eq!(attributes.writable, piece.writable);
    prop_assert_eq!(attributes.executable, !piece.no_execute);
    prop_assert_eq!(attributes.cache as u64, piece.pat);
    prop_assert!(!leaf.user);
    let shared = match options.encryption {
        Encryption::EncryptedBit(_) => !piece.c_bit,
        Encryption::SharedBit(_) => piece.c_bit,
        _ => false,
    };
    prop_assert_eq!(attributes.shared, shared);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, max_global_rejects: 100_000, ..ProptestConfig::default() })]

    #[test]
    fn everything_asked_for_is_mapped_and_nothing_else((options, mappings) in request()) {
        check(options, mappings, 24)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn so_it_is_in_larger_maps((options, mappings) in request()) {
        check(options, mappings, 1500)?;
    }
}
