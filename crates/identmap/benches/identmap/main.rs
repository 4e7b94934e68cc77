//! The time to build a map, against others that build the same or nearly so, and against writing as many bytes.
//!
//! `cargo xtask bench identmap` runs this and prints the ratios. Each figure includes all that the caller pays: checking and
//! planning, taking frames, filling tables. The throughput that criterion prints is that of the table frames' bytes.

#![allow(missing_docs, reason = "criterion's macros")]
#![cfg_attr(not(target_arch = "x86_64"), allow(unused, reason = "the mapper compared with is x86_64's"))]

#[path = "../../tests/common/arena.rs"]
#[allow(dead_code, unreachable_pub, reason = "shared with the tests")]
mod arena;
mod usual;
#[cfg(target_arch = "x86_64")]
mod x86_64_mapper;

use std::time::Duration;

use arena::Arena;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use identmap::{Attributes, Mapping, Options, Plan};
use kexec_abi::{PhysAddr, PhysRange};

const GIB: u64 = 1 << 30;

/// All of memory from 0 up to `bytes`, with as many holes of one page each, at equal distances.
fn ranges(bytes: u64, holes: u64) -> Vec<PhysRange> {
    let step = bytes / (holes + 1);
    let mut start = 0;
    let mut ranges = Vec::new();
    for n in 1..=holes {
        let hole = PhysAddr::new(n * step).align_down(4096).as_u64();
        ranges.push(PhysRange::new(PhysAddr::new(start), PhysAddr::new(hole)));
        start = hole + 4096;
    }
    ranges.push(PhysRange::new(PhysAddr::new(start), PhysAddr::new(bytes)));
    ranges
}

fn mappings(ranges: &[PhysRange]) -> Vec<Mapping> {
    ranges.iter().map(|range| Mapping::identity(*range, Attributes::RWX)).collect()
}

fn benches(criterion: &mut Criterion) {
    for (name, bytes) in [("64 GiB", 64 * GIB), ("1 TiB", 1024 * GIB), ("16 TiB", 16384 * GIB)] {
        for (kind, holes) in [("contiguous", 0), ("4096 holes", 4096)] {
            case(criterion, &format!("{name} {kind}"), &ranges(bytes, holes));
        }
    }
}

/// One row of the table: each way to map `ranges`.
fn case(criterion: &mut Criterion, name: &str, ranges: &[PhysRange]) {
    let mut mappings = mappings(ranges);
    let large = Options::default();
    let giant = Options { giant_pages: true, ..large };
    let planned = |mappings: &mut [Mapping], options| {
        Plan::new(mappings, options).expect("ranges that do not overlap").frames()
    };
    let frames = planned(&mut mappings, &large);
    let giant_frames = planned(&mut mappings, &giant);
    // The usual algorithm may take a few more.
    let mut arena = Arena::new(frames as usize + 64);
    // Every frame is present before the first measurement: the host's page faults are not the subject.
    arena.first(usize::MAX).fill(1);

    let mut group = criterion.benchmark_group(name);
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));

    let mut measure = |way: &str, arena: &mut Arena, build: &mut dyn FnMut(&mut Arena)| {
        arena.reset();
        build(arena);
        group.throughput(Throughput::Bytes(arena.given() * 4096));
        group.bench_function(BenchmarkId::from_parameter(way), |bencher| {
            bencher.iter(|| {
                arena.reset();
                build(arena);
            });
        });
        arena.given()
    };

    for (way, options, frames) in
        [("identmap", large, frames), ("identmap, 1 GiB leaves", giant, giant_frames)]
    {
        let given = measure(way, &mut arena, &mut |arena| {
            let plan = Plan::new(&mut mappings, &options).expect("ranges that do not overlap");
            let map = plan.build(arena).expect("enough frames");
            std::hint::black_box(&map);
        });
        assert_eq!(given, frames, "table frames of {way} for {name}");
    }
    measure("usual algorithm", &mut arena, &mut |arena| usual::build(ranges, arena));
    #[cfg(target_arch = "x86_64")]
    for (way, giant_pages, frames) in
        [("x86_64 mapper", false, frames), ("x86_64 mapper, 1 GiB leaves", true, giant_frames)]
    {
        let given = measure(way, &mut arena, &mut |arena| x86_64_mapper::build(ranges, giant_pages, arena));
        // The same map in the same number of tables, or the times say nothing.
        assert_eq!(given, frames, "table frames of {way} for {name}");
    }
    measure("write", &mut arena, &mut |arena| {
        while arena.given() < frames {
            let frame = kexec_abi::FrameAllocator::allocate(arena).expect("enough frames");
            let filled = kexec_abi::PhysMemory::with_frame(arena, frame, |words| {
                // SAFETY: 4096 bytes that the arena owns.
                unsafe { words.write_bytes(0x5a, 1) };
            });
            filled.expect("a frame of the arena");
        }
    });
    group.finish();
}

criterion_group!(all, benches);
criterion_main!(all);
