//! `map`: the map of a transition to the bundle's Linux, and what lies in it: all that a picture of it shows. Nothing of the
//! transition is done.

use core::fmt;

use hobby::boot::Boot;
use hobby::{Failure, Memory, MemoryMap};
use identmap::{Attributes, LeafSize};
use kexec_abi::list::{Entries, Item};
use kexec_abi::{PAGE_SIZE, PhysAddr, PhysRange};
use reloc::Prepared;

use super::kernels::{prepare_linux, split};
use crate::CONSOLE;
use crate::memory::Ordered;

/// `map [COMMAND LINE]`
pub fn map(boot: &mut Boot, command_line: &str) {
    let (around, memory, bundle) = split(boot);
    let prepared = prepare_linux(&around, memory, &bundle, command_line);
    print(prepared, around.memory_map, memory);
}

/// `map-moved [COMMAND LINE]`: the same from frames of which none lies where it is wanted.
pub fn map_moved(boot: &mut Boot, command_line: &str) {
    let (around, memory, bundle) = split(boot);
    let prepared = prepare_linux(&around, &mut Ordered::down(memory), &bundle, command_line);
    print(prepared, around.memory_map, memory);
}

fn print(prepared: Result<Prepared, Failure>, memory_map: &MemoryMap, memory: &mut Memory) {
    match prepared {
        Ok(prepared) => {
            write!(CONSOLE, "{}", prepared.plan(memory));
            for region in memory_map.iter() {
                writeln!(CONSOLE, "map: memory {region}");
            }
            list(&prepared, memory);
            tables(&prepared, memory);
            leaves(&prepared, memory);
            writeln!(CONSOLE, "{}", prepared.map().tables().drawing(memory));
            prepared.free(memory);
        }
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
}

/// Lines of neighbours made one: a range grows, at either end, as long as the words behind it stay the same.
struct Lines<T> {
    open: Option<(PhysRange, T)>,
}

impl<T: PartialEq + fmt::Display> Lines<T> {
    const fn new() -> Self {
        Self { open: None }
    }

    fn add(&mut self, range: PhysRange, words: T) {
        if let Some((open, same)) = &mut self.open
            && *same == words
        {
            if open.end == range.start {
                open.end = range.end;
                return;
            }
            if open.start == range.end {
                open.start = range.start;
                return;
            }
        }
        self.end();
        self.open = Some((range, words));
    }

    fn end(&mut self) {
        if let Some((range, words)) = self.open.take() {
            writeln!(CONSOLE, "map: {words} {range}");
        }
    }
}

/// Where the content of the destinations lies before, and the frames of the list.
fn list(prepared: &Prepared, memory: &Memory) {
    let mut lines = Lines::new();
    let mut frames = Lines::new();
    let entries = Entries::new(memory, prepared.head()).map_while(Result::ok);
    // 0 fills a frame that was not needed in the end.
    for located in entries.filter(|located| located.entry.as_u64() != 0) {
        let run = |frame: kexec_abi::Frame, pages| {
            PhysRange::from_len(frame.start(), pages * PAGE_SIZE).unwrap_or_default()
        };
        match located.entry.decode() {
            Item::Source { frame, pages } => lines.add(run(frame, pages), "source"),
            Item::InPlace { frame, pages } => lines.add(run(frame, pages), "in-place"),
            Item::Indirection(frame) => frames.add(frame.range(), "list"),
            _ => {}
        }
    }
    lines.end();
    frames.end();
}

/// The frames of the tables, each when the walk to a leaf first leads through it.
fn tables(prepared: &Prepared, memory: &Memory) {
    let tables = prepared.map().tables();
    let mut lines = Lines::new();
    let mut last = [None; 5];
    for leaf in tables.leaves(memory).filter_map(Result::ok) {
        let walk = tables.translate(memory, leaf.virt);
        for (step, last) in walk.steps().iter().zip(&mut last) {
            if last.replace(step.table) != Some(step.table) {
                lines.add(step.table.range(), "table");
            }
        }
    }
    lines.end();
}

/// What the leaves are, by size.
#[derive(PartialEq)]
struct Words(LeafSize, Attributes);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(size, attributes) = self;
        write!(f, "leaves {size} {attributes}")
    }
}

/// The leaves, aliases apart.
fn leaves(prepared: &Prepared, memory: &Memory) {
    let mut lines = Lines::new();
    for leaf in prepared.map().tables().leaves(memory).filter_map(Result::ok) {
        let start = leaf.frame.start();
        if start == PhysAddr::new(leaf.virt.as_u64()) {
            let range = PhysRange::from_len(start, leaf.size.bytes()).unwrap_or_default();
            lines.add(range, Words(leaf.size, leaf.attributes));
        }
    }
    lines.end();
}
