//! What the maps say of the control frames: the running kernel's, and the transition's.

use core::fmt;

use hobby::{Bundle, Failure, Memory};
use identmap::{Leaf, Tables};
use kexec_abi::{Frame, MemoryKind, PAGE_SIZE, PhysAddr, PhysRange};
use kexec_exception::page_code::{DUMP, EXCEPTION};
use peers::HOSTILE;
use reloc::{Cpu, ENGINE, Options, Prepared};

use super::called::{AT, jump, page};
use super::digest::of_frame;
use super::wrong;
use crate::CONSOLE;
use crate::transition::Around;

/// The image's pages.
const PAGES: u64 = 3;

/// `return frames`
pub fn frames(around: &Around<'_>, memory: &mut Memory, _: &Bundle, _: &str) -> Result<(), Failure> {
    let mut prepared = page(around, memory, &HOSTILE, "direction", PAGES, Options::new)?;
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };
    let live = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
    let transition = prepared.map().tables();
    let seen = [
        never_both(memory, &live, &prepared, "the running kernel's map"),
        never_both(memory, &transition, &prepared, "the transition map"),
    ];
    writeln!(CONSOLE, "{} and {} leaves over control frames, none writable and executable", seen[0], seen[1]);
    let leaves = nothing_else(around, memory, &prepared);
    writeln!(CONSOLE, "{leaves} leaves of the transition map, all asked for");

    let code = Frame::containing(prepared.code_frames().start);
    let before = of_frame(memory, code, 0)?;
    for _ in 0..3 {
        jump(&mut prepared)?;
    }
    let after = of_frame(memory, code, 0)?;
    writeln!(CONSOLE, "code frame {before:016x}, after three calls {after:016x}");
    if before != after {
        wrong!("the code frame has changed");
    }
    prepared.free(memory);
    Ok(())
}

/// All control frames.
fn control(prepared: &Prepared) -> impl Iterator<Item = PhysRange> {
    prepared.data_frames().into_iter().map(Frame::range).chain([prepared.code_frames()])
}

fn physical(leaf: &Leaf) -> PhysRange {
    PhysRange::from_len(leaf.frame.start(), leaf.size.bytes()).unwrap_or_default()
}

/// How many leaves have a control frame in them; says which are writable and executable.
fn never_both(memory: &Memory, tables: &Tables, prepared: &Prepared, map: &str) -> usize {
    let leaves = tables.leaves(memory).flatten();
    let over = leaves.filter(|leaf| control(prepared).any(|range| range.overlaps(&physical(leaf))));
    over.inspect(|leaf| {
        if leaf.attributes.writable && leaf.attributes.executable {
            wrong!("in {map}, {} is {} and has a control frame", leaf.virt, leaf.attributes);
        }
    })
    .count()
}

/// How many leaves the transition map has; says which of its pages nobody asked for.
fn nothing_else(around: &Around<'_>, memory: &Memory, prepared: &Prepared) -> usize {
    let mut count = 0;
    for leaf in prepared.map().tables().leaves(memory) {
        count += 1;
        let leaf = match leaf {
            Ok(leaf) => leaf,
            Err(defect) => {
                wrong!("{defect}");
                continue;
            }
        };
        let identity = leaf.virt.as_u64() == leaf.frame.start().as_u64();
        for frame in physical(&leaf).frames() {
            let virt = leaf.virt.as_u64() + (frame.start().as_u64() - leaf.frame.start().as_u64());
            let rights =
                if identity { wanted(around, prepared, frame) } else { alias(memory, prepared, virt, frame) };
            let found = Rights { writable: leaf.attributes.writable, executable: leaf.attributes.executable };
            if rights != Some(found) {
                wrong!("{virt:#x} is mapped to {} {found}, and was asked for {rights:?}", frame.start());
            }
        }
    }
    count
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rights {
    writable: bool,
    executable: bool,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (w, x) = (if self.writable { "w" } else { "-" }, if self.executable { "x" } else { "-" });
        write!(f, "r{w}{x}")
    }
}

const RX: Rights = Rights { writable: false, executable: true };
const RW: Rights = Rights { writable: true, executable: false };
const RWX: Rights = Rights { writable: true, executable: true };

/// What is wanted of a frame at its own address (docs/architecture.md: RAM, firmware tables, destinations, low memory, control
/// frames).
fn wanted(around: &Around<'_>, prepared: &Prepared, frame: Frame) -> Option<Rights> {
    let range = frame.range();
    let destination = PhysRange::from_len(AT, PAGES * PAGE_SIZE).unwrap_or_default();
    let low = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0xa_0000));
    let of_kind = |usable: bool| {
        let regions = around.memory_map.iter().filter(move |region| region.kind.is_ram());
        let mut regions = regions.filter(move |region| !usable || region.kind == MemoryKind::Usable);
        move || regions.any(|region| region.range.round_out().overlaps(&range))
    };
    if prepared.code_frames().overlaps(&range) {
        Some(RX)
    } else if control(prepared).any(|control| control.overlaps(&range)) {
        Some(RW)
    } else if destination.overlaps(&range)
        || frame.start().as_u64() == 0
        || (low.overlaps(&range) && of_kind(true)())
    {
        Some(RWX)
    } else if of_kind(false)() || around.rsdp.is_some_and(|rsdp| rsdp.align_down(PAGE_SIZE) == frame.start())
    {
        Some(RW)
    } else {
        None
    }
}

/// What is wanted of a page elsewhere than at its own address: the running kernel's text of the pieces, and two control frames.
fn alias(memory: &Memory, prepared: &Prepared, virt: u64, frame: Frame) -> Option<Rights> {
    let offset = memory.offset.as_u64();
    let [control, _, outgoing, _] = prepared.data_frames();
    let pieces = [ENGINE.bytes(), EXCEPTION.bytes(), DUMP.bytes(), serial8250::console::PIO.bytes()];
    let text = |piece: &[u8]| {
        let range = piece.as_ptr_range();
        virt < range.end as u64 && virt + PAGE_SIZE > range.start as u64
    };
    if [control, outgoing].contains(&frame) && virt == offset + frame.start().as_u64() {
        Some(RW)
    } else if pieces.iter().any(|piece| text(piece)) {
        Some(RX)
    } else {
        None
    }
}
