//! The bugs that Linux had in its identity map. Ours must not have one of them.

mod common;

use common::model::cpu;
use common::{Found, Machine, canonical, read_all};
use identmap::{Attributes, Error, Mapping, Options, Plan};
use kexec_abi::{Levels, PhysAddr, PhysRange, VirtAddr};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

fn build(mappings: &mut [Mapping], options: &Options) -> (Found, Machine, u64) {
    let plan = Plan::new(mappings, options).unwrap();
    let mut machine = Machine::with_frames(0x1000, plan.frames());
    let map = plan.build(&mut machine).unwrap();
    let root = map.root().start().as_u64();
    (read_all(&machine, root, cpu(options)), machine, root)
}

#[test]
fn pitfall_11_nothing_wraps_at_the_top_of_the_virtual_address_space() {
    for levels in [Levels::Four, Levels::Five] {
        for giant_pages in [false, true] {
            for size in [0x1000u64, 0x20_0000, 0x4000_0000, 0x8000_0000] {
                let options = Options { levels, giant_pages, ..Options::default() };
                let top = VirtAddr::new(0u64.wrapping_sub(size));
                let mut mappings =
                    [Mapping::alias(top, range(0x4000_0000, 0x4000_0000 + size), Attributes::RWX)];
                let (found, ..) = build(&mut mappings, &options);
                let joined = found.joined();
                assert_eq!(joined.len(), 1);
                assert_eq!(canonical(joined[0].virt, cpu(&options).levels), top.as_u64());
                assert_eq!((joined[0].phys, joined[0].bytes), (0x4000_0000, size));

                // One page more is past the end.
                let mut mappings =
                    [Mapping::alias(top, range(0x4000_0000, 0x4000_1000 + size), Attributes::RWX)];
                assert!(matches!(Plan::new(&mut mappings, &options), Err(Error::NonCanonical(_))));
            }
        }
    }
}

#[test]
fn pitfall_11_nothing_wraps_at_the_top_of_the_physical_address_space() {
    let options = Options { levels: Levels::Five, giant_pages: true, ..Options::default() };
    let (first, end) = ((1 << 52) - 0x4000_1000, 1 << 52);
    let (found, ..) = build(&mut [Mapping::identity(range(first, end), Attributes::RW)], &options);
    let joined = found.joined();
    assert_eq!(joined.len(), 1);
    assert_eq!((joined[0].virt, joined[0].phys, joined[0].bytes), (first, first, 0x4000_1000));
    for beyond in [end + 0x1000, !0xfff] {
        let mut mappings = [Mapping::identity(range(first, beyond), Attributes::RW)];
        assert!(matches!(Plan::new(&mut mappings, &options), Err(Error::BeyondPhysBits(_))));
        let mut mappings = [Mapping::identity(range(first, beyond - 1), Attributes::RW).rounded_out(1 << 63)];
        assert!(matches!(Plan::new(&mut mappings, &options), Err(Error::BeyondPhysBits(_))));
    }
}

#[test]
fn pitfall_11_the_middle_of_the_space_is_not_crossed() {
    for (levels, half) in [(Levels::Four, 1u64 << 47), (Levels::Five, 1 << 56)] {
        let options = Options { levels, ..Options::default() };
        for virt in [half - 0x1000, half, half + 0x1000, 0u64.wrapping_sub(half) - 0x1000] {
            let mut mappings = [Mapping::alias(VirtAddr::new(virt), range(0, 0x2000), Attributes::RW)];
            assert!(matches!(Plan::new(&mut mappings, &options), Err(Error::NonCanonical(_))), "{virt:#x}");
        }
        for virt in [half - 0x2000, 0u64.wrapping_sub(half)] {
            let mut mappings = [Mapping::alias(VirtAddr::new(virt), range(0, 0x2000), Attributes::RW)];
            let (found, ..) = build(&mut mappings, &options);
            assert_eq!(canonical(found.joined()[0].virt, cpu(&options).levels), virt);
        }
        // From the first address of the whole space to the last: all of it, in a table of giant leaves each 512 GiB.
        let mut mappings = [
            Mapping::alias(VirtAddr::new(0), range(0, 1 << 47), Attributes::RW),
            Mapping::alias(
                VirtAddr::new(0u64.wrapping_sub(1 << 47)),
                range(1 << 47, 1 << 48),
                Attributes::RW,
            ),
        ];
        let plan = Plan::new(&mut mappings, &Options { giant_pages: true, ..options }).unwrap();
        assert_eq!(plan.census().pages(), 1 << 36);
    }
}

#[test]
fn pitfall_12_no_non_leaf_entry_has_bits_from_52_up() {
    for levels in [Levels::Four, Levels::Five] {
        let options = Options { levels, ..Options::default() };
        // Not a page is executable: a builder that puts NX as high as it can would put it at the top.
        let mut mappings = [
            Mapping::identity(range(0, 0x4020_1000), Attributes::RW),
            Mapping::alias(VirtAddr::new(0xffff_8000_0000_0000), range(0, 0x1000), Attributes::R),
        ];
        let (found, machine, root) = build(&mut mappings, &options);
        assert!(found.leaves.iter().all(|leaf| leaf.no_execute));
        assert!(found.non_leaf.len() > 5);
        for entry in &found.non_leaf {
            assert_eq!(entry >> 52, 0);
        }
        // What a kernel does that switches from 5 to 4 levels: it takes entry 0 for the root, less the low 12 bits only.
        let entry = u64::from_le_bytes(machine.bytes(common::frame(root)).unwrap()[..8].try_into().unwrap());
        assert!(found.table_frames.contains(&(entry & !0xfff)));
    }
}

#[test]
fn pitfall_16_no_large_page_straddles_a_reserved_range() {
    // Firmware reserves part of a 2 MiB page at either end of RAM, and one page in the middle of it.
    let ram =
        [range(0x10_0000, 0x7fe1_3000), range(0x7fe1_4000, 0x7ff2_5000), range(0x1_0000_0000, 0x1_3fff_f000)];
    for giant_pages in [false, true] {
        let options = Options { giant_pages, ..Options::default() };
        let mut mappings = ram.map(|range| Mapping::identity(range, Attributes::RWX));
        let (found, ..) = build(&mut mappings, &options);
        for leaf in &found.leaves {
            let leaf = range(leaf.phys, leaf.phys + leaf.bytes);
            assert!(ram.iter().any(|ram| ram.contains_range(&leaf)), "{leaf} reaches over the end of RAM");
        }
        let mapped: u64 = found.leaves.iter().map(|leaf| leaf.bytes).sum();
        assert_eq!(mapped, ram.iter().map(PhysRange::len).sum::<u64>());
    }
}
