//! Fills tables, each in one straight run from its first entry to its last.

use core::ptr::NonNull;

use kexec_abi::memory::Words;
use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory};

use crate::entry;
use crate::error::Error;
use crate::extent::{Extent, Extents};
use crate::level::{LeafSize, Level};
use crate::options::Options;

/// Builds the tables of `extents`, which take `count` frames, and returns the root.
///
/// Gives all frames back where it fails.
pub(crate) fn build<M: PhysMemory + FrameAllocator>(
    extents: Extents<'_>,
    options: &Options,
    count: u64,
    mem: &mut M,
) -> Result<Frame, Error> {
    let frames = Pool::take(count, options, mem)?;
    let mut builder = Builder { front: None, extents, options, frames, mem };
    builder.front = builder.extents.next();
    let root = Level::root(options.levels);
    let built = builder.fill(root, 0);
    // Nothing is left unless the build failed.
    builder.frames.give_back(builder.mem);
    built
}

/// Gives back the tables below the first `count` entries of `table`, and `table` itself.
pub(crate) fn free<M: PhysMemory + FrameAllocator>(
    table: Frame,
    level: Level,
    count: usize,
    options: &Options,
    mem: &mut M,
) -> Result<(), Error> {
    let mut result = Ok(());
    if let Some(below) = level.below() {
        for index in 0..count {
            match mem.read_word(table, index) {
                Ok(word) if word & entry::PRESENT != 0 && !entry::is_leaf(word, level) => {
                    let child = entry::frame(word, LeafSize::Size4KiB, options.encryption);
                    result = result.and(free(child, below, 512, options, mem));
                }
                Ok(_) => {}
                Err(unreachable) => result = result.and(Err(unreachable.into())),
            }
        }
    }
    mem.free(table);
    result
}

/// Frames that were taken and not used yet, each with the address of the next in its first word; the last has `END`.
///
/// They are all taken, and were all reached once, before the first table is made: after that a build cannot fail, unless a
/// frame stops being reachable.
struct Pool {
    head: Option<Frame>,
}

impl Pool {
    /// Not the address of a frame.
    const END: u64 = u64::MAX;

    fn take<M: PhysMemory + FrameAllocator>(
        count: u64,
        options: &Options,
        mem: &mut M,
    ) -> Result<Self, Error> {
        let mut pool = Self { head: None };
        for available in 0..count {
            let error = match mem.allocate() {
                None => Error::OutOfFrames { needed: count, available },
                Some(frame) => {
                    let next = pool.head.map_or(Self::END, |next| next.start().as_u64());
                    let linked = if frame.start().as_u64() < options.phys_limit() {
                        mem.write_word(frame, 0, next).map_err(Error::from)
                    } else {
                        Err(Error::FrameBeyondPhysBits(frame))
                    };
                    match linked {
                        Ok(()) => {
                            pool.head = Some(frame);
                            continue;
                        }
                        Err(error) => {
                            mem.free(frame);
                            error
                        }
                    }
                }
            };
            pool.give_back(mem);
            return Err(error);
        }
        Ok(pool)
    }

    /// A frame out of the pool; `None` if it is empty.
    fn pop<M: PhysMemory>(&mut self, mem: &M) -> Result<Option<Frame>, Error> {
        let Some(frame) = self.head else { return Ok(None) };
        self.head = Frame::from_start(PhysAddr::new(mem.read_word(frame, 0)?));
        Ok(Some(frame))
    }

    fn give_back<M: PhysMemory + FrameAllocator>(&mut self, mem: &mut M) {
        while let Ok(Some(frame)) = self.pop(mem) {
            mem.free(frame);
        }
    }
}

struct Builder<'a, M> {
    /// What is still to be mapped of the extent at hand.
    front: Option<Extent>,
    extents: Extents<'a>,
    options: &'a Options,
    frames: Pool,
    mem: &'a mut M,
}

/// Why filling a table stopped.
enum Stop {
    /// The table is complete.
    Complete,
    /// The entry at this index needs a table.
    NeedsTable(usize),
}

impl<M: PhysMemory + FrameAllocator> Builder<'_, M> {
    /// Makes the table of `level` whose first entry maps page `base`, and all tables below it.
    fn fill(&mut self, level: Level, base: u64) -> Result<Frame, Error> {
        let Some(table) = self.frames.pop(self.mem)? else {
            // The plan counted too few. Its tests say that this does not happen.
            return Err(Error::OutOfFrames { needed: 1, available: 0 });
        };
        let mut index = 0;
        // A table that is made, and whose entry in this one is not.
        let mut child: Option<Frame> = None;
        let error = loop {
            // One visit to the table between two of its children: memory may have to be mapped for each.
            let stop = {
                let (front, extents, options) = (&mut self.front, &mut self.extents, self.options);
                self.mem.with_frame(table, |words| {
                    let mut cursor = Cursor { words, index };
                    if let Some(child) = child.take() {
                        cursor.write(1, entry::table(child, options.table_flags, options.encryption), 0);
                    }
                    let stop = run(&mut cursor, level, base, front, extents, options);
                    index = cursor.index;
                    stop
                })
            };
            let at = match stop {
                Ok(Stop::NeedsTable(at)) => at,
                Ok(Stop::Complete) => return Ok(table),
                Err(unreachable) => break unreachable.into(),
            };
            let Some(below) = level.below() else { return Ok(table) };
            match self.fill(below, base + ((at as u64) << level.shift())) {
                Ok(made) => child = Some(made),
                Err(error) => break error,
            }
        };
        // Frames that cannot be reached here were reached before, and the error at hand says which.
        if let (Some(child), Some(below)) = (child, level.below()) {
            let _ = free(child, below, 512, self.options, self.mem);
        }
        let _ = free(table, level, index, self.options, self.mem);
        Err(error)
    }
}

/// Writes a table's entries, from the cursor on, up to the first one that needs a table.
fn run(
    cursor: &mut Cursor,
    level: Level,
    base: u64,
    front: &mut Option<Extent>,
    extents: &mut Extents<'_>,
    options: &Options,
) -> Stop {
    let shift = level.shift();
    let size = level.leaf().filter(|&size| size != LeafSize::Size1GiB || options.giant_pages);
    loop {
        let at = match front {
            Some(extent) => ((extent.first - base) >> shift).min(512) as usize,
            None => 512,
        };
        cursor.write(at - cursor.index, 0, 0);
        let (Some(extent), true) = (&mut *front, at < 512) else { return Stop::Complete };
        let Some(size) = size else { return Stop::NeedsTable(at) };
        let count = extent.leading(size).min(512 - at as u64);
        if count == 0 {
            return Stop::NeedsTable(at);
        }
        cursor.write(count as usize, entry::sized(extent.leaf, size) | (extent.frame << 12), size.bytes());
        extent.first += count << shift;
        extent.frame += count << shift;
        if extent.is_empty() {
            *front = extents.next();
        }
    }
}

/// A table that is being filled.
struct Cursor {
    words: NonNull<Words>,
    /// All entries below are written.
    index: usize,
}

impl Cursor {
    /// Writes `count` entries, as far as there is room: the first is `entry`, each next one `step` higher.
    fn write(&mut self, count: usize, entry: u64, step: u64) {
        let count = count.min(512 - self.index);
        for n in 0..count {
            // SAFETY: `index + n` is below 512, and `with_frame` gave 512 writable words, aligned.
            unsafe { self.words.cast::<u64>().add(self.index + n).write(entry + n as u64 * step) };
        }
        self.index += count;
    }
}

/// Makes the table that maps what `word`, a leaf of `size`, maps, in leaves of `level`.
pub(crate) fn split<M: PhysMemory + FrameAllocator>(
    word: u64,
    size: LeafSize,
    level: Level,
    options: &Options,
    mem: &mut M,
) -> Result<Frame, Error> {
    let Some(table) = Pool::take(1, options, mem)?.head else {
        return Err(Error::OutOfFrames { needed: 1, available: 0 });
    };
    let Some(smaller) = level.leaf() else { return Ok(table) };
    let first = entry::frame(word, size, options.encryption).start().as_u64();
    let leaf = entry::unsized_leaf(word ^ first);
    let filled = mem.with_frame(table, |words| {
        Cursor { words, index: 0 }.write(512, entry::sized(leaf, smaller) | first, smaller.bytes());
    });
    match filled {
        Ok(()) => Ok(table),
        Err(unreachable) => {
            mem.free(table);
            Err(unreachable.into())
        }
    }
}
