//! A prepared image: nothing is left to decide.

use kexec_abi::list::{ENTRIES_PER_FRAME, Entry, Item};
use kexec_abi::{EntryState, Frame, FrameAllocator, Levels, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange};

use crate::check::{CheckError, check};
use crate::cpu::Cpu;
use crate::image::Mode;
use crate::list::{self, Counts, List};
use crate::manifest::Manifest;
use crate::pieces::Pieces;
use crate::plan::Plan;
use crate::prepare::Live;

/// A transition that has been planned, laid out in frames, and checked.
///
/// It holds no reference: it can be kept in a static and executed from a panic handler. It owns frames, which
/// [`free`](Self::free) gives back.
#[must_use = "a prepared image owns frames: execute it or free it"]
#[derive(Debug)]
pub struct Prepared {
    pub(crate) frames: ControlFrames,
    pub(crate) live: Live,
    pub(crate) pieces: Pieces,
    pub(crate) list: List,
    pub(crate) manifest: Manifest,
    pub(crate) map: identmap::Map,
    pub(crate) mode: Mode,
    /// The paging depth of the new kernel.
    pub(crate) peer: Levels,
    pub(crate) cpu: Cpu,
    pub(crate) entry: EntryState,
}

static_assertions::assert_impl_all!(Prepared: Send, Sync);

impl Prepared {
    /// The plan, to be printed: segments, pages, tables, control frames, pieces and their labels, the transition map. A line
    /// each, as docs/plan-format.md says.
    pub const fn plan<'p, M: PhysMemory>(&'p self, memory: &'p M) -> Plan<'p, M> {
        Plan::new(self, memory)
    }

    /// How many pages are moved, in place, and zero, and how many frames the list has.
    #[must_use]
    pub const fn counts(&self) -> Counts {
        self.list.counts
    }

    /// How many frames the tables of the transition take.
    #[must_use]
    pub const fn table_frames(&self) -> u64 {
        self.map.frames()
    }

    /// The map that is in force during the transition, and when the new kernel is entered, unless that has another paging depth:
    /// then one of [`detour_tables`](Self::detour_tables) leads to the same tables.
    pub const fn map(&self) -> &identmap::Map {
        &self.map
    }

    /// The list's first entry.
    #[must_use]
    pub const fn head(&self) -> Entry {
        self.list.head
    }

    /// The frames that hold page code, readable and executable.
    #[must_use]
    pub const fn code_frames(&self) -> PhysRange {
        self.frames.code_range()
    }

    /// The control frames that hold data, readable and writable: the control block, the stack, the debug frames of the running
    /// kernel's map and of the transition's.
    #[must_use]
    pub const fn data_frames(&self) -> [Frame; 4] {
        self.frames.data()
    }

    /// The top-level tables of 4 and of 5 levels by which a detour between paging depths leads, if there is one.
    #[must_use]
    pub const fn detour_tables(&self) -> Option<[Frame; 2]> {
        self.frames.roots
    }

    /// Checks the plan again, as [`prepare`](crate::Image::prepare) did: that nothing wrote over the list and the tables.
    ///
    /// # Errors
    ///
    /// [`CheckError`], with what is wrong.
    pub fn verify<M: PhysMemory>(&self, memory: &M) -> Result<(), CheckError> {
        check(memory, self)
    }

    /// Gives all frames back, those of the image among them.
    pub fn free<M: PhysMemory + FrameAllocator>(self, memory: &mut M) {
        // The frames of the image are those that the list names. Freed while the list is read: `free` does not write them.
        let mut at = Some(self.list.head);
        while let Some(Item::Indirection(frame)) = at.map(Entry::decode) {
            at = None;
            for index in 0..ENTRIES_PER_FRAME {
                let Ok(word) = memory.read_word(frame, index) else { break };
                let entry = Entry::from(word);
                match entry.decode() {
                    Item::Source { frame, pages } | Item::InPlace { frame, pages } if word != 0 => {
                        free_run(memory, frame, pages);
                    }
                    Item::Indirection(_) => at = Some(entry),
                    _ => {}
                }
            }
        }
        list::free(memory, self.list.head);
        self.manifest.free(memory);
        // The tables were built in memory that can be reached.
        let _ = self.map.free(memory);
        self.frames.free(memory);
    }
}

fn free_run<M: FrameAllocator>(memory: &mut M, first: Frame, pages: u64) {
    (0..pages).filter_map(|page| first.checked_add(page)).for_each(|frame| memory.free(frame));
}

/// The control frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ControlFrames {
    /// The first of a run; counts where `code_frames` is not 0.
    pub(crate) code: Frame,
    pub(crate) code_frames: u64,
    pub(crate) control: Frame,
    pub(crate) stack: Frame,
    pub(crate) outgoing: Frame,
    pub(crate) debug: Frame,
    /// With a detour, the top-level tables by which it leads: of 4 levels, and of 5. Below 4 GiB, as all but `outgoing` are then.
    pub(crate) roots: Option<[Frame; 2]>,
    /// How many of the data frames have been taken, in the order in which they stand above.
    pub(crate) taken: usize,
}

impl Default for ControlFrames {
    fn default() -> Self {
        const NONE: Frame = Frame::containing(PhysAddr::new(0));
        Self {
            code: NONE,
            code_frames: 0,
            control: NONE,
            stack: NONE,
            outgoing: NONE,
            debug: NONE,
            roots: None,
            taken: 0,
        }
    }
}

impl ControlFrames {
    pub(crate) const fn code_range(&self) -> PhysRange {
        let start = self.code.start();
        PhysRange::new(start, PhysAddr::new(start.as_u64() + self.code_frames * PAGE_SIZE))
    }

    pub(crate) const fn data(&self) -> [Frame; 4] {
        [self.control, self.stack, self.outgoing, self.debug]
    }

    pub(crate) fn free<M: FrameAllocator>(&self, memory: &mut M) {
        free_run(memory, self.code, self.code_frames);
        self.data().into_iter().take(self.taken).for_each(|frame| memory.free(frame));
        self.roots.into_iter().flatten().for_each(|frame| memory.free(frame));
    }
}
