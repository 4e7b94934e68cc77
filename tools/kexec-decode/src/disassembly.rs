//! The instructions around RIP, from the bytes in the dump and from the kernel's file.

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Formatter, Instruction, IntelFormatter, Mnemonic, OpKind, Register,
};

use crate::dump::Dump;
use crate::place::World;

const BEFORE: usize = 6;
const AFTER: usize = 6;
/// The furthest back that a function's start is looked for.
const FURTHEST: u64 = 16 * 1024;

/// The selector of the transition's 32-bit code segment: `DebugFrame::CODE32_SELECTOR` of kexec-exception's page code, which is
/// there on x86-64 only. A test compares them.
pub(crate) const CODE32_SELECTOR: u64 = 0x68;

/// Instructions with the one at RIP among them.
pub(crate) struct Disassembly {
    pub(crate) before: Vec<Instruction>,
    pub(crate) at: Option<Instruction>,
    pub(crate) after: Vec<Instruction>,
    /// Whether the file's bytes at RIP are those of the dump; `None` where one of them is missing.
    pub(crate) same_as_file: Option<bool>,
}

impl Disassembly {
    pub(crate) fn around_rip(world: &World<'_>) -> Self {
        let rip = world.dump.number("rip").unwrap_or(0);
        let dumped = world.dump.code();
        // Where an instruction begins before RIP, and the file's bytes from there.
        let (back, file) = file_bytes(world, rip).unwrap_or_default();
        let at_rip = file.get(back..).unwrap_or_default();
        let common = dumped.len().min(at_rip.len());
        let same_as_file = (common > 0).then(|| dumped[..common] == at_rip[..common]);
        // What was read at the fault is the truth; the file tells more where it agrees, or where nothing was read.
        let agrees = same_as_file.unwrap_or(dumped.is_empty());
        let from_rip = if agrees && at_rip.len() > dumped.len() { at_rip } else { &dumped };
        let bits = if world.dump.number("cs") == Some(CODE32_SELECTOR) { 32 } else { 64 };
        let mut after = decode(bits, from_rip, rip, AFTER);
        let at = (!after.is_empty()).then(|| after.remove(0));
        let mut before = Vec::new();
        if agrees && back > 0 {
            before = decode(bits, &file[..back], rip.wrapping_sub(back as u64), back);
            // Out of step: data lies in between, or no instruction begins there.
            if before.last().is_none_or(|last| last.next_ip() != rip) {
                before.clear();
            }
            // What is no instruction is data, or the bytes before it were.
            let data = before.iter().rposition(Instruction::is_invalid).map_or(0, |last| last + 1);
            before.drain(..data.max(before.len().saturating_sub(BEFORE)));
        }
        Disassembly { before, at, after, same_as_file }
    }
}

/// The bytes that a kernel's file has around `rip`, and how far into them RIP lies: from the last label or symbol on.
fn file_bytes(world: &World<'_>, rip: u64) -> Option<(usize, Vec<u8>)> {
    let place = world.page_code(rip);
    if let Some((name, offset)) = place.as_ref().and_then(|place| place.piece.as_ref()) {
        let (_, template) = world.kernels.iter().find_map(|kernel| kernel.piece(name))?;
        let end = world.plan.and_then(|plan| plan.pieces.iter().find(|piece| piece.name == *name));
        let size = end.map_or(template.len(), |piece| (piece.range.end - piece.range.start) as usize);
        let offset = usize::try_from(*offset).ok()?;
        let back = usize::try_from(place.as_ref().and_then(|place| place.since_label).unwrap_or(0)).ok()?;
        let bytes = template.get(offset.checked_sub(back)?..size.min(template.len()))?;
        return Some((back, bytes.to_vec()));
    }
    let kernel = world.kernels.iter().find(|kernel| kernel.is_text(rip))?;
    let back = kernel.near(rip).map_or(0, |near| near.offset);
    let back = if back <= FURTHEST { back } else { 0 };
    let length = usize::try_from(back).ok()? + 16 * (AFTER + 1);
    Some((usize::try_from(back).ok()?, kernel.bytes(rip.wrapping_sub(back), length)?.to_vec()))
}

fn decode(bits: u32, bytes: &[u8], ip: u64, most: usize) -> Vec<Instruction> {
    let decoder = Decoder::with_ip(bits, bytes, ip, DecoderOptions::NONE);
    let instructions = decoder.into_iter().take(most + 1);
    // The last may only lack its rest.
    instructions
        .take_while(|instruction| !(instruction.is_invalid() && instruction.len() < 2 && bytes.len() < 2))
        .collect()
}

/// An instruction as text, in Intel's syntax.
pub(crate) fn text(instruction: &Instruction) -> String {
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    formatter.options_mut().set_space_after_operand_separator(true);
    formatter.options_mut().set_branch_leading_zeros(false);
    formatter.options_mut().set_rip_relative_addresses(true);
    let mut text = String::new();
    formatter.format(instruction, &mut text);
    text
}

/// Where the instruction goes or calls to, if that is written in it.
pub(crate) fn target(instruction: &Instruction) -> Option<u64> {
    let near =
        matches!(instruction.op0_kind(), OpKind::NearBranch64 | OpKind::NearBranch32 | OpKind::NearBranch16);
    near.then(|| instruction.near_branch_target())
}

/// The addresses of the instruction's memory operands with the registers of the dump, each with the operand's number.
pub(crate) fn memory_operands(instruction: &Instruction, dump: &Dump) -> Vec<(String, u64)> {
    (0..instruction.op_count())
        .filter_map(|operand| {
            let address = instruction.virtual_address(operand, 0, |register, _, _| value(register, dump))?;
            let name = match instruction.op_kind(operand) {
                OpKind::Memory => operand_text(instruction, operand),
                OpKind::MemorySegRSI => "[rsi]".into(),
                OpKind::MemoryESRDI => "[rdi]".into(),
                OpKind::MemorySegESI => "[esi]".into(),
                OpKind::MemoryESEDI => "[edi]".into(),
                _ => return None,
            };
            Some((name, address))
        })
        .collect()
}

fn operand_text(instruction: &Instruction, operand: u32) -> String {
    let mut formatter = IntelFormatter::new();
    formatter.options_mut().set_hex_prefix("0x");
    formatter.options_mut().set_hex_suffix("");
    formatter.options_mut().set_uppercase_hex(false);
    let mut text = String::new();
    match formatter.format_operand(instruction, &mut text, operand) {
        // Without the size in front.
        Ok(()) => text.split_once('[').map_or(text.clone(), |(_, rest)| format!("[{rest}")),
        Err(_) => "memory".into(),
    }
}

/// Where an indirect branch or a return was going, by the registers and the stack of the dump.
pub(crate) fn indirect_target(instruction: &Instruction, dump: &Dump) -> Option<(String, u64)> {
    match instruction.flow_control() {
        FlowControl::IndirectBranch | FlowControl::IndirectCall
            if instruction.op0_kind() == OpKind::Register =>
        {
            let register = instruction.op0_register();
            Some((format!("{register:?}").to_lowercase(), value(register, dump)?))
        }
        FlowControl::Return => {
            let far = matches!(instruction.mnemonic(), Mnemonic::Iret | Mnemonic::Iretd | Mnemonic::Iretq);
            let what = if far { "RIP in the frame on the stack" } else { "the return address" };
            Some((what.into(), dump.number("stack0")?))
        }
        _ => None,
    }
}

/// The value of a register. The bases of DS, ES, SS and CS are 0 in 64-bit mode; those of FS and GS are not in the dump.
fn value(register: Register, dump: &Dump) -> Option<u64> {
    if matches!(register, Register::CS | Register::DS | Register::ES | Register::SS) {
        return Some(0);
    }
    let full = register.full_register();
    if !full.is_gpr64() {
        return None;
    }
    let whole = dump.number(&format!("{full:?}").to_lowercase())?;
    Some(match register.size() {
        8 => whole,
        4 => whole & 0xffff_ffff,
        2 => whole & 0xffff,
        _ => return None,
    })
}

/// Whether `bytes`, which end at a plausible return address, end with a call.
pub(crate) fn ends_with_call(bytes: &[u8]) -> bool {
    (2..=7.min(bytes.len())).any(|length| {
        let tail = &bytes[bytes.len() - length..];
        let instruction = Decoder::new(64, tail, DecoderOptions::NONE).decode();
        instruction.len() == length
            && matches!(instruction.flow_control(), FlowControl::Call | FlowControl::IndirectCall)
            && matches!(instruction.mnemonic(), Mnemonic::Call)
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    #[test]
    fn the_32_bit_selector_is_that_of_the_page_code() {
        let selector = kexec_exception::page_code::DebugFrame::CODE32_SELECTOR;
        assert_eq!(super::CODE32_SELECTOR, u64::from(selector));
    }
}
