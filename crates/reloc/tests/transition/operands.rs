//! General registers as a signal handler finds them, and as instructions name them.

use iced_x86::{ConditionCode, Register};

use crate::model::Forbidden;

/// The registers of the code under test, as the kernel gives them to a signal handler.
pub(crate) type Gregs = [libc::greg_t; 23];

pub(crate) fn reg(gregs: &Gregs, index: libc::c_int) -> u64 {
    gregs[index as usize] as u64
}

pub(crate) fn set(gregs: &mut Gregs, index: libc::c_int, value: u64) {
    gregs[index as usize] = value as i64;
}

/// Where the kernel keeps a general register.
pub(crate) fn full(register: Register) -> Option<libc::c_int> {
    Some(match register.full_register() {
        Register::RAX => libc::REG_RAX,
        Register::RBX => libc::REG_RBX,
        Register::RCX => libc::REG_RCX,
        Register::RDX => libc::REG_RDX,
        Register::RSI => libc::REG_RSI,
        Register::RDI => libc::REG_RDI,
        Register::RBP => libc::REG_RBP,
        Register::RSP => libc::REG_RSP,
        Register::R8 => libc::REG_R8,
        Register::R9 => libc::REG_R9,
        Register::R10 => libc::REG_R10,
        Register::R11 => libc::REG_R11,
        Register::R12 => libc::REG_R12,
        Register::R13 => libc::REG_R13,
        Register::R14 => libc::REG_R14,
        Register::R15 => libc::REG_R15,
        _ => return None,
    })
}

pub(crate) fn operand(gregs: &Gregs, register: Register) -> Result<u64, Forbidden> {
    let value = reg(gregs, full(register).ok_or("an operand that is no register")?);
    Ok(match register.size() {
        8 => value,
        size => value & ((1 << (8 * size)) - 1),
    })
}

pub(crate) fn set_operand(gregs: &mut Gregs, register: Register, value: u64) -> Result<(), Forbidden> {
    let index = full(register).ok_or("an operand that is no register")?;
    let value = match register.size() {
        2 => reg(gregs, index) & !0xffff | value & 0xffff,
        4 => value & 0xffff_ffff,
        _ => value,
    };
    set(gregs, index, value);
    Ok(())
}

/// Whether the condition is met (SDM Vol. 1, appendix B).
pub(crate) fn holds(condition: ConditionCode, flags: u64) -> bool {
    let [carry, parity, zero, sign, overflow] = [0, 2, 6, 7, 11].map(|bit| flags >> bit & 1 != 0);
    match condition {
        ConditionCode::None => true,
        ConditionCode::o => overflow,
        ConditionCode::no => !overflow,
        ConditionCode::b => carry,
        ConditionCode::ae => !carry,
        ConditionCode::e => zero,
        ConditionCode::ne => !zero,
        ConditionCode::be => carry || zero,
        ConditionCode::a => !carry && !zero,
        ConditionCode::s => sign,
        ConditionCode::ns => !sign,
        ConditionCode::p => parity,
        ConditionCode::np => !parity,
        ConditionCode::l => sign != overflow,
        ConditionCode::ge => sign == overflow,
        ConditionCode::le => zero || sign != overflow,
        ConditionCode::g => !zero && sign == overflow,
    }
}
