//! Writes the page list of a settled image.

use kexec_abi::list::{ENTRIES_PER_FRAME, Entry, Item, RUN_MAX};
use kexec_abi::{Frame, FrameAllocator, PhysMemory, Unreachable};

use crate::image::Image;
use crate::settle::Outside;
use crate::source_map::NodeError;

/// Entries that carry something; the last of a frame links to the next one or ends the list.
const PAYLOAD: u64 = ENTRIES_PER_FRAME as u64 - 1;

/// A list in memory.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct List {
    pub(crate) head: Entry,
    pub(crate) counts: Counts,
}

/// How many pages an image has, by what happens to them, and how many frames its list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Pages that are copied or exchanged.
    pub moved: u64,
    /// Pages that were loaded where they belong.
    pub in_place: u64,
    /// Pages that are filled with zeros.
    pub zero: u64,
    /// Frames of the list.
    pub list_frames: u64,
}

/// What happens to a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Page {
    Moved(Frame),
    InPlace(Frame),
    Zero,
}

impl Page {
    /// The same for the page `count` pages on in a run.
    fn advanced(self, count: u64) -> Option<Self> {
        Some(match self {
            Self::Moved(frame) => Self::Moved(frame.checked_add(count)?),
            Self::InPlace(frame) => Self::InPlace(frame.checked_add(count)?),
            Self::Zero => Self::Zero,
        })
    }
}

/// Calls `put` with each entry of the list, DONE left out.
fn entries<M: PhysMemory>(
    image: &Image<'_>,
    memory: &mut M,
    counts: &mut Counts,
    mut put: impl FnMut(&mut M, Entry) -> Result<(), Unreachable>,
) -> Result<(), Unreachable> {
    for segment in image.segments() {
        let page = |memory: &M, number| -> Result<Page, Unreachable> {
            Ok(match segment.sources.get(memory, number)? {
                Some(frame) if frame == segment.frame(number) => Page::InPlace(frame),
                Some(frame) => Page::Moved(frame),
                None => Page::Zero,
            })
        };
        let pages = segment.pages();
        let mut number = 0;
        // Where the cursor stands, as a page of this segment.
        let mut cursor = None;
        let mut first = page(memory, 0)?;
        while number < pages {
            let mut run = 1;
            let mut next = first;
            while number + run < pages {
                next = page(memory, number + run)?;
                if run == RUN_MAX || first.advanced(run) != Some(next) {
                    break;
                }
                run += 1;
            }
            if !matches!(first, Page::InPlace(_)) && cursor != Some(number) {
                put(memory, Entry::destination(segment.frame(number)))?;
            }
            let entry = match first {
                Page::Moved(frame) => {
                    counts.moved += run;
                    Entry::source(frame, run)
                }
                Page::InPlace(frame) => {
                    counts.in_place += run;
                    Entry::in_place(frame, run)
                }
                Page::Zero => {
                    counts.zero += run;
                    Entry::zero(run)
                }
            };
            // A run is 1 to RUN_MAX pages by the loop above.
            put(memory, entry.unwrap_or_default())?;
            number += run;
            if !matches!(first, Page::InPlace(_)) {
                cursor = Some(number);
            }
            first = next;
        }
    }
    Ok(())
}

/// Writes the list, in frames that lie in no destination.
///
/// To take such a frame may put one more page of the image in place, which changes the list: so all frames are taken before
/// the first entry is written, and counted again after. On an error no frame is kept.
pub(crate) fn write<M>(outside: &mut Outside<'_, '_, M>) -> Result<List, NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    // The frames taken, each linked to the one taken before by its last word.
    let mut taken = Entry::DONE;
    let mut frames = 0;
    let result = take_and_write(outside, &mut taken, &mut frames);
    if result.is_err() {
        free(outside, taken);
    }
    result
}

fn take_and_write<M>(
    outside: &mut Outside<'_, '_, M>,
    taken: &mut Entry,
    frames: &mut u64,
) -> Result<List, NodeError>
where
    M: PhysMemory + FrameAllocator,
{
    loop {
        let mut needed = 0;
        entries(outside.image, outside.memory, &mut Counts::default(), |_, _| {
            needed += 1;
            Ok(())
        })?;
        let needed = u64::div_ceil(needed, PAYLOAD);
        if *frames >= needed {
            break;
        }
        while *frames < needed {
            let frame = outside.allocate().ok_or(NodeError::OutOfMemory)?;
            let linked = match outside.zero(frame) {
                Ok(()) => outside.write_word(frame, ENTRIES_PER_FRAME - 1, taken.as_u64()),
                Err(error) => Err(error),
            };
            if let Err(error) = linked {
                outside.free(frame);
                return Err(error.into());
            }
            *taken = Entry::indirection(frame);
            *frames += 1;
        }
    }

    // The links made on taking are those of the list; entries left over stay zero, which the walker skips.
    let mut counts = Counts { list_frames: *frames, ..Counts::default() };
    let (mut link, mut place) = (*taken, None);
    entries(outside.image, outside.memory, &mut counts, |memory, entry| {
        let (frame, index) = match (place, link.decode()) {
            (Some((frame, index)), _) if index < ENTRIES_PER_FRAME - 1 => (frame, index),
            (_, Item::Indirection(frame)) => {
                link = Entry::from(memory.read_word(frame, ENTRIES_PER_FRAME - 1)?);
                (frame, 0)
            }
            // There are as many frames as the entries need.
            _ => return Ok(()),
        };
        place = Some((frame, index + 1));
        memory.write_word(frame, index, entry.as_u64())
    })?;
    Ok(List { head: *taken, counts })
}

/// Gives back the frames of a list.
pub(crate) fn free<M: PhysMemory + FrameAllocator>(memory: &mut M, head: Entry) {
    let mut head = head;
    while let Item::Indirection(frame) = head.decode() {
        head = memory.read_word(frame, ENTRIES_PER_FRAME - 1).map(Entry::from).unwrap_or(Entry::DONE);
        memory.free(frame);
    }
}
