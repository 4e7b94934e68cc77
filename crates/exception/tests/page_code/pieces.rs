//! The rules of page code, checked on the bytes.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kexec_abi::page_code::{Mode, PageCode};
use kexec_exception::page_code::{DUMP, EXCEPTION};

const BASE: u64 = 0x10_0000;

fn instructions(piece: &PageCode) -> Vec<Instruction> {
    let mut all = Vec::new();
    for region in piece.regions().filter(|region| region.mode != Mode::Data) {
        assert_eq!(region.mode, Mode::Code64);
        let code = &piece.bytes()[region.start..region.end];
        let start = BASE + region.start as u64;
        let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
        let mut end = start;
        for instruction in decoder.iter() {
            assert!(!instruction.is_invalid(), "{} at {:#x}", region.name, instruction.ip() - BASE);
            end = instruction.next_ip();
            all.push(instruction);
        }
        assert_eq!(end, BASE + region.end as u64, "{} ends with an instruction", region.name);
    }
    all
}

/// Privileged, or with an effect outside of the registers and memory that the piece is given.
fn privileged(instruction: &Instruction) -> bool {
    let control =
        |n| matches!(instruction.op_kind(n), OpKind::Register) && instruction.op_register(n).is_cr();
    instruction.is_privileged()
        || (0..instruction.op_count()).any(control)
        || matches!(
            instruction.flow_control(),
            FlowControl::Interrupt | FlowControl::Exception | FlowControl::XbeginXabortXend
        )
}

#[test]
fn pieces_are_position_independent_and_self_contained() {
    for piece in [&EXCEPTION, &DUMP] {
        let all = instructions(piece);
        let starts: Vec<u64> = all.iter().map(Instruction::ip).collect();
        let inside = BASE..BASE + piece.used() as u64;
        for instruction in &all {
            let at = instruction.ip() - BASE;
            if instruction.is_ip_rel_memory_operand() {
                assert_eq!(instruction.mnemonic(), Mnemonic::Lea, "{at:#x}");
                assert!(inside.contains(&instruction.ip_rel_memory_address()), "{at:#x}");
            } else if (0..instruction.op_count()).any(|n| instruction.op_kind(n) == OpKind::Memory) {
                assert_ne!(instruction.memory_base(), Register::None, "an absolute address at {at:#x}");
                assert_eq!(instruction.segment_prefix(), Register::None, "{at:#x}");
            }
            match instruction.flow_control() {
                FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch | FlowControl::Call => {
                    assert!(starts.contains(&instruction.near_branch_target()), "a branch out at {at:#x}");
                }
                FlowControl::IndirectCall => {
                    assert_eq!(instruction.memory_base(), Register::RBX, "through the state, at {at:#x}");
                }
                FlowControl::IndirectBranch => panic!("an indirect jump at {at:#x}"),
                _ => {}
            }
            for n in 0..instruction.op_count() {
                if instruction.op_kind(n) == OpKind::Register {
                    let register = instruction.op_register(n);
                    let plain = register.is_gpr() || register.is_segment_register() || register.is_cr();
                    assert!(plain, "{register:?} at {at:#x}");
                }
            }
            assert!(!instruction.is_string_instruction(), "{at:#x}: its direction is the flag's");
        }
    }
}

#[test]
fn the_printing_piece_has_no_privileged_instruction() {
    for instruction in instructions(&DUMP) {
        assert!(!privileged(&instruction), "{:?} at {:#x}", instruction.code(), instruction.ip() - BASE);
    }
    assert!(instructions(&EXCEPTION).iter().any(privileged));
}

#[test]
fn no_descriptor_or_control_register_is_written_but_the_idt_before_the_last_resort() {
    let all = instructions(&EXCEPTION);
    let writes = |instruction: &&Instruction| {
        let to_register = instruction.op_count() > 0 && instruction.op_kind(0) == OpKind::Register;
        let register = if to_register { instruction.op_register(0) } else { Register::None };
        let loads = matches!(
            instruction.mnemonic(),
            Mnemonic::Lgdt
                | Mnemonic::Lidt
                | Mnemonic::Ltr
                | Mnemonic::Lldt
                | Mnemonic::Wrmsr
                | Mnemonic::Swapgs
        );
        loads || register.is_cr() || register.is_segment_register()
    };
    let written: Vec<Code> = all.iter().filter(writes).map(Instruction::code).collect();
    assert_eq!(written, [Code::Lidt_m1664]);
}

#[test]
fn each_entry_begins_with_endbr64() {
    let starts = |piece: &PageCode, offset: usize| {
        assert_eq!(piece.bytes()[offset..offset + 4], [0xf3, 0x0f, 0x1e, 0xfa], "{offset:#x}");
    };
    for name in ["stubs", "fatal", "silent"] {
        starts(&EXCEPTION, EXCEPTION.find(name).unwrap());
    }
    for name in ["dump", "mark"] {
        starts(&DUMP, DUMP.find(name).unwrap());
    }
    let stubs = EXCEPTION.regions().next().unwrap();
    let mut stub_starts = instructions(&EXCEPTION);
    stub_starts.retain(|instruction| {
        let inside = (stubs.start..stubs.end).contains(&((instruction.ip() - BASE) as usize));
        inside && instruction.code() == Code::Endbr64
    });
    assert_eq!(stub_starts.len(), 32);
}

#[test]
fn the_pieces_leave_most_of_the_code_frame_to_others() {
    assert!(EXCEPTION.bytes().len() <= 1024);
    assert!(DUMP.bytes().len() <= 1536);
    println!("EXCEPTION {} bytes, DUMP {} bytes", EXCEPTION.used(), DUMP.used());
}
