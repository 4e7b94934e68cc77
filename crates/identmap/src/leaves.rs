//! Iterators over a whole map.

use core::fmt;

use kexec_abi::{Frame, PAGE_SIZE, PhysAddr, PhysMemory, VirtAddr};

use crate::attributes::Attributes;
use crate::level::{LeafSize, Level};
use crate::page;
use crate::tables::{Defect, Followed, Leaf, Path, Tables};

/// The leaves of a map, in ascending order of their addresses. Made by [`Tables::leaves`].
///
/// A [`Defect`] stands for the leaves that it hides; the iterator goes on behind it.
#[derive(Clone)]
#[must_use]
pub struct Leaves<'a, M> {
    tables: Tables,
    mem: &'a M,
    /// The next page to be looked at.
    page: u64,
    /// The tables that lead there, by level, the root's last, and the level of the lowest; `None` at the end.
    open: [Option<(Frame, Path)>; 5],
    level: Option<Level>,
    visited: [u64; 5],
}

impl<'a, M: PhysMemory> Leaves<'a, M> {
    pub(crate) const fn new(tables: Tables, mem: &'a M) -> Self {
        let level = Level::root(tables.options().levels);
        let (mut open, mut visited) = ([None; 5], [0; 5]);
        open[level.number() - 1] = Some((tables.root(), Path::ROOT));
        visited[level.number() - 1] = 1;
        Self { tables, mem, page: 0, open, level: Some(level), visited }
    }

    /// The number of tables of `level` so far.
    pub(crate) const fn visited(&self, level: Level) -> u64 {
        self.visited[level.number() - 1]
    }

    /// Goes on behind the entry of `level` for the current page, in the same table or, at its end, one further up.
    fn advance(&mut self, level: Level) {
        self.page = ((self.page >> level.shift()) + 1) << level.shift();
        let root = Level::root(self.tables.options().levels);
        self.level = Level::ALL
            .into_iter()
            .filter(|up| (level..=root).contains(up))
            .find(|up| !(self.page >> up.shift()).is_multiple_of(512));
    }
}

impl<M: PhysMemory> Iterator for Leaves<'_, M> {
    type Item = Result<Leaf, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        let levels = self.tables.options().levels;
        loop {
            let level = self.level?;
            let (table, path) = self.open[level.number() - 1]?;
            let virt = page::address(self.page, levels);
            let index = (self.page >> level.shift()) % 512;
            let Ok(word) = self.mem.read_word(table, index as usize) else {
                // The whole table is skipped: what covers it is one entry of the level above.
                let defect = Defect::Unreachable { virt, level, table };
                match Level::ALL.get(level.number()) {
                    Some(&above) if above <= Level::root(levels) => self.advance(above),
                    _ => self.level = None,
                }
                return Some(Err(defect));
            };
            match self.tables.follow(word, level, &path, virt) {
                Followed::NotPresent => self.advance(level),
                Followed::Leaf(leaf) => {
                    self.advance(level);
                    return Some(Ok(leaf));
                }
                Followed::Defect(defect) => {
                    self.advance(level);
                    return Some(Err(defect));
                }
                Followed::Table { table, level: below, path } => {
                    let limit = self.tables.table_limit();
                    if self.visited.iter().sum::<u64>() >= limit {
                        self.level = None;
                        return Some(Err(Defect::TableLimit { virt, limit }));
                    }
                    self.visited[below.number() - 1] += 1;
                    self.open[below.number() - 1] = Some((table, path));
                    self.level = Some(below);
                }
            }
        }
    }
}

impl<M: PhysMemory> core::iter::FusedIterator for Leaves<'_, M> {}

/// Leaves that are neighbours, virtually and physically, and have equal attributes.
///
/// Printed as `0x0..0x9f000 rwx wb`, or `0xffff800000000000..0xffff800000001000 -> 0x200000 r-x wb`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first virtual address.
    pub virt: VirtAddr,
    /// The first physical address.
    pub phys: PhysAddr,
    /// The number of 4 KiB pages.
    pub pages: u64,
    /// The attributes.
    pub attributes: Attributes,
    /// Whether user mode may use the pages.
    pub user: bool,
    leaves: [u64; 3],
}

impl Run {
    fn of(leaf: &Leaf) -> Self {
        let mut leaves = [0; 3];
        leaves[leaf.size as usize] = 1;
        let (attributes, user) = (leaf.attributes, leaf.user);
        Self { virt: leaf.virt, phys: leaf.frame.start(), pages: leaf.size.pages(), attributes, user, leaves }
    }

    /// The number of bytes.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.pages * PAGE_SIZE
    }

    /// False: a run has at least one leaf.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        false
    }

    /// The last virtual address.
    #[must_use]
    pub const fn last(&self) -> VirtAddr {
        VirtAddr::new(self.virt.as_u64().wrapping_add(self.len() - 1))
    }

    /// Whether every address is mapped to itself.
    #[must_use]
    pub const fn is_identity(&self) -> bool {
        self.virt.as_u64() == self.phys.as_u64()
    }

    /// The number of leaves of `size`.
    #[must_use]
    pub const fn leaves(&self, size: LeafSize) -> u64 {
        self.leaves[size as usize]
    }

    /// Takes `next` in, if it goes on where this run ends.
    fn join(&mut self, next: &Self) -> bool {
        let joins = (self.attributes, self.user) == (next.attributes, next.user)
            && self.virt.checked_add(self.len()) == Some(next.virt)
            && self.phys.checked_add(self.len()) == Some(next.phys);
        if joins {
            self.pages += next.pages;
            for (mine, its) in self.leaves.iter_mut().zip(next.leaves) {
                *mine += its;
            }
        }
        joins
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One past the last address may need a 65th bit.
        write!(f, "{}..{:#x}", self.virt, u128::from(self.last().as_u64()) + 1)?;
        if !self.is_identity() {
            write!(f, " -> {}", self.phys)?;
        }
        write!(f, " {}", self.attributes)?;
        if self.user { f.write_str(" user") } else { Ok(()) }
    }
}

/// The runs of a map, in ascending order of their addresses. Made by [`Tables::runs`].
#[derive(Clone)]
#[must_use]
pub struct Runs<'a, M> {
    leaves: Leaves<'a, M>,
    /// What was read beyond the run that was given out last.
    ahead: Option<Result<Run, Defect>>,
}

impl<'a, M: PhysMemory> Runs<'a, M> {
    pub(crate) const fn new(leaves: Leaves<'a, M>) -> Self {
        Self { leaves, ahead: None }
    }

    /// The number of tables of `level` so far.
    pub(crate) const fn visited(&self, level: Level) -> u64 {
        self.leaves.visited(level)
    }

    fn read(&mut self) -> Option<Result<Run, Defect>> {
        Some(self.leaves.next()?.map(|leaf| Run::of(&leaf)))
    }
}

impl<M: PhysMemory> Iterator for Runs<'_, M> {
    type Item = Result<Run, Defect>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut run = match self.ahead.take().or_else(|| self.read())? {
            Ok(run) => run,
            Err(defect) => return Some(Err(defect)),
        };
        loop {
            self.ahead = self.read();
            match &self.ahead {
                Some(Ok(next)) if run.join(next) => {}
                _ => return Some(Ok(run)),
            }
        }
    }
}

impl<M: PhysMemory> core::iter::FusedIterator for Runs<'_, M> {}
