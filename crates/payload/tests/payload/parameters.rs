//! `boot_params`, read back at the offsets that Documentation/arch/x86/zero-page.rst gives.

use kexec_abi::boot_params::{EfiInfo, ScreenInfo};
use kexec_abi::{EntryState, Levels, MemoryKind, MemoryRegion, PhysAddr, PhysRange};
use kexec_payload::{BzImage, LoadError, Parameters, PlaceError, e820};
use zerocopy::FromBytes;

use crate::bzimage::MAP;
use crate::recorder::Recorder;
use crate::synthetic_bzimage::SyntheticBzImage;

fn load_for_elf(parameters: &Parameters<'_>, taken: &[PhysRange]) -> (Recorder, EntryState) {
    let mut recorder = Recorder::default();
    let entry = EntryState::at(PhysAddr::new(0x1234));
    let entry = parameters.load(entry, taken.iter().copied(), &mut recorder).unwrap();
    assert_eq!(entry.rip.as_u64(), 0x1234);
    recorder.assert_only_in_usable_memory(parameters.memory_map, parameters.forbidden);
    (recorder, entry)
}

/// The command line as a kernel reads it: from both halves of its address, up to the zero.
fn command_line(recorder: &Recorder, boot_params: u64) -> Vec<u8> {
    let at = u64::from(recorder.u32(boot_params + 0xc8)) << 32 | u64::from(recorder.u32(boot_params + 0x228));
    (at..).map(|a| recorder.u8(a)).take_while(|&byte| byte != 0).collect()
}

/// The memory map as a kernel reads it: the table, then the `setup_data` of type 1.
fn memory_map(recorder: &Recorder, boot_params: u64) -> Vec<(u64, u64, u32)> {
    let entry = |at: u64| (recorder.u64(at), recorder.u64(at + 8), recorder.u32(at + 16));
    let count = u64::from(recorder.u8(boot_params + 0x1e8));
    let mut entries: Vec<_> = (0..count).map(|n| entry(boot_params + 0x2d0 + n * 20)).collect();
    let mut node = recorder.u64(boot_params + 0x250);
    while node != 0 {
        assert_eq!(recorder.u32(node + 8), 1, "SETUP_E820_EXT is all that is here");
        let len = u64::from(recorder.u32(node + 12));
        assert_eq!(len % 20, 0);
        entries.extend((0..len / 20).map(|n| entry(node + 16 + n * 20)));
        node = recorder.u64(node);
    }
    entries
}

/// `count` frames of usable memory from 16 MiB on with a hole after each: so many e820 entries.
fn holey_map(count: u64) -> Vec<MemoryRegion> {
    let mut map: Vec<_> = (0..count - 1)
        .map(|n| {
            MemoryRegion::new(0x100_0000 + n * 0x2000, 0x100_1000 + n * 0x2000, MemoryKind::AcpiReclaimable)
        })
        .collect();
    map.push(MemoryRegion::new(0x1000_0000, 0x2000_0000, MemoryKind::Usable));
    map
}

#[test]
fn an_elf_kernel_gets_boot_params_with_map_command_line_ramdisk_and_rsdp() {
    let ramdisk: &[u8] = &[0x5a; 0x2345];
    let mut parameters = Parameters::new(&MAP);
    parameters.command_line = b"console=ttyS0 token=abc";
    parameters.ramdisk = Some(&ramdisk);
    parameters.acpi_rsdp = Some(PhysAddr::new(0xf_e020));
    let (recorder, entry) = load_for_elf(&parameters, &[]);
    let params = entry.rsi;
    assert_eq!(command_line(&recorder, params), b"console=ttyS0 token=abc");
    assert_eq!(recorder.u64(params + 0x70), 0xf_e020);
    assert_eq!(recorder.u32(params + 0x21c), 0x2345);
    let at = u64::from(recorder.u32(params + 0xc0)) << 32 | u64::from(recorder.u32(params + 0x218));
    assert_eq!(at % 4096, 0);
    assert_eq!(recorder.bytes(at, 0x2345), ramdisk);
    assert_eq!(
        memory_map(&recorder, params),
        [(0, 0x9_f000, 1), (0x9_fc00, 0x6_0400, 2), (0x10_0000, 0xfee_0000, 1), (0xffe_0000, 0x2_0000, 3)]
    );
    assert_eq!(recorder.bytes(params + 0x1fe, 2), [0x55, 0xaa]);
    assert_eq!(recorder.bytes(params + 0x202, 4), b"HdrS");
}

#[test]
fn a_ramdisk_above_4_gib_is_named_by_both_halves_of_its_address() {
    let map = [
        MemoryRegion::new(0x100_0000, 0x100_8000, MemoryKind::Usable),
        MemoryRegion::new(0x3_0000_0000, 0x3_1000_0000, MemoryKind::Usable),
    ];
    let ramdisk: &[u8] = &[9; 10];
    let mut parameters = Parameters::new(&map);
    parameters.command_line = b"x";
    parameters.ramdisk = Some(&ramdisk);
    let file = SyntheticBzImage::default().build();
    let mut recorder = Recorder::default();
    let entry =
        BzImage::parse(file.as_slice()).unwrap().load(&parameters, Levels::Four, &mut recorder).unwrap();
    assert_eq!(entry.rsi, 0x3_0000_0000);
    assert_eq!(command_line(&recorder, entry.rsi), b"x");
    assert_eq!(recorder.u32(entry.rsi + 0xc0), 3);
    assert_eq!(recorder.u32(entry.rsi + 0xc4), 0);
    assert_eq!(recorder.bytes(0x3_0000_0000 | u64::from(recorder.u32(entry.rsi + 0x218)), 10), ramdisk);
}

#[test]
fn up_to_128_regions_fit_the_table_and_more_go_through_setup_data() {
    for count in [1, 127, 128, 129, 300, 500] {
        let map = holey_map(count);
        let mut parameters = Parameters::new(&map);
        parameters.command_line = b"after the map";
        let (recorder, entry) = load_for_elf(&parameters, &[]);
        assert_eq!(u64::from(recorder.u8(entry.rsi + 0x1e8)), count.min(128));
        assert_eq!(recorder.u64(entry.rsi + 0x250) == 0, count <= 128);
        let expected: Vec<_> = map
            .iter()
            .map(|region| {
                let kind = if region.kind == MemoryKind::Usable { 1 } else { 3 };
                (region.range.start.as_u64(), region.range.len(), kind)
            })
            .collect();
        assert_eq!(memory_map(&recorder, entry.rsi), expected);
        assert_eq!(command_line(&recorder, entry.rsi), b"after the map");
        assert_eq!(recorder.bytes(entry.rsi + 0xcd0, 4096 - 0xcd0), vec![0; 4096 - 0xcd0]);
    }
}

#[test]
fn a_command_line_is_always_there_and_is_empty_when_none_is_given() {
    let (recorder, entry) = load_for_elf(&Parameters::new(&MAP), &[]);
    assert_ne!(recorder.u32(entry.rsi + 0x228), 0);
    assert_eq!(command_line(&recorder, entry.rsi), b"");
}

#[test]
fn a_command_line_that_ends_with_a_page_is_still_terminated() {
    for len in [4095, 4096, 4097] {
        let line = vec![b'a'; len];
        let mut parameters = Parameters::new(&MAP);
        parameters.command_line = &line;
        let (recorder, entry) = load_for_elf(&parameters, &[]);
        assert_eq!(command_line(&recorder, entry.rsi), line);
    }
}

#[test]
fn a_command_line_of_cmdline_size_is_taken_and_one_byte_more_is_an_error() {
    let image = SyntheticBzImage { cmdline_size: 255, ..Default::default() };
    let file = image.build();
    let kernel = BzImage::parse(file.as_slice()).unwrap();
    let line = [b'a'; 256];
    let mut parameters = Parameters::new(&MAP);
    parameters.command_line = &line;
    assert_eq!(
        kernel.load(&parameters, Levels::Four, &mut Recorder::default()),
        Err(LoadError::Place(PlaceError::CommandLineTooLong { len: 256, limit: 255 }))
    );
    parameters.command_line = &line[1..];
    let mut recorder = Recorder::default();
    let entry = kernel.load(&parameters, Levels::Four, &mut recorder).unwrap();
    assert_eq!(command_line(&recorder, entry.rsi), &line[1..]);
}

#[test]
fn a_zero_byte_in_the_command_line_is_an_error_that_says_where() {
    let mut parameters = Parameters::new(&MAP);
    parameters.command_line = b"quiet\0root";
    let entry = EntryState::at(PhysAddr::new(0));
    assert_eq!(
        parameters.load(entry, [].into_iter(), &mut Recorder::default()),
        Err(LoadError::Place(PlaceError::CommandLineHasZero { at: 5 }))
    );
}

#[test]
fn parameters_and_ramdisk_avoid_the_kernel_and_what_the_caller_forbids() {
    let kernel = [PhysRange::new(PhysAddr::new(0x10_0000), PhysAddr::new(0x20_0000))];
    let forbidden = [PhysRange::new(PhysAddr::new(0x20_0fff), PhysAddr::new(0x20_1000))];
    let ramdisk: &[u8] = &[1; 100];
    let mut parameters = Parameters::new(&MAP);
    parameters.ramdisk = Some(&ramdisk);
    parameters.forbidden = &forbidden;
    let (recorder, entry) = load_for_elf(&parameters, &kernel);
    assert_eq!(entry.rsi, 0x20_1000);
    assert!(recorder.segments.iter().all(|segment| !segment.overlaps(&kernel[0])));
}

#[test]
fn an_empty_ramdisk_is_no_ramdisk() {
    let ramdisk: &[u8] = &[];
    let mut parameters = Parameters::new(&MAP);
    parameters.ramdisk = Some(&ramdisk);
    let (recorder, entry) = load_for_elf(&parameters, &[]);
    assert_eq!(recorder.segments.len(), 1);
    assert_eq!(recorder.u64(entry.rsi + 0x218), 0);
}

#[test]
fn a_usable_page_that_is_also_reserved_is_not_handed_on_as_usable() {
    let map = [
        MemoryRegion::new(0x10_0000, 0x40_0000, MemoryKind::Usable),
        MemoryRegion::new(0x20_0800, 0x20_0900, MemoryKind::Reserved),
    ];
    let (recorder, entry) = load_for_elf(&Parameters::new(&map), &[]);
    let entries = memory_map(&recorder, entry.rsi);
    assert_eq!(entries, [(0x10_0000, 0x10_0000, 1), (0x20_0800, 0x100, 2), (0x20_1000, 0x1f_f000, 1)]);
    assert_eq!(e820::sanitize(&map).count(), 3);
}

#[test]
fn screen_and_efi_are_handed_on_as_they_are_given() {
    let screen: Vec<u8> = (1..65).collect();
    let efi: Vec<u8> = (100..132).collect();
    let mut parameters = Parameters::new(&MAP);
    parameters.screen_info = Some(ScreenInfo::read_from_bytes(&screen).unwrap());
    parameters.efi_info = Some(EfiInfo::read_from_bytes(&efi).unwrap());
    let (recorder, entry) = load_for_elf(&parameters, &[]);
    assert_eq!(recorder.bytes(entry.rsi, 64), screen);
    assert_eq!(recorder.bytes(entry.rsi + 0x1c0, 32), efi);
}
