//! The rules of page code, checked on the bytes.

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kexec_abi::page_code::{Mode, PageCode};
use kexec_exception::page_code::{DUMP, EXCEPTION};
use page_code_check::broken_rules;

fn instructions(piece: &PageCode) -> Vec<Instruction> {
    let code = |mode| mode != Mode::Data;
    piece
        .regions()
        .filter(|region| code(region.mode))
        .flat_map(|region| {
            let bytes = &piece.bytes()[region.start..region.end];
            Decoder::with_ip(64, bytes, region.start as u64, DecoderOptions::NONE)
                .into_iter()
                .collect::<Vec<_>>()
        })
        .collect()
}

fn is_privileged(instruction: &Instruction) -> bool {
    let control = |n| instruction.op_kind(n) == OpKind::Register && instruction.op_register(n).is_cr();
    instruction.is_privileged() || (0..instruction.op_count()).any(control)
}

#[test]
fn no_piece_breaks_the_rules_of_page_code() {
    assert_eq!(broken_rules(&EXCEPTION, &["stubs", "fatal", "silent"]), [""; 0]);
    assert_eq!(broken_rules(&DUMP, &["dump", "mark"]), [""; 0]);
}

#[test]
fn each_of_the_32_stubs_begins_with_endbr64() {
    let stubs = EXCEPTION.regions().next().unwrap();
    let inside = |instruction: &&Instruction| (stubs.start..stubs.end).contains(&(instruction.ip() as usize));
    let all = instructions(&EXCEPTION);
    let codes: Vec<Code> = all.iter().filter(inside).map(Instruction::code).collect();
    assert_eq!(codes, [Code::Endbr64, Code::Pushq_imm8, Code::Jmp_rel32_64].repeat(32));
}

#[test]
fn calls_out_go_through_the_state_and_no_jump_does() {
    for piece in [&EXCEPTION, &DUMP] {
        for instruction in instructions(piece) {
            assert_ne!(instruction.flow_control(), FlowControl::IndirectBranch);
            if instruction.flow_control() == FlowControl::IndirectCall {
                assert_eq!(instruction.memory_base(), Register::RBX, "{instruction}");
            }
        }
    }
}

#[test]
fn the_printing_piece_has_no_privileged_instruction() {
    for instruction in instructions(&DUMP) {
        assert!(!is_privileged(&instruction), "{instruction}");
    }
    assert!(instructions(&EXCEPTION).iter().any(is_privileged));
}

#[test]
fn nothing_that_the_processor_goes_by_is_written_but_the_idt_before_the_last_resort() {
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
        loads || register.is_cr() || register.is_dr() || register.is_segment_register()
    };
    let all = instructions(&EXCEPTION);
    let written: Vec<Code> = all.iter().filter(writes).map(Instruction::code).collect();
    assert_eq!(written, [Code::Lidt_m1664]);
}

#[test]
fn the_pieces_leave_room_for_others_in_the_code_frame() {
    assert!(EXCEPTION.bytes().len() <= 1024);
    assert!(DUMP.bytes().len() <= 1536);
}
