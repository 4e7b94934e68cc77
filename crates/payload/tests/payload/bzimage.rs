//! bzImages: good ones, judged by the boot protocol's documented offsets, and bad ones.

use kexec_abi::{Levels, MemoryKind, MemoryRegion, PhysAddr, PhysRange, VirtAddr};
use kexec_payload::{BzImage, BzImageError, EntryState, LoadError, Parameters, Part, PlaceError};
use proptest::prelude::*;

use crate::recorder::{NotUsable, Recorder};
use crate::synthetic_bzimage::SyntheticBzImage;

/// A PC with 256 MiB.
pub(crate) const MAP: [MemoryRegion; 4] = [
    MemoryRegion::new(0, 0x9_fc00, MemoryKind::Usable),
    MemoryRegion::new(0x9_fc00, 0x10_0000, MemoryKind::Reserved),
    MemoryRegion::new(0x10_0000, 0xffe_0000, MemoryKind::Usable),
    MemoryRegion::new(0xffe_0000, 0x1000_0000, MemoryKind::AcpiReclaimable),
];

fn load(image: &SyntheticBzImage, parameters: &Parameters<'_>) -> (Recorder, EntryState) {
    let file = image.build();
    let mut recorder = Recorder::default();
    let kernel = BzImage::parse(file.as_slice()).unwrap();
    let entry = kernel.load(parameters, Levels::Four, &mut recorder).unwrap();
    recorder.assert_only_in_usable_memory(parameters.memory_map, parameters.forbidden);
    (recorder, entry)
}

fn parse_error(image: &SyntheticBzImage) -> BzImageError {
    BzImage::parse(image.build().as_slice()).unwrap_err()
}

fn load_error(image: &SyntheticBzImage, parameters: &Parameters<'_>, levels: Levels) -> LoadError<NotUsable> {
    let file = image.build();
    let mut recorder = Recorder::default();
    let error = BzImage::parse(file.as_slice()).unwrap().load(parameters, levels, &mut recorder).unwrap_err();
    assert_eq!(recorder.segments, [], "a load that cannot succeed gives nothing to the sink");
    error
}

fn no_room(image: &SyntheticBzImage, parameters: &Parameters<'_>) -> Part {
    match load_error(image, parameters, Levels::Four) {
        LoadError::Place(PlaceError::NoRoom { part, .. }) => part,
        error => panic!("{error:?}"),
    }
}

#[test]
fn the_kernel_is_entered_at_0x200_of_its_code_with_boot_params_in_rsi() {
    let image = SyntheticBzImage::default();
    let (recorder, entry) = load(&image, &Parameters::new(&MAP));
    let kernel = entry.rip.as_u64() - 0x200;
    assert_eq!(kernel, 0x100_0000, "the preferred address is free");
    assert_eq!(recorder.bytes(kernel, image.code), image.code_bytes());
    assert_eq!(recorder.bytes(kernel + image.code as u64, 0x8000 - image.code), vec![0; 0x8000 - image.code]);
    let expected = EntryState {
        rip: VirtAddr::new(0x100_0200),
        rsp: None,
        rdi: 0,
        rsi: entry.rsi,
        rdx: 0,
        rcx: 0,
        levels: Some(Levels::Four),
    };
    assert_eq!(entry, expected);
    assert!(recorder.segment_at(entry.rsi, 4096).is_some());
    assert!(entry.rsi >= 0x3000);
}

#[test]
fn the_setup_header_is_copied_from_0x1f1_to_its_end_and_the_rest_of_boot_params_is_zero() {
    // 0x6c is what kernels have; 0x8e is beyond a signed byte, and reaches to the last byte that a header may have.
    for jump in [0x62, 0x6a, 0x7f, 0x80, 0x8e] {
        let image = SyntheticBzImage { jump, ..Default::default() };
        let file = image.build();
        let (recorder, entry) = load(&image, &Parameters::new(&MAP));
        let end = 0x202 + usize::from(jump);
        let params = recorder.bytes(entry.rsi, 4096);
        // type_of_loader, ramdisk, command line and setup_data are the loader's to write.
        let written = |offset: usize| matches!(offset, 0x210 | 0x218..0x220 | 0x228..0x22c | 0x250..0x258);
        for offset in (0x1f1..end).filter(|&offset| !written(offset)) {
            assert_eq!(params[offset], file[offset], "offset {offset:#x} with jump {jump:#x}");
        }
        assert!(params[end..0x290].iter().all(|&byte| byte == 0), "beyond the header's end at {end:#x}");
        assert_eq!(params[0x1ef], 0, "the sentinel");
    }
}

#[test]
fn what_the_file_held_in_the_fields_that_the_loader_writes_is_not_handed_on() {
    let image = SyntheticBzImage::default();
    assert_eq!(image.build()[0x250..0x258], [0xcc; 8], "the file holds a stale setup_data pointer");
    let (recorder, entry) = load(&image, &Parameters::new(&MAP));
    assert_eq!(recorder.u64(entry.rsi + 0x250), 0, "setup_data");
    assert_eq!(recorder.u64(entry.rsi + 0x218), 0, "ramdisk_image and ramdisk_size");
    assert_eq!(recorder.u8(entry.rsi + 0x210), 0xff, "type_of_loader");
}

#[test]
fn setup_sects_of_zero_means_four() {
    let image = SyntheticBzImage { setup_sects: 0, ..Default::default() };
    let (recorder, entry) = load(&image, &Parameters::new(&MAP));
    assert_eq!(recorder.bytes(entry.rip.as_u64() - 0x200, image.code), image.code_bytes());
}

#[test]
fn a_file_in_pieces_loads_like_a_file_in_one() {
    let file = SyntheticBzImage::default().build();
    let pieces: Vec<&[u8]> = file.chunks(999).collect();
    let (mut one, mut many) = (Recorder::default(), Recorder::default());
    let parameters = Parameters::new(&MAP);
    let entry = BzImage::parse(file.as_slice()).unwrap().load(&parameters, Levels::Four, &mut one).unwrap();
    let same = BzImage::parse(pieces.as_slice()).unwrap().load(&parameters, Levels::Four, &mut many).unwrap();
    assert_eq!(entry, same);
    assert_eq!(one.segments, many.segments);
    assert_eq!(one.bytes(0x100_0000, 0x8000), many.bytes(0x100_0000, 0x8000));
}

#[test]
fn a_kernel_is_never_loaded_below_its_preferred_address_but_above_it_when_that_is_taken() {
    let taken = [PhysRange::new(PhysAddr::new(0x100_7000), PhysAddr::new(0x100_7001))];
    let mut parameters = Parameters::new(&MAP);
    parameters.forbidden = &taken;
    let (_, entry) = load(&SyntheticBzImage::default(), &parameters);
    assert_eq!(entry.rip.as_u64(), 0x120_0200, "the next multiple of kernel_alignment");

    let low = [MemoryRegion::new(0, 0x100_0000, MemoryKind::Usable)];
    assert_eq!(no_room(&SyntheticBzImage::default(), &Parameters::new(&low)), Part::Kernel);
}

#[test]
fn a_kernel_with_a_low_preferred_address_is_loaded_at_1_mib_or_above() {
    let image = SyntheticBzImage { pref_address: 0x1000, kernel_alignment: 0x1000, ..Default::default() };
    assert_eq!(load(&image, &Parameters::new(&MAP)).1.rip.as_u64(), 0x10_0200);
}

#[test]
fn a_kernel_that_is_not_relocatable_gets_its_preferred_address_or_none() {
    let image = SyntheticBzImage { relocatable_kernel: 0, pref_address: 0x10_1000, ..Default::default() };
    assert_eq!(load(&image, &Parameters::new(&MAP)).1.rip.as_u64(), 0x10_1200);
    let taken = [PhysRange::new(PhysAddr::new(0x10_8000), PhysAddr::new(0x10_9000))];
    let mut parameters = Parameters::new(&MAP);
    parameters.forbidden = &taken;
    assert_eq!(no_room(&image, &parameters), Part::Kernel);
}

#[test]
fn a_kernel_that_cannot_be_loaded_above_4_gib_is_placed_below_with_all_its_parameters() {
    let high = [MemoryRegion::new(0x1_0000_0000, 0x2_0000_0000, MemoryKind::Usable)];
    let image = SyntheticBzImage { xloadflags: 0x01, ..Default::default() };
    assert_eq!(no_room(&image, &Parameters::new(&high)), Part::Kernel);
    let mixed = [MemoryRegion::new(0x100_0000, 0x100_8000, MemoryKind::Usable), high[0]];
    assert_eq!(no_room(&image, &Parameters::new(&mixed)), Part::Parameters);
    let (_, entry) = load(&SyntheticBzImage::default(), &Parameters::new(&mixed));
    assert_eq!((entry.rip.as_u64(), entry.rsi), (0x100_0200, 0x1_0000_0000));
}

#[test]
fn initrd_addr_max_bounds_the_ramdisk_of_a_kernel_that_cannot_be_loaded_above_4_gib() {
    let map = [
        MemoryRegion::new(0x100_0000, 0x100_a000, MemoryKind::Usable),
        MemoryRegion::new(0x8000_0000, 0x8000_2000, MemoryKind::Usable),
    ];
    let ramdisk: &[u8] = &[1; 0x1800];
    let mut parameters = Parameters::new(&map);
    parameters.ramdisk = Some(&ramdisk);
    for initrd_addr_max in [0x7fff_ffff, 0x8000_1ffe] {
        let image = SyntheticBzImage { xloadflags: 0x01, initrd_addr_max, ..Default::default() };
        assert_eq!(no_room(&image, &parameters), Part::Ramdisk);
    }
    let image = SyntheticBzImage { xloadflags: 0x01, initrd_addr_max: 0x8000_1fff, ..Default::default() };
    let (recorder, entry) = load(&image, &parameters);
    assert_eq!(recorder.u32(entry.rsi + 0x218), 0x8000_0000);
    let image = SyntheticBzImage { initrd_addr_max: 0, ..Default::default() };
    load(&image, &parameters);
}

#[test]
fn a_kernel_without_5_level_support_is_not_entered_with_5_levels() {
    let image = SyntheticBzImage { xloadflags: 0x03, ..Default::default() };
    assert_eq!(
        load_error(&image, &Parameters::new(&MAP), Levels::Five),
        LoadError::Place(PlaceError::Levels { levels: Levels::Five })
    );
    let file = SyntheticBzImage { xloadflags: 0x23, ..Default::default() }.build();
    let entry = BzImage::parse(file.as_slice())
        .unwrap()
        .load(&Parameters::new(&MAP), Levels::Five, &mut Recorder::default())
        .unwrap();
    assert_eq!(entry.levels, Some(Levels::Five));
}

#[test]
fn a_bzimage_cut_off_anywhere_is_an_error_that_says_how_long_it_must_be() {
    let image = SyntheticBzImage { code: 0x2451, syssize: Some(0x246), ..Default::default() };
    let file = image.build();
    for len in 0..file.len() {
        match BzImage::parse(&file[..len]) {
            Err(BzImageError::Truncated { len: found, needed }) => {
                assert_eq!(found, len as u64);
                assert!(len < needed as usize && needed <= file.len() as u64);
            }
            other => panic!("cut off at {len:#x}: {other:?}"),
        }
    }
    assert!(BzImage::parse(file.as_slice()).is_ok());
}

#[test]
fn a_file_without_the_boot_flag_is_not_a_bzimage() {
    let image = SyntheticBzImage { boot_flag: 0x55aa, ..Default::default() };
    assert_eq!(parse_error(&image), BzImageError::BootFlag { found: 0x55aa });
}

#[test]
fn a_boot_sector_without_the_header_magic_is_not_a_bzimage() {
    let image = SyntheticBzImage { header: *b"HdrT", ..Default::default() };
    assert_eq!(parse_error(&image), BzImageError::Magic { found: 0x5472_6448 });
}

#[test]
fn a_kernel_older_than_protocol_2_12_is_refused_by_its_version() {
    for version in [0x0000, 0x0200, 0x020b] {
        let image = SyntheticBzImage { version, ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::OldProtocol { version });
    }
    let message = BzImageError::OldProtocol { version: 0x020b }.to_string();
    assert_eq!(message, "boot protocol 2.11 is older than 2.12");
    load(&SyntheticBzImage { version: 0x020c, ..Default::default() }, &Parameters::new(&MAP));
}

#[test]
fn a_header_that_ends_before_init_size_or_beyond_its_room_is_corrupt() {
    for jump in [0, 0x61, 0x8f, 0xff] {
        let image = SyntheticBzImage { jump, ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::HeaderEnd { end: 0x202 + usize::from(jump) });
    }
}

#[test]
fn a_zimage_is_refused() {
    let image = SyntheticBzImage { loadflags: 0x80, ..Default::default() };
    assert_eq!(parse_error(&image), BzImageError::NotLoadedHigh { loadflags: 0x80 });
}

#[test]
fn a_kernel_without_a_64_bit_entry_point_is_refused() {
    let image = SyntheticBzImage { xloadflags: 0x7e, ..Default::default() };
    assert_eq!(parse_error(&image), BzImageError::No64BitEntry { xloadflags: 0x7e });
}

#[test]
fn a_kernel_alignment_that_is_no_power_of_two_is_corrupt() {
    for kernel_alignment in [0, 0x30_0000] {
        let image = SyntheticBzImage { kernel_alignment, ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::Alignment { kernel_alignment });
    }
}

#[test]
fn a_preferred_address_outside_of_physical_memory_is_corrupt() {
    for pref_address in [1 << 52, u64::MAX, (1 << 52) - 0x1000] {
        let image = SyntheticBzImage { pref_address, ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::PrefAddress { pref_address });
    }
}

#[test]
fn a_fixed_kernel_below_1_mib_or_not_on_a_page_is_refused() {
    for pref_address in [0x8000, 0x10_0800] {
        let image = SyntheticBzImage { pref_address, relocatable_kernel: 0, ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::PrefAddress { pref_address });
    }
}

#[test]
fn a_syssize_beyond_the_file_means_that_the_file_is_truncated() {
    let image = SyntheticBzImage { syssize: Some(0x247), ..Default::default() };
    let needed = image.code_offset() as u64 + 0x2461;
    assert_eq!(parse_error(&image), BzImageError::Truncated { len: needed - 1, needed });
}

#[test]
fn a_file_may_end_in_the_middle_of_its_last_paragraph_as_memtest86_does() {
    let image = SyntheticBzImage { code: 0x2451, syssize: Some(0x246), ..Default::default() };
    let (recorder, _) = load(&image, &Parameters::new(&MAP));
    assert_eq!(recorder.bytes(0x100_0000, 0x2451), image.code_bytes());
}

#[test]
fn a_syssize_that_does_not_reach_the_entry_point_is_corrupt() {
    for syssize in [0, 0x20] {
        let image = SyntheticBzImage { syssize: Some(syssize), ..Default::default() };
        assert_eq!(parse_error(&image), BzImageError::Syssize { syssize: u64::from(syssize) * 16 });
    }
}

#[test]
fn an_init_size_less_than_the_code_is_corrupt() {
    let image = SyntheticBzImage { init_size: 0x245f, ..Default::default() };
    assert_eq!(parse_error(&image), BzImageError::InitSize { init_size: 0x245f, code_size: 0x2460 });
}

#[test]
fn a_compressed_kernel_that_does_not_lie_in_the_code_is_corrupt() {
    for (payload_offset, payload_length) in [(0x1461, 0x1000), (u32::MAX, u32::MAX), (0, 0x2461)] {
        let image = SyntheticBzImage { payload_offset, payload_length, ..Default::default() };
        let code_size = 0x2460;
        assert_eq!(parse_error(&image), BzImageError::Payload { payload_offset, payload_length, code_size });
    }
}

#[test]
fn no_memory_for_the_kernel_or_its_parameters_is_an_error_that_names_the_part() {
    let image = SyntheticBzImage::default();
    assert_eq!(no_room(&image, &Parameters::new(&[])), Part::Kernel);
    let kernel_only = [MemoryRegion::new(0x100_0000, 0x100_8000, MemoryKind::Usable)];
    assert_eq!(no_room(&image, &Parameters::new(&kernel_only)), Part::Parameters);
    let no_ramdisk = [MemoryRegion::new(0x100_0000, 0x100_b000, MemoryKind::Usable)];
    let ramdisk: &[u8] = &[1; 0x1001];
    let mut parameters = Parameters::new(&no_ramdisk);
    parameters.ramdisk = Some(&ramdisk);
    assert_eq!(no_room(&image, &parameters), Part::Ramdisk);
    let error = load_error(&image, &parameters, Levels::Four).to_string();
    assert_eq!(
        error,
        "no usable memory for the ramdisk: 0x1001 bytes aligned to 0x1000 between 0x100000 and 0x10000000000000"
    );
}

#[test]
fn a_segment_that_the_sink_refuses_ends_the_load_with_the_sinks_error() {
    let file = SyntheticBzImage::default().build();
    let range = PhysRange::new(PhysAddr::new(0x100_0000), PhysAddr::new(0x100_8000));
    let mut recorder = Recorder::refusing(range);
    let error =
        BzImage::parse(file.as_slice()).unwrap().load(&Parameters::new(&MAP), Levels::Four, &mut recorder);
    assert_eq!(error, Err(LoadError::Sink(NotUsable(range))));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_bzimage_with_flipped_bits_is_refused_or_loads_into_usable_memory(
        flips in prop::collection::vec((0x1f0usize..0x290, 0u8..8), 1..4),
        len in prop_oneof![Just(usize::MAX), 0..0x3000usize],
        levels in prop_oneof![Just(Levels::Four), Just(Levels::Five)],
    ) {
        let mut file = SyntheticBzImage::default().build();
        for (at, bit) in flips {
            file[at] ^= 1 << bit;
        }
        file.truncate(len);
        if let Ok(kernel) = BzImage::parse(file.as_slice()) {
            let mut recorder = Recorder::default();
            let ramdisk: &[u8] = &[7; 5000];
            let mut parameters = Parameters::new(&MAP);
            parameters.command_line = b"quiet";
            parameters.ramdisk = Some(&ramdisk);
            if let Ok(entry) = kernel.load(&parameters, levels, &mut recorder) {
                recorder.assert_only_in_usable_memory(&MAP, &[]);
                let code = entry.rip.as_u64();
                prop_assert!(recorder.segments[0].contains(PhysAddr::new(code)));
                prop_assert!(recorder.segment_at(entry.rsi, 4096).is_some());
                let at = usize::from(if file[0x1f1] == 0 { 4 } else { file[0x1f1] }) * 512 + 512;
                prop_assert_eq!(recorder.bytes(code - 0x200, file.len() - at), &file[at..]);
            }
        }
    }
}
