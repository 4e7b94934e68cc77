//! The independent check of a plan: walks list and tables as the engine and the processor will, and compares with what was asked
//! for. It shares no code with the planner.

use core::fmt;

use identmap::Tables;
use kexec_abi::list::{Entries, Item, Located};
use kexec_abi::{Frame, Levels, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, Unreachable, VirtAddr};

use crate::image::Mode;
use crate::prepared::Prepared;

/// What is wrong with a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckError {
    /// A frame of the plan cannot be reached.
    Unreachable(Unreachable),
    /// The list begins with something else than a link or DONE.
    Head(u64),
    /// The list goes on past any length that it can have: it links back to itself.
    Endless,
    /// An entry fills the page at that address, which is not the next one of the image.
    WrongPage(PhysAddr),
    /// No entry fills the page at that address of the image.
    Missing(PhysAddr),
    /// An entry for zeros in a list for exchanging pages.
    ZeroInSwap(PhysAddr),
    /// A source, a frame of the list or of the tables, or a control frame lies in a destination.
    InDestination(PhysAddr),
    /// A source is a control frame.
    ControlAsSource(PhysAddr),
    /// The transition map has that address elsewhere, or with other rights than asked for.
    Map(VirtAddr),
    /// An entry of the tables does not make sense, at that address.
    Tables(VirtAddr),
}

impl fmt::Display for CheckError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(error) => error.fmt(f),
            Self::Head(entry) => {
                write!(f, "the list begins with {entry:#x}, which is neither a link nor the end")
            }
            Self::Endless => f.write_str("the list does not end"),
            Self::WrongPage(address) => write!(f, "the list fills {address} out of turn"),
            Self::Missing(address) => write!(f, "the list does not fill {address}"),
            Self::ZeroInSwap(address) => {
                write!(f, "the list has zeros for {address}, but pages are to be exchanged")
            }
            Self::InDestination(address) => {
                write!(f, "{address} is in use by the transition and lies in a destination")
            }
            Self::ControlAsSource(address) => write!(f, "the source {address} is a control frame"),
            Self::Map(virt) => write!(f, "the transition map is wrong for {virt}"),
            Self::Tables(virt) => write!(f, "the transition's tables are broken at {virt}"),
        }
    }
}

impl core::error::Error for CheckError {}

impl From<Unreachable> for CheckError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
}

/// Proves that the list fills each page of each segment once, from frames that nothing overwrites, and that the map has what
/// the transition touches.
///
/// That the allocator gave no frame twice is taken from its promise: sources are not held against each other, nor against the
/// frames of list and tables.
pub(crate) fn check<M: PhysMemory>(memory: &M, plan: &Prepared) -> Result<(), CheckError> {
    let control = [plan.frames.control, plan.frames.stack, plan.frames.outgoing, plan.frames.debug];
    for frame in control.into_iter().chain(plan.frames.roots.into_iter().flatten()) {
        outside_destinations(memory, plan, frame.range())?;
    }
    outside_destinations(memory, plan, plan.frames.code_range())?;
    check_list(memory, plan)?;
    check_map(memory, plan)
}

fn check_list<M: PhysMemory>(memory: &M, plan: &Prepared) -> Result<(), CheckError> {
    let head = plan.list.head;
    match head.decode() {
        Item::Done => {}
        Item::Indirection(frame) => outside_destinations(memory, plan, frame.range())?,
        _ => return Err(CheckError::Head(head.as_u64())),
    }
    // The pages in the order in which the list has to fill them.
    let mut segments = plan.manifest.segments(memory);
    let mut expected = segments.next().transpose()?.map(|segment| segment.destination);
    let mut cursor = PhysAddr::new(0);
    // Each page takes two entries at most, each frame of the list one more.
    let pages: u64 = plan.list.counts.moved + plan.list.counts.in_place + plan.list.counts.zero;
    let mut budget = 2 * pages + 512 * (plan.list.counts.list_frames + 1);
    for located in Entries::new(memory, head) {
        let Located { entry, .. } = located?;
        budget = budget.checked_sub(1).ok_or(CheckError::Endless)?;
        // A frame of the list that was not needed in the end.
        if entry.as_u64() == 0 {
            continue;
        }
        let (first, count, moves) = match entry.decode() {
            Item::Destination(frame) => {
                cursor = frame.start();
                continue;
            }
            Item::Indirection(frame) => {
                outside_destinations(memory, plan, frame.range())?;
                continue;
            }
            Item::Done => break,
            Item::Source { frame, pages } => {
                let source = PhysRange::from_len(frame.start(), pages * PAGE_SIZE);
                let source = source.ok_or(CheckError::WrongPage(frame.start()))?;
                outside_destinations(memory, plan, source)?;
                let mut control = plan
                    .frames
                    .data()
                    .into_iter()
                    .chain(plan.frames.roots.into_iter().flatten())
                    .map(Frame::range)
                    .chain([plan.frames.code_range()]);
                if control.any(|range| range.overlaps(&source)) {
                    return Err(CheckError::ControlAsSource(source.start));
                }
                mapped(memory, plan, tables(plan), source, |writable, _| writable)?;
                (cursor, pages, true)
            }
            Item::Zero { .. } if plan.mode == Mode::Preserve => return Err(CheckError::ZeroInSwap(cursor)),
            Item::Zero { pages } => (cursor, pages, true),
            Item::InPlace { frame, pages } => (frame.start(), pages, false),
        };
        let mut at = first;
        for _ in 0..count {
            let Some(destination) = expected.filter(|destination| destination.start == at) else {
                return Err(CheckError::WrongPage(at));
            };
            at = PhysAddr::new(at.as_u64() + PAGE_SIZE);
            expected = Some(PhysRange::new(at, destination.end));
            if at >= destination.end {
                expected = segments.next().transpose()?.map(|segment| segment.destination);
            }
        }
        if moves {
            cursor = at;
        }
    }
    match expected {
        Some(range) => Err(CheckError::Missing(range.start)),
        None => Ok(()),
    }
}

fn check_map<M: PhysMemory>(memory: &M, plan: &Prepared) -> Result<(), CheckError> {
    for segment in plan.manifest.segments(memory) {
        let destination = segment?.destination;
        mapped(memory, plan, tables(plan), destination, |writable, executable| writable && executable)?;
        if let Some(peer) = peer_tables(plan) {
            mapped(memory, plan, peer, destination, |writable, executable| writable && executable)?;
        }
    }
    let nx = plan.cpu.nx();
    mapped(memory, plan, tables(plan), plan.frames.code_range(), |writable, executable| {
        !writable && executable
    })?;
    for frame in plan.frames.data() {
        mapped(memory, plan, tables(plan), frame.range(), |writable, executable| {
            writable && executable != nx
        })?;
    }
    let tables = tables(plan);
    for (virt, frame) in
        [(plan.live.control, plan.frames.control), (plan.live.outgoing, plan.frames.outgoing)]
    {
        if tables.translate(memory, virt).frame() != Some(frame) {
            return Err(CheckError::Map(virt));
        }
    }
    Ok(())
}

fn tables(plan: &Prepared) -> Tables {
    Tables::new(plan.map.root(), plan.cpu.levels())
}

/// The tables with which a new kernel of another paging depth is entered.
fn peer_tables(plan: &Prepared) -> Option<Tables> {
    let [four, five] = plan.frames.roots?;
    let root = if plan.peer == Levels::Four { four } else { five };
    Some(Tables::new(root, plan.peer))
}

/// Whether each page of `range` is mapped at its own address, with rights that `rights(writable, executable)` accepts.
fn mapped<M: PhysMemory>(
    memory: &M,
    plan: &Prepared,
    tables: Tables,
    range: PhysRange,
    rights: impl Fn(bool, bool) -> bool,
) -> Result<(), CheckError> {
    let mut at = range.start.as_u64();
    while at < range.end.as_u64() {
        let virt = VirtAddr::new(at);
        let translation = tables.translate(memory, virt);
        for step in translation.steps() {
            outside_destinations(memory, plan, step.table.range())?;
        }
        let leaf = translation.leaf().ok_or(CheckError::Map(virt))?;
        let attributes = leaf.attributes;
        if translation.phys() != Some(PhysAddr::new(at))
            || !rights(attributes.writable, attributes.executable)
        {
            return Err(CheckError::Map(virt));
        }
        // On to the next leaf.
        at = (at | (leaf.size.bytes() - 1)) + 1;
    }
    Ok(())
}

fn outside_destinations<M: PhysMemory>(
    memory: &M,
    plan: &Prepared,
    range: PhysRange,
) -> Result<(), CheckError> {
    for segment in plan.manifest.segments(memory) {
        if segment?.destination.overlaps(&range) {
            return Err(CheckError::InDestination(range.start));
        }
    }
    Ok(())
}
