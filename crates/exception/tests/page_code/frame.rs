//! The bytes of a frame, read as the processor reads them.

use kexec_abi::VirtAddr;
use kexec_exception::page_code::{After, DUMP, DebugFrame, DebugSetup, DebugSetupError, EXCEPTION, OnDebug};

const FRAME: u64 = 0xffff_ffff_8123_4000;
const STUBS: u64 = 0xffff_ffff_8765_4321;

fn setup() -> DebugSetup {
    DebugSetup {
        frame: VirtAddr::new(FRAME),
        stubs: VirtAddr::new(STUBS),
        dump: VirtAddr::new(0x1111_0000),
        console: Some((VirtAddr::new(0x2222_0000), VirtAddr::new(0x3333_0000))),
        progress: VirtAddr::new(0x4444_0000),
        gate_selector: DebugFrame::CODE_SELECTOR,
        ist: true,
        on_debug: OnDebug::Dump,
        after: After::Halt,
        phys_offset: None,
    }
}

fn word(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(bytes[offset..offset + 8].try_into().unwrap())
}

/// Limit, and the offset in the frame of the table.
fn pseudo_descriptor(bytes: &[u8], offset: usize) -> (usize, usize) {
    let limit = u16::from_le_bytes([bytes[offset], bytes[offset + 1]]);
    (limit.into(), (word(bytes, offset + 2) - FRAME) as usize)
}

fn descriptor(bytes: &[u8], selector: u16) -> u64 {
    let (limit, gdt) = pseudo_descriptor(bytes, DebugFrame::GDTR);
    assert!(usize::from(selector) + 7 <= limit);
    word(bytes, gdt + usize::from(selector))
}

#[test]
fn the_gdt_has_flat_segments_where_the_selectors_say() {
    let bytes = *DebugFrame::new(&setup()).unwrap().as_bytes();
    let (limit, gdt) = pseudo_descriptor(&bytes, DebugFrame::GDTR);
    assert_eq!((limit, gdt % 8), (127, 0));
    assert_eq!(descriptor(&bytes, 0), 0);
    // SDM Vol. 3A, 3.4.5: G, D/B or L, limit 0xfffff, present, DPL 0, type: code, readable, accessed; data, writable, accessed.
    assert_eq!(descriptor(&bytes, DebugFrame::CODE_SELECTOR), 0x00af_9b00_0000_ffff);
    assert_eq!(descriptor(&bytes, DebugFrame::DATA_SELECTOR), 0x00cf_9300_0000_ffff);
    assert_eq!(descriptor(&bytes, DebugFrame::CODE32_SELECTOR), 0x00cf_9b00_0000_ffff);
}

#[test]
fn linux_boot_protocol_selectors_are_those_of_the_frame() {
    assert_eq!((DebugFrame::CODE_SELECTOR, DebugFrame::DATA_SELECTOR), (0x10, 0x18)); // kexec-facts: section 9
}

#[test]
fn the_gates_name_the_running_kernels_selector_and_the_gdt_has_a_code_segment_there() {
    for selector in (0x8..=0x60).step_by(8) {
        let bytes = *DebugFrame::new(&DebugSetup { gate_selector: selector, ..setup() }).unwrap().as_bytes();
        assert_eq!(descriptor(&bytes, selector), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&bytes, DebugFrame::CODE_SELECTOR), 0x00af_9b00_0000_ffff);
        assert_eq!(descriptor(&bytes, DebugFrame::TSS_SELECTOR) >> 40 & 0xff, 0x89);
        let (_, idt) = pseudo_descriptor(&bytes, DebugFrame::IDTR);
        for vector in 0..32 {
            let gate = &bytes[idt + vector * 16..][..16];
            assert_eq!(u16::from_le_bytes([gate[2], gate[3]]), selector);
        }
    }
}

#[test]
fn each_gate_leads_to_the_stub_that_pushes_its_vector() {
    let stubs = EXCEPTION.regions().next().unwrap();
    for ist in [true, false] {
        let bytes = *DebugFrame::new(&DebugSetup { ist, ..setup() }).unwrap().as_bytes();
        let (limit, idt) = pseudo_descriptor(&bytes, DebugFrame::IDTR);
        assert_eq!((limit, idt % 8), (511, 0));
        for vector in 0..32 {
            let gate = &bytes[idt + vector * 16..][..16];
            let low = u64::from(u16::from_le_bytes([gate[0], gate[1]]));
            let middle = u64::from(u16::from_le_bytes([gate[6], gate[7]]));
            let high = u64::from(u32::from_le_bytes(gate[8..12].try_into().unwrap()));
            let offset = ((low | middle << 16 | high << 32) - STUBS) as usize;
            assert!((stubs.start..stubs.end).contains(&offset));
            assert_eq!(EXCEPTION.bytes()[offset..][..6], [0xf3, 0x0f, 0x1e, 0xfa, 0x6a, vector as u8]);
            assert_eq!(gate[5], 0x8e, "present, DPL 0, interrupt gate");
            assert_eq!(gate[4] != 0, ist);
            assert_eq!(gate[12..], [0; 4]);
        }
    }
}

#[test]
fn the_tss_has_stacks_in_the_frame_and_those_of_nmi_df_mc_db_and_bp_are_their_own() {
    let bytes = *DebugFrame::new(&setup()).unwrap().as_bytes();
    let low = descriptor(&bytes, DebugFrame::TSS_SELECTOR);
    let high = descriptor(&bytes, DebugFrame::TSS_SELECTOR + 8);
    let base = low >> 16 & 0xff_ffff | low >> 56 << 24 | high << 32;
    assert_eq!((low & 0xffff, low >> 48 & 0xf), (103, 0));
    let tss = (base - FRAME) as usize;
    assert!(tss + 104 <= 4096);

    let (_, idt) = pseudo_descriptor(&bytes, DebugFrame::IDTR);
    let top = |vector: usize| {
        let ist = usize::from(bytes[idt + vector * 16 + 4]);
        word(&bytes, tss + 0x24 + (ist - 1) * 8) - FRAME
    };
    let own = [1, 2, 3, 8, 18];
    for vector in 0..32 {
        assert_eq!(top(vector) % 16, 0);
        assert!(top(vector) <= DebugFrame::CAPTURED as u64);
        assert!(top(vector) >= DebugFrame::STACK_TOP as u64 + 128);
        for other in 0..vector {
            let apart = own.contains(&vector) || own.contains(&other);
            assert_eq!(top(vector) != top(other), apart, "{vector} {other}");
            assert!(!apart || top(vector).abs_diff(top(other)) >= 128);
        }
    }
}

#[test]
fn the_bit_that_ltr_sets_is_where_the_frame_says() {
    let bytes = *DebugFrame::new(&setup()).unwrap().as_bytes();
    let (_, gdt) = pseudo_descriptor(&bytes, DebugFrame::GDTR);
    assert_eq!(DebugFrame::TSS_ACCESS, gdt + usize::from(DebugFrame::TSS_SELECTOR) + 5);
    assert_eq!(bytes[DebugFrame::TSS_ACCESS], 0x89); // available; LTR makes it 0x8b
}

#[test]
fn the_dumper_is_found_by_addresses_in_the_state() {
    let bytes = *DebugFrame::new(&setup()).unwrap().as_bytes();
    assert_eq!(word(&bytes, 0), 0x1111_0000 + DUMP.find("dump").unwrap() as u64);
    assert_eq!(word(&bytes, 8), 0x1111_0000 + DUMP.find("mark").unwrap() as u64);
    let bytes = *DebugFrame::new(&DebugSetup { console: None, ..setup() }).unwrap().as_bytes();
    let silent = STUBS + EXCEPTION.find("silent").unwrap() as u64;
    assert_eq!((word(&bytes, 0), word(&bytes, 8)), (silent, silent));
}

#[test]
fn a_setup_that_cannot_work_is_an_error_that_names_the_value() {
    let frame = VirtAddr::new(FRAME + 8);
    let error = DebugFrame::new(&DebugSetup { frame, ..setup() }).unwrap_err();
    assert_eq!(error, DebugSetupError::FrameAlignment(frame));
    assert_eq!(error.to_string(), "the debug frame's address 0xffffffff81234008 is not 4 KiB-aligned");
    for selector in [0, 3, 0x0b, 0x14, 0x33, 0x68, 0x70, 0x78, 0xe008, 0xfff8] {
        let error = DebugFrame::new(&DebugSetup { gate_selector: selector, ..setup() }).unwrap_err();
        assert_eq!(error, DebugSetupError::GateSelector(selector));
        assert!(error.to_string().contains(&format!("{selector:#x}")));
    }
}
