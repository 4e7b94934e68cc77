//! Reads a piece of page code instruction by instruction, and names each one that breaks the
//! [rules of page code](mod@kexec_abi::page_code). For the tests of the crate that declares the piece.
//!
//! ```no_run
//! # fn check(piece: &kexec_abi::PageCode) {
//! let broken = page_code_check::broken_rules(piece, &["put_byte"]);
//! assert!(broken.is_empty(), "{broken:#?}");
//! # }
//! ```
//!
//! It cannot tell whether an address in a register is a good one, nor how deep the stack gets.

use iced_x86::{
    Code, CpuidFeature, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, OpKind,
    Register,
};
use kexec_abi::page_code::{Mode, PageCode};

/// Where the decoder is told that the piece lies: below 4 GiB, for 32-bit code, where no displacement reaches by accident.
const BASE: u64 = 0x5a5a_0000;

/// What breaks the rules in `piece`, a line each; `entries` are the labels that others jump to or call.
#[must_use]
pub fn broken_rules(piece: &PageCode, entries: &[&str]) -> Vec<String> {
    let mut broken = Vec::new();
    let regions: Vec<_> = piece.regions().collect();
    let mut expected = 4 * (regions.len() + 1);
    for region in &regions {
        // Only the padding of an alignment may lie between the header and the first label.
        if region.start < expected || region.end < region.start || region.end > piece.bytes().len() {
            broken.push(format!(
                "label {}: {:#x}..{:#x} is out of order",
                region.name, region.start, region.end
            ));
            return broken;
        }
        expected = region.end;
    }
    if piece.bytes()[piece.used()..].iter().any(|byte| *byte != 0xcc) {
        broken.push("the rest is not int3".into());
    }
    for entry in entries {
        if !regions.iter().any(|region| region.name == *entry) {
            broken.push(format!("no label {entry}"));
        }
    }

    let mut instructions: Vec<(&str, Instruction)> = Vec::new();
    for region in &regions {
        let bits = match region.mode {
            Mode::Code64 => 64,
            Mode::Code32 => 32,
            Mode::Data => continue,
        };
        let code = &piece.bytes()[region.start..region.end];
        let at = BASE + region.start as u64;
        let decoded: Vec<Instruction> =
            Decoder::with_ip(bits, code, at, DecoderOptions::NONE).into_iter().collect();
        let first = decoded.first().map(Instruction::code);
        if entries.contains(&region.name) && !matches!(first, Some(Code::Endbr64 | Code::Endbr32)) {
            broken.push(format!("{}: an entry without endbr64", region.name));
        }
        instructions.extend(decoded.into_iter().map(|instruction| (region.name, instruction)));
    }
    let targets: Vec<u64> = instructions.iter().map(|(_, instruction)| instruction.ip()).collect();
    let in_piece = |address: u64| (BASE..BASE + piece.used() as u64).contains(&address);
    let mut info = InstructionInfoFactory::new();
    for (number, (label, at)) in instructions.iter().enumerate() {
        let mut wrong = |rule: &str| broken.push(format!("{label} {:#x}: {at}: {rule}", at.ip() & 0xffff));
        if at.is_invalid() {
            wrong("no instruction");
            continue;
        }
        let near =
            matches!(at.op0_kind(), OpKind::NearBranch16 | OpKind::NearBranch32 | OpKind::NearBranch64);
        if at.op_count() > 0 && near && !targets.contains(&at.near_branch_target()) {
            wrong("branches out of the piece, or into an instruction");
        }
        if at.is_ip_rel_memory_operand() && !in_piece(at.ip_rel_memory_address()) {
            wrong("refers to memory outside the piece");
        }
        let absolute = (0..at.op_count()).any(|n| at.op_kind(n) == OpKind::Memory)
            && at.memory_base() == Register::None
            && at.memory_index() == Register::None;
        if absolute && at.code_size() == iced_x86::CodeSize::Code64 {
            wrong("an absolute address");
        }
        let x87 = at.cpuid_features().iter().any(|feature| {
            matches!(feature, CpuidFeature::FPU | CpuidFeature::FPU287 | CpuidFeature::FPU387)
        });
        let vector = info.info(at).used_registers().iter().any(|used| {
            let register = used.register();
            register.is_vector_register() || register.is_mm() || register.is_k()
        });
        if x87 || vector {
            wrong("a register that the engine does not save");
        }
        // What follows the last instruction of the piece, or of a stretch of code, must not be run into.
        let falls_on = !matches!(
            at.flow_control(),
            FlowControl::Return | FlowControl::UnconditionalBranch | FlowControl::IndirectBranch
        );
        let follows = instructions.get(number + 1).is_some_and(|(_, next)| next.ip() == at.next_ip());
        // An int3 is padding there, or stops.
        if falls_on && !follows && at.code() != Code::Int3 {
            wrong("falls out of the code");
        }
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use kexec_abi::page_code::Label;

    /// A piece with one label, from its code.
    fn piece(code: &[u8]) -> PageCode {
        const LABELS: &[Label] = &[Label { name: "entry", mode: Mode::Code64 }];
        let mut bytes = Vec::new();
        bytes.extend_from_slice(&8_u32.to_le_bytes());
        bytes.extend_from_slice(&(8 + code.len() as u32).to_le_bytes());
        bytes.extend_from_slice(code);
        bytes.push(0xcc);
        PageCode::new("TEST", bytes.leak(), LABELS)
    }

    #[test]
    fn a_piece_that_keeps_the_rules_passes() {
        // endbr64; mov rax, [rip]; jz to the ret; ret
        let code = b"\xf3\x0f\x1e\xfa\x48\x8b\x05\xf0\xff\xff\xff\x74\x00\xc3";
        assert_eq!(broken_rules(&piece(code), &["entry"]), [""; 0]);
    }

    #[test]
    fn each_rule_is_seen_when_it_is_broken() {
        for (what, code) in [
            ("an entry without endbr64", b"\xc3".as_slice()),
            ("branches out", b"\xf3\x0f\x1e\xfa\xeb\x10\xc3"),
            ("into an instruction", b"\xf3\x0f\x1e\xfa\xeb\xfd\xc3"),
            ("an absolute address", b"\xf3\x0f\x1e\xfa\x8b\x04\x25\x00\x10\x00\x00\xc3"),
            ("outside the piece", b"\xf3\x0f\x1e\xfa\x8b\x05\x00\x10\x00\x00\xc3"),
            ("does not save", b"\xf3\x0f\x1e\xfa\x66\x0f\xef\xc0\xc3"),
            ("does not save", b"\xf3\x0f\x1e\xfa\xd9\xe8\xc3"),
            ("falls out", b"\xf3\x0f\x1e\xfa\x90"),
            ("no instruction", b"\xf3\x0f\x1e\xfa\x06\xc3"),
        ] {
            let broken = broken_rules(&piece(code), &["entry"]);
            assert!(broken.iter().any(|line| line.contains(what)), "{what}: {broken:?}");
        }
    }

    #[test]
    fn a_missing_label_and_a_damaged_header_are_named() {
        assert_eq!(broken_rules(&piece(b"\xf3\x0f\x1e\xfa\xc3"), &["other"]), ["no label other"]);
        const LABELS: &[Label] = &[Label { name: "entry", mode: Mode::Code64 }];
        let outside = PageCode::new("TEST", &[8, 0, 0, 0, 99, 0, 0, 0, 0xc3], LABELS);
        assert_eq!(broken_rules(&outside, &[]), ["label entry: 0x8..0x63 is out of order"]);
    }
}
