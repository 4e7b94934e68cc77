//! The page list ("indirection list"): what moves where, as the engine reads it.
//!
//! An entry is a 4 KiB-aligned physical address ORed with one flag; the format is Linux's (`include/linux/kexec.h`), bit for
//! bit, with Xen's ZERO, and one extension: bits 63:52 of a SOURCE or ZERO entry hold a run length, the number of further
//! pages that follow the first. A list made for Linux has zeros there and means one page an entry.

use core::fmt;

use crate::addr::{Frame, PhysAddr};
use crate::memory::{PhysMemory, Unreachable};

bitflags::bitflags! {
    /// The flag bits of an entry. The walker tests them in the order in which they stand here.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct EntryFlags: u64 {
        /// Sets the cursor to the address.
        const DESTINATION = 1;
        /// The list goes on in the frame at the address.
        const INDIRECTION = 2;
        /// The list ends.
        const DONE = 4;
        /// The page at the address moves to the cursor, which advances by 4 KiB; so do the pages of its run.
        const SOURCE = 8;
        /// The page at the cursor is filled with zeros, and the cursor advances by 4 KiB; so for its run.
        const ZERO = 0x10;
    }
}

/// The lowest bit of the run length.
pub const RUN_SHIFT: u32 = 52;

/// The most pages that one entry moves or fills: 4096, which is 16 MiB.
pub const RUN_MAX: u64 = 1 << (64 - RUN_SHIFT);

/// Entries in a frame of the list; the last links to the next frame or ends the list.
pub const ENTRIES_PER_FRAME: usize = 512;

/// One entry of the list, 8 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(u64);

/// What an entry means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Item {
    /// Sets the cursor.
    Destination(Frame),
    /// The list goes on in that frame.
    Indirection(Frame),
    /// The list ends.
    Done,
    /// `pages` pages from `frame` on move to the cursor.
    Source {
        /// The first.
        frame: Frame,
        /// How many; 1 to [`RUN_MAX`].
        pages: u64,
    },
    /// `pages` pages at the cursor become zero.
    Zero {
        /// How many; 1 to [`RUN_MAX`].
        pages: u64,
    },
    /// No flag: nothing happens. Of an image of ours: these pages lie where they belong.
    InPlace {
        /// The first.
        frame: Frame,
        /// How many; 1 to [`RUN_MAX`].
        pages: u64,
    },
}

impl Entry {
    /// Ends the list.
    pub const DONE: Self = Self(EntryFlags::DONE.bits());

    /// Sets the cursor to `frame`.
    #[must_use]
    pub const fn destination(frame: Frame) -> Self {
        Self(frame.start().as_u64() | EntryFlags::DESTINATION.bits())
    }

    /// Continues the list in `frame`.
    #[must_use]
    pub const fn indirection(frame: Frame) -> Self {
        Self(frame.start().as_u64() | EntryFlags::INDIRECTION.bits())
    }

    /// Moves `pages` pages from `frame` on; `None` unless it is 1 to [`RUN_MAX`].
    #[must_use]
    pub const fn source(frame: Frame, pages: u64) -> Option<Self> {
        match run(pages) {
            Some(run) => Some(Self(frame.start().as_u64() | EntryFlags::SOURCE.bits() | run)),
            None => None,
        }
    }

    /// Fills `pages` pages with zeros; `None` unless it is 1 to [`RUN_MAX`].
    #[must_use]
    pub const fn zero(pages: u64) -> Option<Self> {
        match run(pages) {
            Some(run) => Some(Self(EntryFlags::ZERO.bits() | run)),
            None => None,
        }
    }

    /// Records that `pages` pages from `frame` on are in place; `None` unless it is 1 to [`RUN_MAX`].
    #[must_use]
    pub const fn in_place(frame: Frame, pages: u64) -> Option<Self> {
        match run(pages) {
            Some(run) => Some(Self(frame.start().as_u64() | run)),
            None => None,
        }
    }

    /// The entry as it lies in memory.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// What the entry means. Where more than one flag is set, the first in the walker's order counts.
    #[must_use]
    pub const fn decode(self) -> Item {
        let flags = EntryFlags::from_bits_truncate(self.0);
        let frame = Frame::containing(PhysAddr::new(self.0));
        let pages = (self.0 >> RUN_SHIFT) + 1;
        if flags.contains(EntryFlags::DESTINATION) {
            Item::Destination(frame)
        } else if flags.contains(EntryFlags::INDIRECTION) {
            Item::Indirection(frame)
        } else if flags.contains(EntryFlags::DONE) {
            Item::Done
        } else if flags.contains(EntryFlags::SOURCE) {
            Item::Source { frame, pages }
        } else if flags.contains(EntryFlags::ZERO) {
            Item::Zero { pages }
        } else {
            Item::InPlace { frame, pages }
        }
    }
}

const fn run(pages: u64) -> Option<u64> {
    if pages >= 1 && pages <= RUN_MAX { Some((pages - 1) << RUN_SHIFT) } else { None }
}

impl From<u64> for Entry {
    fn from(value: u64) -> Self {
        Self(value)
    }
}

impl From<Entry> for u64 {
    fn from(entry: Entry) -> u64 {
        entry.0
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({:#x}: {:?})", self.0, self.decode())
    }
}

/// Reads a list entry by entry, as the engine does: from the head on, through INDIRECTION, to DONE.
///
/// Yields each entry with its physical address (`None` for the head), DONE included, and then ends. A list that links back
/// to itself never ends: bound the number of entries.
#[derive(Clone, Debug)]
pub struct Entries<'m, M> {
    memory: &'m M,
    next: Option<Next>,
}

#[derive(Clone, Copy, Debug)]
enum Next {
    Head(Entry),
    At(PhysAddr),
}

/// An entry and where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The physical address of the entry; `None` for the head, which is a value of its own.
    pub at: Option<PhysAddr>,
    /// The entry.
    pub entry: Entry,
}

impl<'m, M: PhysMemory> Entries<'m, M> {
    /// The list that begins with `head`.
    pub const fn new(memory: &'m M, head: Entry) -> Self {
        Self { memory, next: Some(Next::Head(head)) }
    }
}

impl<M: PhysMemory> Iterator for Entries<'_, M> {
    type Item = Result<Located, Unreachable>;

    fn next(&mut self) -> Option<Self::Item> {
        let (located, following) = match self.next? {
            // A head that is no link ends the list, whatever it does: there is no memory to read on from.
            Next::Head(entry) => (Located { at: None, entry }, None),
            Next::At(address) => {
                let index = (address.as_u64() % 4096 / 8) as usize;
                match self.memory.read_word(Frame::containing(address), index) {
                    Ok(word) => (Located { at: Some(address), entry: Entry(word) }, address.checked_add(8)),
                    Err(error) => {
                        self.next = None;
                        return Some(Err(error));
                    }
                }
            }
        };
        self.next = match located.entry.decode() {
            Item::Indirection(frame) => Some(Next::At(frame.start())),
            Item::Done => None,
            _ => following.map(Next::At),
        };
        Some(Ok(located))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame() -> impl Strategy<Value = Frame> {
        (0_u64..1 << 40).prop_map(|number| Frame::containing(PhysAddr::new(number << 12)))
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frame in frame(), pages in 1..=RUN_MAX) {
            prop_assert_eq!(Entry::destination(frame).decode(), Item::Destination(frame));
            prop_assert_eq!(Entry::indirection(frame).decode(), Item::Indirection(frame));
            prop_assert_eq!(Entry::source(frame, pages).map(Entry::decode), Some(Item::Source { frame, pages }));
            prop_assert_eq!(Entry::in_place(frame, pages).map(Entry::decode), Some(Item::InPlace { frame, pages }));
            prop_assert_eq!(Entry::zero(pages).map(Entry::decode), Some(Item::Zero { pages }));
        }

        #[test]
        fn an_entry_made_for_linux_means_one_page(frame in frame()) {
            // include/linux/kexec.h: IND_SOURCE is 8.
            let entry = Entry::from(frame.start().as_u64() | 8);
            prop_assert_eq!(entry.decode(), Item::Source { frame, pages: 1 });
        }
    }

    #[test]
    fn flags_are_tested_in_linux_order() {
        assert!(matches!(Entry::from(0x1f).decode(), Item::Destination(_)));
        assert!(matches!(Entry::from(0x1e).decode(), Item::Indirection(_)));
        assert_eq!(Entry::from(0x1c).decode(), Item::Done);
        assert!(matches!(Entry::from(0x18).decode(), Item::Source { .. }));
        assert!(matches!(Entry::from(0x1000).decode(), Item::InPlace { pages: 1, .. }));
    }

    #[test]
    fn a_run_of_no_page_or_too_many_is_refused() {
        let frame = Frame::containing(PhysAddr::new(0x1000));
        assert_eq!(Entry::source(frame, 0), None);
        assert_eq!(Entry::source(frame, RUN_MAX + 1), None);
        assert_eq!(Entry::zero(0), None);
    }
}
