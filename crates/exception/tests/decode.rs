//! The entry code, decoded: what it is made of, and what it is not.
#![cfg(target_arch = "x86_64")]

use std::collections::BTreeSet;

use iced_x86::{Code, Decoder, DecoderOptions, FlowControl, Instruction, Mnemonic, OpKind, Register};
use kexec_exception::entry::stub;
use kexec_exception::{Handler, TrapFrame, Vector, VectorRegisters};

/// A kernel of soft-float without user space.
struct Plain;

impl Handler for Plain {
    const VECTOR_REGISTERS: VectorRegisters = VectorRegisters::None;
    fn handle(_frame: &mut TrapFrame) {}
}

struct Everything;

impl Handler for Everything {
    const SWAPGS: bool = true;
    const VECTOR_REGISTERS: VectorRegisters = VectorRegisters::Xsave { components: 0xe7, size: 2688 };
    fn handle(_frame: &mut TrapFrame) {}
}

/// The instructions from an address to the first that does not fall through.
fn decode(address: u64) -> Vec<Instruction> {
    // SAFETY: the text of this program goes on for longer than that behind each stub, up to its last instruction.
    let code = unsafe { std::slice::from_raw_parts(address as *const u8, 512) };
    let mut instructions = Vec::new();
    for instruction in &mut Decoder::with_ip(64, code, address, DecoderOptions::NONE) {
        instructions.push(instruction);
        if matches!(instruction.mnemonic(), Mnemonic::Iretq | Mnemonic::INVALID)
            || instruction.flow_control() == FlowControl::UnconditionalBranch && instruction.len() > 2
        {
            break;
        }
    }
    instructions
}

fn mnemonics<H: Handler>(vector: u8) -> Vec<Mnemonic> {
    let entry = decode(stub::<H>(Vector(vector)) as usize as u64);
    decode(entry.last().unwrap().near_branch64()).iter().map(Instruction::mnemonic).collect()
}

#[test]
fn a_stub_is_endbr64_then_error_code_and_vector_then_the_common_part() {
    let mut commons = BTreeSet::new();
    for vector in 0..=255_u8 {
        let code = decode(stub::<Plain>(Vector(vector)) as usize as u64);
        let mnemonics: Vec<_> = code.iter().map(Instruction::mnemonic).collect();
        let pushes: &[Mnemonic] = match vector {
            8 | 10..=14 | 17 | 21 | 29 | 30 => &[Mnemonic::Push],
            _ => &[Mnemonic::Push, Mnemonic::Push],
        };
        assert_eq!(mnemonics, [&[Mnemonic::Endbr64], pushes, &[Mnemonic::Jmp]].concat(), "vector {vector}");
        assert_eq!(code[code.len() - 2].immediate(0), u64::from(vector));
        commons.insert(code[code.len() - 1].near_branch64());
    }
    assert!(commons.len() <= 2, "two common parts, one of them for vectors that come anywhere");
}

#[test]
fn without_user_space_and_vector_registers_the_entry_has_neither() {
    for vector in [2, 13, 14, 0x80] {
        let entry = decode(stub::<Plain>(Vector(vector)) as usize as u64);
        let common = decode(entry.last().unwrap().near_branch64());
        assert_eq!(common[0].mnemonic(), Mnemonic::Cld);
        assert_eq!(common.last().unwrap().code(), Code::Iretq);
        for instruction in &common {
            assert!(
                !matches!(
                    instruction.mnemonic(),
                    Mnemonic::Swapgs
                        | Mnemonic::Rdmsr
                        | Mnemonic::Lfence
                        | Mnemonic::Fxsave64
                        | Mnemonic::Xsave64
                ),
                "{instruction}"
            );
            for operand in 0..instruction.op_count() {
                let vector = instruction.op_kind(operand) == OpKind::Register
                    && instruction.op_register(operand).is_vector_register();
                assert!(!vector, "{instruction}");
                assert_ne!(instruction.memory_base(), Register::RIP, "{instruction}");
            }
        }
        let control: Vec<_> = common
            .iter()
            .filter(|instruction| instruction.op_count() == 2 && instruction.op1_register().is_cr())
            .map(Instruction::op1_register)
            .collect();
        assert_eq!(control, [Register::CR2], "no other control register is read at an entry");
    }
}

#[test]
fn only_vectors_that_come_anywhere_look_at_the_gs_base() {
    for vector in 0..=255_u8 {
        let code = mnemonics::<Everything>(vector);
        let anywhere = matches!(vector, 1 | 2 | 8 | 11 | 12 | 13 | 18 | 21);
        assert_eq!(code.contains(&Mnemonic::Rdmsr), anywhere, "vector {vector}");
        let count = |mnemonic| code.iter().filter(|other| **other == mnemonic).count();
        assert_eq!((count(Mnemonic::Swapgs), count(Mnemonic::Xsave64), count(Mnemonic::Xrstor64)), (2, 1, 1));
        // In order: GS before anything is called or speculated on, vector registers around the call.
        let order: Vec<_> = code
            .iter()
            .filter(|mnemonic| {
                matches!(
                    mnemonic,
                    Mnemonic::Swapgs
                        | Mnemonic::Lfence
                        | Mnemonic::Xsave64
                        | Mnemonic::Call
                        | Mnemonic::Xrstor64
                )
            })
            .copied()
            .collect();
        use Mnemonic::{Call, Lfence, Swapgs, Xrstor64, Xsave64};
        assert_eq!(order, [Swapgs, Lfence, Xsave64, Call, Xrstor64, Swapgs]);
    }
}
