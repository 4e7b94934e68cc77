//! Requests that cannot be fulfilled are refused by name.

use identmap::{Attributes, Cache, Encryption, Error, Mapping, Options, Plan};
use kexec_abi::{Levels, PhysAddr, PhysRange, VirtAddr};

fn range(start: u64, end: u64) -> PhysRange {
    PhysRange::new(PhysAddr::new(start), PhysAddr::new(end))
}

fn refused(mappings: &[Mapping], options: Options) -> Error {
    Plan::new(&mut mappings.to_vec(), &options).unwrap_err()
}

const RAM: Mapping =
    Mapping::identity(PhysRange::new(PhysAddr::new(0x1000), PhysAddr::new(0x5000)), Attributes::RWX);

#[test]
fn a_conflict_names_both_ranges() {
    let device = Mapping::identity(range(0x4000, 0x6000), Attributes::RW.with_cache(Cache::Uncached));
    let error = refused(&[device, RAM], Options::default());
    assert_eq!(error, Error::Conflict(RAM, device));
    assert_eq!(error.to_string(), "0x1000..0x5000 rwx wb overlaps 0x4000..0x6000 rw- uc and differs from it");
    // Behind one that agrees and does not reach as far.
    let inner = Mapping::identity(range(0x2000, 0x3000), Attributes::RWX);
    assert_eq!(refused(&[RAM, inner, device], Options::default()), Error::Conflict(RAM, device));
    // Behind two that agree, of which the second reaches further.
    let further = Mapping::identity(range(0x3000, 0x8000), Attributes::RWX);
    let behind = Mapping::identity(range(0x7000, 0x9000), Attributes::RX);
    assert_eq!(refused(&[RAM, further, behind], Options::default()), Error::Conflict(further, behind));
    // The same attributes for other memory.
    let alias = Mapping::alias(VirtAddr::new(0x4000), range(0x8000, 0x9000), Attributes::RWX);
    assert_eq!(refused(&[alias, RAM], Options::default()), Error::Conflict(RAM, alias));
    // Hidden by a third, but only now: what is asked for contradicts itself.
    let above = Mapping::identity(range(0, 0x8000), Attributes::R).with_priority(1);
    assert_eq!(refused(&[device, RAM, above], Options::default()), Error::Conflict(RAM, device));
}

#[test]
fn a_priority_settles_a_conflict_in_any_order() {
    let device = Mapping::identity(range(0x4000, 0x6000), Attributes::RW).with_priority(3);
    for mut mappings in [[RAM, device], [device, RAM]] {
        let plan = Plan::new(&mut mappings, &Options::default()).unwrap();
        assert_eq!(plan.census().pages(), 5);
    }
    let eighth = RAM.with_priority(Mapping::PRIORITIES);
    assert_eq!(refused(&[eighth], Options::default()), Error::Priority(eighth));
}

#[test]
fn options_that_no_processor_has_are_refused_by_value() {
    let default = Options::default();
    assert_eq!(refused(&[], Options { phys_bits: 53, ..default }), Error::PhysBits(53));
    assert_eq!(refused(&[], Options { phys_bits: 0, ..default }), Error::PhysBits(0));
    for flags in [1, 2, 0x20, 0x80, 1 << 12, 1 << 52, 1 << 63] {
        assert_eq!(refused(&[], Options { table_flags: flags, ..default }), Error::TableFlags(flags));
    }
    for mask in [0, 0x800, 3 << 47, 1 << 52, 1 << 63] {
        for encryption in [Encryption::EncryptedBit(mask), Encryption::SharedBit(mask)] {
            assert_eq!(refused(&[], Options { encryption, ..default }), Error::EncryptionMask(mask));
        }
    }
}

#[test]
fn a_range_that_cannot_be_mapped_exactly_is_refused_and_rounded_out_it_is_not() {
    let ragged = Mapping::identity(range(0x1000, 0x1800), Attributes::RW);
    assert_eq!(refused(&[ragged], Options::default()), Error::Unaligned(ragged));
    let plan = Plan::new(&mut [ragged.rounded_out(0x1000)], &Options::default()).unwrap().census().pages();
    assert_eq!(plan, 1);
    let shifted =
        Mapping::alias(VirtAddr::new(0x1800), range(0x1000, 0x2000), Attributes::RW).rounded_out(0x1000);
    assert_eq!(refused(&[shifted], Options::default()), Error::Unaligned(shifted));
    for unit in [0, 1, 0x800, 0x3000] {
        let odd = RAM.rounded_out(unit);
        assert_eq!(refused(&[odd], Options::default()), Error::Rounding(odd));
    }
    let below_zero = Mapping::alias(VirtAddr::new(0x1000), range(0x10_2000, 0x10_3000), Attributes::RW)
        .rounded_out(0x20_0000);
    assert_eq!(refused(&[below_zero], Options::default()), Error::NonCanonical(below_zero));
}

#[test]
fn addresses_beyond_the_processor_are_refused() {
    let high = Mapping::identity(range((1 << 40) - 0x1000, 1 << 40), Attributes::RW);
    assert!(Plan::new(&mut [high], &Options { phys_bits: 40, ..Options::default() }).is_ok());
    assert_eq!(
        refused(&[high], Options { phys_bits: 39, ..Options::default() }),
        Error::BeyondPhysBits(high)
    );
    let encryption = Encryption::EncryptedBit(1 << 39);
    assert_eq!(refused(&[high], Options { encryption, ..Options::default() }), Error::BeyondPhysBits(high));
    // Identity needs canonical addresses: 4 levels reach 2^47.
    let far = Mapping::identity(range(1 << 47, (1 << 47) + 0x1000), Attributes::RW);
    assert_eq!(refused(&[far], Options::default()), Error::NonCanonical(far));
    assert!(Plan::new(&mut [far], &Options { levels: Levels::Five, ..Options::default() }).is_ok());
}

#[test]
fn an_empty_range_asks_for_nothing() {
    for range in [range(0x1000, 0x1000), range(0x2000, 0x1000)] {
        let mut mappings = [Mapping::identity(range, Attributes::RW), RAM];
        assert_eq!(Plan::new(&mut mappings, &Options::default()).unwrap().census().pages(), 4);
    }
}
