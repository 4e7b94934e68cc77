//! There and back, any number of times.

use hobby::{Bundle, Failure, Memory};
use kexec_abi::{Frame, FrameAllocator as _, PAGE_SIZE, PhysAddr, PhysMemory as _};
use peers::Report;
use reloc::{Mode, Options, PrepareError};

use super::called::{jump, peer, word};
use super::digest::{Digest, of_frame};
use super::exclusions::Exclusions;
use super::state::State;
use super::{gdt, traps, wrong};
use crate::CONSOLE;
use crate::transition::Around;

/// `return rounds [COUNT]`: after each round the processor's state is compared, and after every round up to the tenth, then every
/// hundredth, all of memory and the peer's data.
pub fn rounds(around: &Around<'_>, memory: &mut Memory, bundle: &Bundle, count: &str) -> Result<(), Failure> {
    let report = memory.allocate().ok_or(PrepareError::OutOfMemory)?;
    memory.zero(report)?;
    let result = with_report(around, memory, bundle, report, count.trim().parse().unwrap_or(3));
    memory.free(report);
    result
}

fn with_report(
    around: &Around<'_>,
    memory: &mut Memory,
    bundle: &Bundle,
    report: Frame,
    count: u64,
) -> Result<(), Failure> {
    traps::install();
    gdt::load_read_only(memory);
    State::distinguish();
    let mut prepared = peer(around, memory, bundle, Mode::Preserve, |mut entry| {
        entry.rsi = report.start().as_u64();
        Options::new(entry)
    })?;
    let exclusions = Exclusions::of(&prepared, memory, Some(report))?;
    let code = Frame::containing(prepared.code_frames().start);
    let code_before = of_frame(memory, code, 0)?;
    let before = Digest::of_memory(memory, around.memory_map, exclusions)?;
    writeln!(CONSOLE, "before: memory {before}");
    let state = State::read();
    state.print();
    for round in 1..=count {
        let next = jump(&mut prepared)?;
        let now = State::read();
        now.compare(&state, "after the call");
        let said = read(memory, report)?;
        if (said.rounds, said.changed) != (round, 0) {
            wrong!("the peer counts round {}, with its data changed: {}", said.rounds, said.changed);
        }
        if round > 10 && !round.is_multiple_of(100) {
            continue;
        }
        let after = Digest::of_memory(memory, around.memory_map, exclusions)?;
        let words = (said.data..said.data + said.len).step_by(8);
        let words = words.filter_map(|at| word(&prepared, memory, PhysAddr::new(at)));
        let data = Report::digest(words);
        writeln!(CONSOLE, "round {round}: memory {after}, peer's data {data:016x}, next entry {next}");
        now.print();
        if let Some(at) = after.difference(&before) {
            wrong!("memory has changed in the 2 MiB from {at} on");
        }
        if data != said.digest {
            wrong!("the peer left data with the digest {:016x}", said.digest);
        }
        if of_frame(memory, code, 0)? != code_before {
            wrong!("the code frame has changed");
        }
    }
    writeln!(CONSOLE, "{count} rounds");
    prepared.free(memory);
    Ok(())
}

fn read(memory: &Memory, frame: Frame) -> Result<Report, Failure> {
    const { assert!(size_of::<Report>() as u64 <= PAGE_SIZE) };
    // SAFETY: any bytes are a report, and the peer, which wrote it, does not run now.
    Ok(memory.with_frame(frame, |words| unsafe { words.cast::<Report>().read_volatile() })?)
}
