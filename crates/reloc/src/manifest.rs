//! The segments of a prepared image, kept in frames: its printed plan names them, and the check compares the list with them.

use kexec_abi::list::ENTRIES_PER_FRAME;
use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, PhysRange, Unreachable};

use crate::settle::Outside;
use crate::source_map::NodeError;

/// A segment, as the plan knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlannedSegment {
    /// Where it stands.
    pub(crate) destination: PhysRange,
    /// Bytes from its start to the last one that was written; the rest is zero.
    pub(crate) content: u64,
}

/// Words of a record: start, end, content.
const RECORD: usize = 3;
/// Records in a frame.
const RECORDS: usize = (ENTRIES_PER_FRAME - 1) / RECORD;
/// The word that links to the next frame.
const LINK: usize = ENTRIES_PER_FRAME - 1;
/// No frame follows: no frame has this address.
const LAST: u64 = 1;

/// The records of all segments, in ascending order.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Manifest {
    first: Option<Frame>,
    count: usize,
}

impl Manifest {
    /// Writes the records of an image, in frames that lie in no destination. On an error no frame is kept.
    pub(crate) fn write<M>(outside: &mut Outside<'_, '_, M>) -> Result<Self, NodeError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let mut manifest = Self::default();
        let result = manifest.write_records(outside);
        if result.is_err() {
            manifest.free(outside);
        }
        result.map(|()| manifest)
    }

    fn write_records<M>(&mut self, outside: &mut Outside<'_, '_, M>) -> Result<(), NodeError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let mut last: Option<Frame> = None;
        for number in 0..outside.image.count {
            let at = number % RECORDS;
            let frame = match last {
                Some(frame) if at != 0 => frame,
                previous => {
                    let frame = outside.allocate().ok_or(NodeError::OutOfMemory)?;
                    let linked = outside.write_word(frame, LINK, LAST).and_then(|()| match previous {
                        Some(previous) => outside.write_word(previous, LINK, frame.start().as_u64()),
                        None => Ok(()),
                    });
                    if let Err(error) = linked {
                        outside.free(frame);
                        return Err(error.into());
                    }
                    self.first = self.first.or(Some(frame));
                    frame
                }
            };
            last = Some(frame);
            let segment = &outside.image.segments()[number];
            let record =
                [segment.destination.start.as_u64(), segment.destination.end.as_u64(), segment.content];
            for (offset, word) in record.into_iter().enumerate() {
                outside.write_word(frame, at * RECORD + offset, word)?;
            }
            self.count = number + 1;
        }
        Ok(())
    }

    /// The segments, in ascending order.
    pub(crate) fn segments<'m, M: PhysMemory>(
        &self,
        memory: &'m M,
    ) -> impl Iterator<Item = Result<PlannedSegment, Unreachable>> + use<'m, M> {
        let (mut frame, count) = (self.first, self.count);
        (0..count).map_while(move |number| {
            let at = number % RECORDS;
            if number != 0 && at == 0 {
                frame = match next(memory, frame?) {
                    Ok(next) => next,
                    Err(error) => return Some(Err(error)),
                };
            }
            let frame = frame?;
            let word = |offset| memory.read_word(frame, at * RECORD + offset);
            Some((|| {
                let destination = PhysRange::new(PhysAddr::new(word(0)?), PhysAddr::new(word(1)?));
                Ok(PlannedSegment { destination, content: word(2)? })
            })())
        })
    }

    pub(crate) fn free<M: PhysMemory + FrameAllocator>(&self, memory: &mut M) {
        let mut frame = self.first;
        while let Some(this) = frame {
            frame = next(memory, this).ok().flatten();
            memory.free(this);
        }
    }
}

fn next<M: PhysMemory>(memory: &M, frame: Frame) -> Result<Option<Frame>, Unreachable> {
    Ok(Frame::from_start(PhysAddr::new(memory.read_word(frame, LINK)?)))
}
