//! An image: the segments that are to stand where they belong when the new kernel is entered.

use core::fmt;

use kexec_abi::{
    Frame, FrameAllocator, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable,
};

use crate::source_map::{NodeError, SourceMap};

/// How an image is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Its pages are copied over what is there, and it is jumped to: plain kexec.
    Replace,
    /// Its pages are exchanged with what is there, and it is called: Linux's `KEXEC_PRESERVE_CONTEXT`.
    Preserve,
}

/// A slot for a segment, in memory of the caller's.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub(crate) destination: PhysRange,
    /// One past the highest byte written, from the start of the destination.
    pub(crate) content: u64,
    pub(crate) sources: SourceMap,
}

impl Segment {
    /// A slot with nothing in it.
    pub const EMPTY: Self = Self {
        destination: PhysRange::new(PhysAddr::new(0), PhysAddr::new(0)),
        content: 0,
        sources: SourceMap::EMPTY,
    };

    pub(crate) fn pages(&self) -> u64 {
        self.destination.len() / PAGE_SIZE
    }

    pub(crate) fn page_at(&self, frame: Frame) -> u64 {
        (frame.start().as_u64() - self.destination.start.as_u64()) / PAGE_SIZE
    }

    pub(crate) fn frame(&self, page: u64) -> Frame {
        Frame::containing(PhysAddr::new(self.destination.start.as_u64() + page * PAGE_SIZE))
    }
}

/// Why a segment was not added. Nothing has changed then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AddError {
    /// The destination is empty, not 4 KiB-aligned, or not below 2^52.
    BadRange(PhysRange),
    /// It overlaps a segment that is there already.
    Overlap {
        /// The new one.
        segment: PhysRange,
        /// The one that is there.
        other: PhysRange,
    },
    /// Some of it is not usable memory.
    NotUsable {
        /// The new segment.
        segment: PhysRange,
        /// The first address in it that is not usable.
        address: PhysAddr,
        /// What the memory map says is there, if anything.
        kind: Option<MemoryKind>,
    },
    /// All slots are taken; the number of them.
    TooMany(usize),
}

impl fmt::Display for AddError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadRange(range) => {
                write!(f, "segment {range} is empty, not 4 KiB-aligned, or not below 2^52")
            }
            Self::Overlap { segment, other } => write!(f, "segment {segment} overlaps segment {other}"),
            Self::NotUsable { segment, address, kind: Some(kind) } => {
                write!(f, "segment {segment} lies over memory that is not usable: {address} is {kind:?}")
            }
            Self::NotUsable { segment, address, kind: None } => {
                write!(
                    f,
                    "segment {segment} lies over memory that is not usable: {address} is in no region of the memory map"
                )
            }
            Self::TooMany(slots) => write!(f, "more segments than the {slots} slots given"),
        }
    }
}

impl core::error::Error for AddError {}

/// Why bytes were not written into an image. Those before the failing page have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WriteError {
    /// The address, of a byte that was to be written, lies in no segment.
    NoSegment(PhysAddr),
    /// No frame was left for the page at the address.
    OutOfMemory(PhysAddr),
    /// A frame that the allocator gave cannot be reached.
    Unreachable(Unreachable),
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSegment(address) => write!(f, "{address} lies in no segment of the image"),
            Self::OutOfMemory(address) => {
                write!(f, "out of memory: no frame left for the content of {address}")
            }
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for WriteError {}

impl From<Unreachable> for WriteError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
}

/// An image being loaded: segments are added and filled, in any order, then it is [prepared](Self::prepare).
///
/// It owns frames, which only a call gives back: [`prepare`](Self::prepare) or [`free`](Self::free).
#[must_use = "an image owns frames: prepare it or free it"]
#[derive(Debug)]
pub struct Image<'a> {
    pub(crate) slots: &'a mut [Segment],
    pub(crate) count: usize,
    pub(crate) memory_map: &'a [MemoryRegion],
    pub(crate) mode: Mode,
}

impl<'a> Image<'a> {
    /// An image without segments. At most `slots.len()` can be added; what the slots hold does not matter. Segments have to
    /// lie in memory that `memory_map` calls usable.
    pub fn new(slots: &'a mut [Segment], memory_map: &'a [MemoryRegion], mode: Mode) -> Self {
        Self { slots, count: 0, memory_map, mode }
    }

    /// Adds the segment that is to stand at `destination`, whole 4 KiB pages, all zero until written.
    ///
    /// # Errors
    ///
    /// [`AddError`], with what is wrong.
    pub fn add(&mut self, destination: PhysRange) -> Result<(), AddError> {
        if destination.is_empty()
            || !destination.is_aligned(PAGE_SIZE)
            || destination.end.as_u64() > kexec_abi::PHYS_ADDR_LIMIT
        {
            return Err(AddError::BadRange(destination));
        }
        if let Some(other) = self.segments().iter().find(|other| other.destination.overlaps(&destination)) {
            return Err(AddError::Overlap { segment: destination, other: other.destination });
        }
        if let Some((address, kind)) = first_not_usable(self.memory_map, destination) {
            return Err(AddError::NotUsable { segment: destination, address, kind });
        }
        if self.count == self.slots.len() {
            return Err(AddError::TooMany(self.count));
        }
        // Sorted by destination, so that a frame's segment is found by bisection.
        let at = self.segments().partition_point(|other| other.destination.start < destination.start);
        self.slots.copy_within(at..self.count, at + 1);
        self.slots[at] =
            Segment { destination, content: 0, sources: SourceMap::new(destination.len() / PAGE_SIZE) };
        self.count += 1;
        Ok(())
    }

    /// Writes `bytes` to where they are to stand from `address` on. They may cross from one segment into an adjacent one.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; the image is as good as before, and can be written again or freed.
    pub fn write<M>(&mut self, memory: &mut M, address: PhysAddr, bytes: &[u8]) -> Result<(), WriteError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let (mut address, mut bytes) = (address, bytes);
        while !bytes.is_empty() {
            let segment = self.find(address).ok_or(WriteError::NoSegment(address))?;
            let page = segment.page_at(Frame::containing(address));
            let offset = (address.as_u64() % PAGE_SIZE) as usize;
            let frame = source(segment, memory, page).map_err(|error| match error {
                NodeError::OutOfMemory => WriteError::OutOfMemory(address),
                NodeError::Unreachable(error) => WriteError::Unreachable(error),
            })?;
            let count = memory.write_bytes(frame, offset, bytes)?;
            segment.content = segment.content.max(page * PAGE_SIZE + (offset + count) as u64);
            bytes = &bytes[count..];
            // The segment ends below 2^52.
            address = PhysAddr::new(address.as_u64() + count as u64);
        }
        Ok(())
    }

    /// Gives all frames back.
    pub fn free<M: PhysMemory + FrameAllocator>(mut self, memory: &mut M) {
        self.release(memory, true);
    }

    /// Gives back the scratch, and with `sources` the frames that hold content.
    pub(crate) fn release<M: PhysMemory + FrameAllocator>(&mut self, memory: &mut M, sources: bool) {
        for segment in &mut self.slots[..self.count] {
            segment.sources.free(memory, sources);
        }
    }

    pub(crate) fn segments(&self) -> &[Segment] {
        &self.slots[..self.count]
    }

    pub(crate) fn find(&mut self, address: PhysAddr) -> Option<&mut Segment> {
        let after = self.segments().partition_point(|segment| segment.destination.start <= address);
        let segment = self.slots[..self.count].get_mut(after.checked_sub(1)?)?;
        segment.destination.contains(address).then_some(segment)
    }
}

/// The frame that holds the content of a page, a zeroed one if it had none. Where the caller's memory can give the very
/// frame of the destination, that is it, and the page never moves.
pub(crate) fn source<M>(segment: &mut Segment, memory: &mut M, page: u64) -> Result<Frame, NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    if let Some(frame) = segment.sources.get(memory, page)? {
        return Ok(frame);
    }
    let own = segment.frame(page);
    let frame =
        if memory.claim(own.range()) { own } else { memory.allocate().ok_or(NodeError::OutOfMemory)? };
    let noted = match memory.zero(frame) {
        Ok(()) => segment.sources.set(memory, page, frame),
        Err(error) => Err(error.into()),
    };
    if let Err(error) = noted {
        memory.free(frame);
        return Err(error);
    }
    Ok(frame)
}

/// The first address in `range` that is not usable by the memory map, and what is there.
fn first_not_usable(map: &[MemoryRegion], range: PhysRange) -> Option<(PhysAddr, Option<MemoryKind>)> {
    // The lowest address that another kind claims, whatever a usable region beside it says.
    let claimed = map
        .iter()
        .filter(|region| region.kind != MemoryKind::Usable && region.range.overlaps(&range))
        .map(|region| (region.range.start.max(range.start), Some(region.kind)))
        .min_by_key(|(address, _)| *address);
    let mut reached = range.start;
    while reached < range.end {
        match map.iter().find(|region| region.kind == MemoryKind::Usable && region.range.contains(reached)) {
            Some(region) => reached = region.range.end,
            None => break,
        }
    }
    let hole = (reached < range.end).then_some((reached, None));
    match (claimed, hole) {
        (Some(claimed), Some(hole)) => Some(if claimed.0 <= hole.0 { claimed } else { hole }),
        (claimed, hole) => claimed.or(hole),
    }
}
