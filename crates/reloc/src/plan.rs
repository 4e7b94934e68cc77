//! A plan in print: what moves where, and what lies where. `kexec-decode` reads it.

use core::fmt;

use kexec_abi::PhysMemory;

use crate::image::Mode;
use crate::prepared::Prepared;

/// The format's version: a change that a reader would misread raises it.
const VERSION: u32 = 1;

/// A [`Prepared`] image's plan; `Display` prints it, a line a fact, each beginning with `plan: `. docs/plan-format.md
/// describes it.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'p, M> {
    prepared: &'p Prepared,
    memory: &'p M,
}

impl<'p, M: PhysMemory> Plan<'p, M> {
    pub(crate) const fn new(prepared: &'p Prepared, memory: &'p M) -> Self {
        Self { prepared, memory }
    }
}

impl<M: PhysMemory> fmt::Display for Plan<'_, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Prepared { frames, pieces, list, map, mode, entry, manifest, peer, .. } = self.prepared;
        writeln!(f, "plan: version {VERSION}")?;
        let mode = match mode {
            Mode::Replace => "copy",
            Mode::Preserve => "swap",
        };
        writeln!(f, "plan: mode {mode}  levels {}  entry {}", peer.count(), entry.rip)?;
        for segment in manifest.segments(self.memory) {
            match segment {
                Ok(segment) => {
                    writeln!(
                        f,
                        "plan: segment {} content {:#x} bytes",
                        segment.destination, segment.content
                    )?;
                }
                Err(error) => writeln!(f, "plan: segments: {error}")?,
            }
        }
        let counts = list.counts;
        writeln!(f, "plan: pages moved {} in-place {} zero {}", counts.moved, counts.in_place, counts.zero)?;
        writeln!(f, "plan: list head {:#x} frames {}", list.head.as_u64(), counts.list_frames)?;
        writeln!(f, "plan: tables root {} frames {}", map.root().start(), map.frames())?;
        for frame in frames.code_range().frames() {
            writeln!(f, "plan: frame {} r-x code", frame.start())?;
        }
        for (frame, name) in [
            (frames.control, "control"),
            (frames.stack, "stack"),
            (frames.outgoing, "debug-outgoing"),
            (frames.debug, "debug"),
        ] {
            writeln!(f, "plan: frame {} rw- {name}", frame.start())?;
        }
        for (frame, name) in frames.roots.iter().flatten().zip(["root-4-levels", "root-5-levels"]) {
            writeln!(f, "plan: frame {} rw- {name}", frame.start())?;
        }
        for piece in pieces.iter() {
            let start = frames.code.start().as_u64() + piece.offset;
            let name = piece.code.name();
            writeln!(f, "plan: piece {start:#x}..{:#x} {name}", start + piece.code.used() as u64)?;
            for label in piece.code.regions() {
                let (from, to) = (start + label.start as u64, start + label.end as u64);
                writeln!(f, "plan: label {from:#x}..{to:#x} {name} {}", label.name)?;
            }
        }
        for run in map.tables().runs(self.memory) {
            match run {
                Ok(run) if run.is_identity() => {
                    let end = run.virt.as_u64() + run.len();
                    writeln!(f, "plan: map {}..{end:#x} {}", run.virt, run.attributes)?;
                }
                Ok(run) => {
                    let end = run.virt.as_u64().wrapping_add(run.len());
                    writeln!(f, "plan: alias {}..{end:#x} -> {} {}", run.virt, run.phys, run.attributes)?;
                }
                Err(defect) => writeln!(f, "plan: map: {defect}")?,
            }
        }
        writeln!(f, "plan: end")
    }
}
