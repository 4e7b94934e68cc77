//! Callees that return in bad shape.

use hobby::{Bundle, Failure, Memory};
use peers::HOSTILE;
use reloc::Options;
use x86_64::instructions::port::Port;

use super::called::{jump, page};
use super::digest::Digest;
use super::exclusions::Exclusions;
use super::state::State;
use super::{gdt, traps};
use crate::CONSOLE;
use crate::transition::Around;

/// The pages of [`HOSTILE`].
const PAGES: u64 = 8;

/// `return hostile SHAPE`: calls the callee twice, and compares processor and memory.
pub fn hostile(around: &Around<'_>, memory: &mut Memory, _: &Bundle, shape: &str) -> Result<(), Failure> {
    traps::install();
    gdt::load_read_only(memory);
    State::distinguish();
    // An interrupt has no gate in the transition: a callee that turns IF on finds none pending.
    // SAFETY: the masks of both interrupt controllers; interrupts are off anyway.
    unsafe { [0x21, 0xa1].into_iter().for_each(|port| Port::<u8>::new(port).write(0xff)) };
    let mut prepared = page(around, memory, &HOSTILE, shape.trim(), PAGES, Options::new)?;
    let exclusions = Exclusions::of(&prepared, memory, None)?;
    let before = Digest::of_memory(memory, around.memory_map, exclusions)?;
    let state = State::read();
    for _ in 0..2 {
        let next = jump(&mut prepared)?;
        State::read().compare(&state, shape);
        writeln!(CONSOLE, "returned, next entry {next}");
    }
    let after = Digest::of_memory(memory, around.memory_map, exclusions)?;
    if let Some(at) = after.difference(&before) {
        super::wrong!("memory has changed in the 2 MiB from {at} on");
    }
    prepared.free(memory);
    Ok(())
}
