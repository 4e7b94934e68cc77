//! A fault where paging is off: in the detour to another paging depth.

use hobby::{Bundle, Failure, Memory};
use kexec_abi::{Frame, PhysAddr, PhysMemory as _};
use reloc::{DETOUR, Mode, Options};

use super::called::{jump, peer};
use crate::transition::Around;

/// `return levels=5 detour`: an undefined instruction stands where CR4 is to be written. Does not return.
pub fn detour(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle, _: &str) -> Result<(), Failure> {
    /// `mov cr4, esi`, and `ud2; nop`.
    const MOV_TO_CR4: [u8; 3] = [0x0f, 0x22, 0xe6];
    const UNDEFINED: [u8; 3] = [0x0f, 0x0b, 0x90];
    let mut prepared = peer(around, memory, bundle, Mode::Preserve, Options::new)?;
    let code = Frame::containing(prepared.code_frames().start);
    let mut bytes = [0; 4096];
    memory.read_bytes(code, 0, &mut bytes)?;
    let start = DETOUR.find("without_paging").ok_or(Failure::Missing("detour's label"))?;
    let piece = DETOUR.bytes();
    let within = piece[start..].windows(3).position(|window| window == MOV_TO_CR4).map(|at| start + at);
    let copy = bytes.windows(64).position(|window| window == &piece[start..start + 64]);
    let (within, copy) = within.zip(copy).ok_or(Failure::Missing("detour in the code frame"))?;
    let at = PhysAddr::new(code.start().as_u64() + (copy + within - start) as u64);
    memory.write_bytes(code, (at.as_u64() % 4096) as usize, &UNDEFINED)?;
    jump(&mut prepared)?;
    Ok(())
}
