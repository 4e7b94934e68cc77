//! Frames and destinations: a frame that lies in a destination is used for just that destination.
//!
//! What holds the content of one page may lie where another page is to stand. [`settle`] exchanges contents until no source lies
//! in a destination but its own; [`Outside`] then gives frames that lie in none. Each step puts one more page in place for
//! good, so both are linear in the number of pages, whatever the allocator hands out.

use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

use crate::image::{Image, source};
use crate::source_map::NodeError;

/// Gives each page of the image its content's frame where there has to be one, and brings what lies in destinations home.
pub(crate) fn settle<M>(image: &mut Image<'_>, memory: &mut M, fill: bool) -> Result<(), NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    for at in 0..image.count {
        for page in 0..image.slots[at].pages() {
            if fill {
                source(&mut image.slots[at], memory, page)?;
            } else {
                claim(image, memory, at, page)?;
            }
        }
    }
    for at in 0..image.count {
        for page in 0..image.slots[at].pages() {
            bring_home(image, memory, at, page)?;
        }
    }
    Ok(())
}

/// A page without content becomes a zeroed frame in place, if the caller's memory has just that one.
fn claim<M>(image: &mut Image<'_>, memory: &mut M, at: usize, page: u64) -> Result<(), NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    let segment = &mut image.slots[at];
    let own = segment.frame(page);
    if segment.sources.get(memory, page)?.is_some() || !memory.claim(own.range()) {
        return Ok(());
    }
    adopt(image, memory, own, None).map(|_| ())
}

/// Exchanges contents until the page's source lies in its own frame or outside all destinations.
fn bring_home<M>(image: &mut Image<'_>, memory: &mut M, at: usize, page: u64) -> Result<(), NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    loop {
        let segment = &image.slots[at];
        let own = segment.frame(page);
        let Some(source) = segment.sources.get(memory, page)? else { return Ok(()) };
        if source == own {
            return Ok(());
        }
        let Some(there) = image.find(source.start()) else { return Ok(()) };
        let other = there.page_at(source);
        match there.sources.get(memory, other)? {
            Some(others) => {
                memory.swap(source, others)?;
                there.sources.set(memory, other, source)?;
                image.slots[at].sources.set(memory, page, others)?;
            }
            None => {
                let fresh = memory.allocate().ok_or(NodeError::OutOfMemory)?;
                // The frame changes hands before it is noted, so that a failure loses none of the two.
                let moved = match memory.copy(source, fresh) {
                    Ok(()) => image.slots[at].sources.set(memory, page, fresh),
                    Err(error) => Err(error.into()),
                };
                if let Err(error) = moved {
                    memory.free(fresh);
                    return Err(error);
                }
                adopt(image, memory, source, None)?;
            }
        }
    }
}

/// Puts `frame`, which nobody uses and which lies in a destination, in its place there: with the content of the page's
/// source, which is returned, or zeroed.
fn adopt<M>(
    image: &mut Image<'_>,
    memory: &mut M,
    frame: Frame,
    source: Option<Frame>,
) -> Result<Option<Frame>, NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    let placed = match source {
        Some(source) => memory.copy(source, frame),
        None => memory.zero(frame),
    };
    let noted = match (placed, image.find(frame.start())) {
        (Ok(()), Some(segment)) => {
            let page = segment.page_at(frame);
            segment.sources.set(memory, page, frame)
        }
        (Ok(()), None) => Ok(()),
        (Err(error), _) => Err(error.into()),
    };
    match noted {
        Ok(()) => Ok(source),
        Err(error) => {
            memory.free(frame);
            Err(error)
        }
    }
}

/// The caller's memory, but for frames in destinations: those become the pages that belong there.
pub(crate) struct Outside<'i, 'a, M> {
    pub(crate) image: &'i mut Image<'a>,
    pub(crate) memory: &'i mut M,
}

// SAFETY: what it gives is what the caller's memory gave, or a source that has just been emptied into its place.
unsafe impl<M: PhysMemory + FrameAllocator> FrameAllocator for Outside<'_, '_, M> {
    fn allocate(&mut self) -> Option<Frame> {
        loop {
            let frame = self.memory.allocate()?;
            let Some(segment) = self.image.find(frame.start()) else { return Some(frame) };
            let page = segment.page_at(frame);
            let Ok(source) = segment.sources.get(self.memory, page) else {
                self.memory.free(frame);
                return None;
            };
            if let Some(freed) = adopt(self.image, self.memory, frame, source).ok()? {
                return Some(freed);
            }
        }
    }

    fn free(&mut self, frame: Frame) {
        self.memory.free(frame);
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        loop {
            let first = self.memory.allocate_run(count, below)?;
            let run = PhysRange::from_len(first.start(), count * kexec_abi::PAGE_SIZE)?;
            if !self.image.segments().iter().any(|segment| segment.destination.overlaps(&run)) {
                return Some(first);
            }
            // A turn that puts a page of the image in place is not repeated for ever; one that does not is the last.
            let mut placed = false;
            for frame in run.frames() {
                let source = match self.image.find(frame.start()) {
                    Some(segment) => segment.sources.get(self.memory, segment.page_at(frame)),
                    None => {
                        self.memory.free(frame);
                        continue;
                    }
                };
                match source.map(|source| adopt(self.image, self.memory, frame, source)) {
                    Ok(Ok(freed)) => {
                        placed = true;
                        if let Some(freed) = freed {
                            self.memory.free(freed);
                        }
                    }
                    // `adopt` has given the frame back.
                    Ok(Err(_)) => {}
                    Err(_) => self.memory.free(frame),
                }
            }
            if !placed {
                return None;
            }
        }
    }
}

// SAFETY: it is the caller's memory.
unsafe impl<M: PhysMemory> PhysMemory for Outside<'_, '_, M> {
    fn with_frame<R>(
        &self,
        frame: Frame,
        f: impl FnOnce(core::ptr::NonNull<kexec_abi::memory::Words>) -> R,
    ) -> Result<R, Unreachable> {
        self.memory.with_frame(frame, f)
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.memory.pin(frame)
    }
}
