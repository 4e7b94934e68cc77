//! The SPCR table: tables built here from the offsets in Microsoft's document.
#![cfg(feature = "spcr")]

use core::num::NonZeroU32;

use proptest::prelude::*;
use serial8250::spcr::{PciFunction, Spcr, SpcrError, parse};
use serial8250::{Access, Config, InvalidAccess, Line, Stride};

/// A table of revision 2 for COM1 at 115200 baud, with `patches` at their offsets, and its length and checksum right.
fn table(patches: &[(usize, &[u8])]) -> Vec<u8> {
    let mut table = vec![0; 80];
    let standard: [(usize, &[u8]); 10] = [
        (0, b"SPCR"),
        (8, &[2]),                                         // revision
        (10, b"BOCHS BXPC    "),                           // OEM id, OEM table id
        (36, &[0]),                                        // interface: 16550
        (40, &[1, 8, 0, 0, 0xf8, 0x03, 0, 0, 0, 0, 0, 0]), // I/O, 8 bits wide, access size undefined
        (52, &[3, 4]),                                     // 8259 and I/O APIC, IRQ 4
        (58, &[7, 0, 1]),                                  // 115200, no parity, 1 stop bit
        (62, &[3]),                                        // ANSI
        (64, &[0xff; 4]),                                  // not PCI
        (76, &[0; 4]),                                     // reserved in this revision
    ];
    for (offset, bytes) in standard.iter().chain(patches) {
        table.resize(table.len().max(offset + bytes.len()), 0);
        table[*offset..offset + bytes.len()].copy_from_slice(bytes);
    }
    let length = table.len() as u32;
    table[4..8].copy_from_slice(&length.to_le_bytes());
    table[9] = 0;
    table[9] = table.iter().fold(0_u8, |sum, &byte| sum.wrapping_sub(byte));
    table
}

fn address(space: u8, width: u8, offset: u8, access_size: u8, address: u64) -> Vec<u8> {
    [[space, width, offset, access_size].as_slice(), &address.to_le_bytes()].concat()
}

fn baud(rate: u32) -> Line {
    Line::new(NonZeroU32::new(rate).unwrap())
}

#[test]
fn a_pc_s_first_port_is_read_with_its_line() {
    let expected = Spcr { config: Config::COM1.with_line(Some(baud(115_200))), pci: None };
    assert_eq!(parse(&table(&[])), Ok(expected));
    // Memory goes on behind a table.
    assert_eq!(parse(&[table(&[]), vec![0xa5; 100]].concat()), Ok(expected));
}

#[test]
fn each_shape_of_registers_is_told_from_width_and_access_size() {
    let base = 0x3_fedc_0000;
    let one = Access::Mmio8 { base, stride: Stride::One };
    let four = Access::Mmio8 { base, stride: Stride::Four };
    let words = Access::Mmio32 { base };
    for (width, access_size, expected) in
        [(8, 1, one), (8, 0, one), (32, 1, four), (32, 3, words), (8, 3, words), (32, 0, words)]
    {
        for interface in [0, 1, 0x12] {
            let bytes = table(&[(36, &[interface]), (40, &address(0, width, 0, access_size, base))]);
            let config = parse(&bytes).unwrap().config;
            assert_eq!(config.access(), expected);
            // Firmware set it; without its clock nobody can set it the same.
            assert_eq!(config.line(), None);
        }
    }
}

#[test]
fn the_line_is_known_as_far_as_the_revision_tells() {
    let line = |patches: &[(usize, &[u8])]| parse(&table(patches)).unwrap().config.line();
    let clock = |clock: u32, rate| Some(Line { clock: NonZeroU32::new(clock).unwrap(), ..baud(rate) });
    for (code, rate) in [(3, 9600), (4, 19_200), (6, 57_600), (7, 115_200)] {
        assert_eq!(line(&[(58, &[code])]), Some(baud(rate)));
    }
    assert_eq!(line(&[(58, &[0])]), None);
    // Revision 2 has no clock there, revision 3 does; revision 4 has the rate as a number too.
    let clock_field = 48_000_000_u32.to_le_bytes();
    assert_eq!(line(&[(76, &clock_field)]), Some(baud(115_200)));
    assert_eq!(line(&[(8, &[3]), (76, &clock_field)]), clock(48_000_000, 115_200));
    let precise = 1_500_000_u32.to_le_bytes();
    assert_eq!(line(&[(8, &[3]), (76, &clock_field), (80, &precise)]), clock(48_000_000, 115_200));
    assert_eq!(line(&[(8, &[4]), (76, &clock_field), (80, &precise)]), clock(48_000_000, 1_500_000));
    assert_eq!(line(&[(8, &[4]), (76, &clock_field), (80, &[0; 8])]), clock(48_000_000, 115_200));
    // A table of revision 4 that ends early.
    assert_eq!(line(&[(8, &[4]), (76, &clock_field)]), clock(48_000_000, 115_200));
    let memory = address(0, 32, 0, 3, 0xfe03_4000);
    assert_eq!(line(&[(8, &[3]), (40, &memory), (76, &clock_field)]), clock(48_000_000, 115_200));
}

#[test]
fn a_pci_function_is_named_also_with_zeros_in_its_place() {
    let pci = |place: [u8; 3]| parse(&table(&[(64, &[0x02, 0x00, 0x36, 0x1b]), (68, &place)])).unwrap().pci;
    let expected =
        PciFunction { segment: 0, bus: 0, device: 3, function: 0, vendor_id: 0x1b36, device_id: 2 };
    assert_eq!(pci([0, 3, 0]), Some(expected));
    assert_eq!(pci([7, 31, 5]), Some(PciFunction { bus: 7, device: 31, function: 5, ..expected }));
}

#[test]
fn what_is_no_usable_table_is_an_error_that_says_why() {
    use SpcrError as E;
    let good = table(&[]);
    assert_eq!(parse(&[]), Err(E::Truncated(0)));
    assert_eq!(parse(&good[..79]), Err(E::Truncated(79)));
    assert_eq!(parse(&table(&[(0, b"DBG2")])), Err(E::Signature(*b"DBG2")));
    for length in [0_u32, 79, 81, u32::MAX] {
        let mut bytes = good.clone();
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        assert_eq!(parse(&bytes), Err(E::Length(length)));
    }
    let mut bytes = good.clone();
    bytes[70] = 1;
    assert_eq!(parse(&bytes), Err(E::Checksum(1)));
    for (patch, error) in [
        ((36, vec![3]), E::Interface(3)), // an Arm PL011
        ((40, address(1, 8, 0, 0, 0)), E::Disabled),
        ((40, address(2, 8, 0, 0, 0x3f8)), E::Space(2)),
        ((40, address(1, 8, 0, 0, 0x1_0000)), E::Port(0x1_0000)),
        ((40, address(1, 8, 0, 0, 0xfffc)), E::Invalid(InvalidAccess::Port(0xfffc))),
        ((40, address(0, 16, 0, 2, 0x1000)), E::Registers { access_size: 2, bit_width: 16, bit_offset: 0 }),
        ((40, address(0, 8, 4, 1, 0x1000)), E::Registers { access_size: 1, bit_width: 8, bit_offset: 4 }),
        ((40, address(0, 32, 0, 3, 0x1001)), E::Invalid(InvalidAccess::Unaligned(0x1001))),
        ((58, vec![5]), E::Baud(5)),
        ((58, vec![7, 1, 1]), E::Format { parity: 1, stop_bits: 1 }),
    ] {
        assert_eq!(parse(&table(&[(patch.0, &patch.1)])), Err(error));
        assert!(!error.to_string().is_empty());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse(&bytes).is_err());
    }

    #[test]
    fn no_damage_that_keeps_the_checksum_makes_it_panic(
        damage in proptest::collection::vec((8_usize..100, any::<u8>()), 0..12),
        cut in 0_usize..100,
    ) {
        let damage: Vec<(usize, [u8; 1])> = damage.into_iter().map(|(offset, byte)| (offset, [byte])).collect();
        let patches: Vec<(usize, &[u8])> = damage.iter().map(|(offset, byte)| (*offset, byte.as_slice())).collect();
        let bytes = table(&patches);
        if let Ok(spcr) = parse(&bytes) {
            prop_assert!(!spcr.config.to_string().is_empty());
        }
        prop_assert!(parse(&bytes[..cut.min(bytes.len() - 1)]).is_err());
    }
}
