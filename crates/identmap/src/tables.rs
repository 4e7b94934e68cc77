//! Reads any x86-64 page tables, also those that are in use.

use core::fmt;

use kexec_abi::{Frame, Levels, PhysAddr, PhysMemory, VirtAddr};

use crate::attributes::Attributes;
use crate::census::Census;
use crate::drawing::Drawing;
use crate::entry;
use crate::leaves::{Leaves, Runs};
use crate::level::{LeafSize, Level};
use crate::options::{Encryption, Options};
use crate::page;

/// Page tables, to be read: ours or another's, in use or not.
///
/// Nothing about them is taken for granted: an entry with reserved bits, or one that points to where memory cannot be
/// reached, is a [`Defect`] in what the call returns, and however the tables point at each other, each call ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    root: Frame,
    options: Options,
    table_limit: u64,
}

impl Tables {
    /// The number of tables that a reading of the whole map visits at most, unless set otherwise: 2^20.
    pub const TABLE_LIMIT: u64 = 1 << 20;

    /// The tables with the root table `root`, for a processor with NX, leaves of 1 GiB and 52 physical address bits.
    #[must_use]
    pub const fn new(root: Frame, levels: Levels) -> Self {
        let options = Options {
            levels,
            giant_pages: true,
            nx: true,
            phys_bits: 52,
            encryption: Encryption::Off,
            table_flags: 0,
        };
        Self::of(root, options)
    }

    /// The tables with the root table `root`, for a processor with just these features. Bits that it lacks are reserved.
    #[must_use]
    pub const fn of(root: Frame, options: Options) -> Self {
        Self { root, options, table_limit: Self::TABLE_LIMIT }
    }

    /// The same, with another limit to the number of tables that [`leaves`](Self::leaves), [`runs`](Self::runs),
    /// [`census`](Self::census) and [`drawing`](Self::drawing) visit. A table that is pointed to twice counts twice.
    #[must_use]
    pub const fn with_table_limit(self, table_limit: u64) -> Self {
        Self { table_limit, ..self }
    }

    /// The frame of the root table.
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// What the processor that the tables are for can do.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) const fn table_limit(&self) -> u64 {
        self.table_limit
    }

    /// Walks the tables as the processor does for `virt`.
    #[must_use]
    pub fn translate(&self, mem: &impl PhysMemory, virt: VirtAddr) -> Translation {
        let levels = self.options.levels;
        let mut level = Level::root(levels);
        let mut translation =
            Translation { virt, end: End::NonCanonical, steps: [Step::NONE; 5], step_count: 0 };
        if !page::is_canonical(virt.as_u64(), levels) {
            return translation;
        }
        let page = page::of(virt.as_u64(), levels);
        let mut path = Path::ROOT;
        let mut table = self.root;
        translation.end = loop {
            let index = (page >> level.shift()) % 512;
            let word = match mem.read_word(table, index as usize) {
                Ok(word) => word,
                Err(_) => break End::Defect(Defect::Unreachable { virt, level, table }),
            };
            if let Some(step) = translation.steps.get_mut(translation.step_count) {
                *step = Step { level, table, index: index as u16, entry: word };
                translation.step_count += 1;
            }
            let base = page >> level.shift() << level.shift();
            break match self.follow(word, level, &path, page::address(base, levels)) {
                Followed::NotPresent => End::NotPresent(level),
                Followed::Defect(defect) => End::Defect(defect),
                Followed::Leaf(leaf) => End::Leaf(leaf),
                Followed::Table { table: next, level: below, path: next_path } => {
                    (table, level, path) = (next, below, next_path);
                    continue;
                }
            };
        };
        translation
    }

    /// All leaves, in ascending order of their addresses.
    pub const fn leaves<'a, M: PhysMemory>(&self, mem: &'a M) -> Leaves<'a, M> {
        Leaves::new(*self, mem)
    }

    /// All leaves, in ascending order of their addresses, neighbours merged that are physically neighbours too and have
    /// equal attributes.
    pub const fn runs<'a, M: PhysMemory>(&self, mem: &'a M) -> Runs<'a, M> {
        Runs::new(self.leaves(mem))
    }

    /// The number of tables and leaves by level.
    ///
    /// # Errors
    ///
    /// The first [`Defect`], if there is one.
    pub fn census(&self, mem: &impl PhysMemory) -> Result<Census, Defect> {
        let mut leaves = self.leaves(mem);
        let mut census = Census::default();
        for leaf in &mut leaves {
            census.add_leaf(leaf?.size, 1);
        }
        for level in Level::ALL {
            census.add_table(level, leaves.visited(level));
        }
        Ok(census)
    }

    /// The map as it is printed for a person: a line a run, with its size and what it is made of, and the gaps between.
    pub const fn drawing<'a, M: PhysMemory>(&self, mem: &'a M) -> Drawing<'a, M> {
        Drawing::new(*self, mem)
    }

    /// What an entry of a table of `level` that maps from `virt` on leads to.
    pub(crate) fn follow(&self, word: u64, level: Level, path: &Path, virt: VirtAddr) -> Followed {
        let encryption = self.options.encryption;
        if word & entry::PRESENT == 0 {
            return Followed::NotPresent;
        }
        let bits = entry::reserved(word, level, &self.options);
        if bits != 0 {
            return Followed::Defect(Defect::Reserved { virt, level, entry: word, bits });
        }
        let path = path.through(word);
        let size = level.leaf().filter(|_| entry::is_leaf(word, level));
        match (size, level.below()) {
            (None, Some(below)) => Followed::Table {
                table: entry::frame(word, LeafSize::Size4KiB, encryption),
                level: below,
                path,
            },
            (Some(size), _) => Followed::Leaf(Leaf {
                virt,
                frame: entry::frame(word, size, encryption),
                size,
                attributes: Attributes {
                    writable: path.writable,
                    executable: path.executable,
                    cache: entry::cache(word, size),
                    shared: encryption.is_shared(word),
                },
                user: path.user,
                entry: word,
            }),
            // Every entry of a PT is a leaf.
            (None, None) => Followed::NotPresent,
        }
    }
}

/// What the entries of a walk allow together.
#[derive(Clone, Copy)]
pub(crate) struct Path {
    writable: bool,
    executable: bool,
    user: bool,
}

impl Path {
    pub(crate) const ROOT: Self = Self { writable: true, executable: true, user: true };

    const fn through(&self, entry: u64) -> Self {
        Self {
            writable: self.writable && entry & entry::WRITABLE != 0,
            executable: self.executable && entry & entry::NX == 0,
            user: self.user && entry & entry::USER != 0,
        }
    }
}

/// What an entry leads to.
pub(crate) enum Followed {
    NotPresent,
    Leaf(Leaf),
    Table { table: Frame, level: Level, path: Path },
    Defect(Defect),
}

/// A page of any size that is mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The first virtual address.
    pub virt: VirtAddr,
    /// The first frame.
    pub frame: Frame,
    /// The size.
    pub size: LeafSize,
    /// What the whole walk allows: what one entry forbids is forbidden.
    pub attributes: Attributes,
    /// Whether user mode may use the page.
    pub user: bool,
    /// The raw entry.
    pub entry: u64,
}

/// Where the walk for an address ends, and the entries that it read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The address that was looked up.
    pub virt: VirtAddr,
    /// Where the walk ended.
    pub end: End,
    steps: [Step; 5],
    step_count: usize,
}

impl Translation {
    /// The leaf, if the address is mapped.
    #[must_use]
    pub const fn leaf(&self) -> Option<&Leaf> {
        match &self.end {
            End::Leaf(leaf) => Some(leaf),
            _ => None,
        }
    }

    /// The physical address, if the address is mapped.
    #[must_use]
    pub fn phys(&self) -> Option<PhysAddr> {
        let leaf = self.leaf()?;
        leaf.frame.start().checked_add(self.virt.as_u64() & (leaf.size.bytes() - 1))
    }

    /// The 4 KiB frame in which the physical address lies, if the address is mapped.
    #[must_use]
    pub fn frame(&self) -> Option<Frame> {
        self.phys().map(Frame::containing)
    }

    /// The entries that the walk read, the root's first.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        self.steps.get(..self.step_count).unwrap_or(&[])
    }
}

/// An entry that a walk read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The level of the table.
    pub level: Level,
    /// The frame of the table.
    pub table: Frame,
    /// The index of the entry, 0 to 511.
    pub index: u16,
    /// The raw entry.
    pub entry: u64,
}

impl Step {
    const NONE: Self =
        Self { level: Level::Pt, table: Frame::containing(PhysAddr::new(0)), index: 0, entry: 0 };
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// The address is mapped.
    Leaf(Leaf),
    /// The entry of the table of this level is not present.
    NotPresent(Level),
    /// The tables are defective there.
    Defect(Defect),
    /// The address is not canonical; no table was read.
    NonCanonical,
}

/// What keeps tables from being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Defect {
    /// An entry has reserved bits set: the processor would raise a page fault.
    Reserved {
        /// The first address that the entry is for.
        virt: VirtAddr,
        /// The level of the table that the entry lies in.
        level: Level,
        /// The raw entry.
        entry: u64,
        /// Those of its bits that are reserved.
        bits: u64,
    },
    /// A table cannot be reached.
    Unreachable {
        /// The first address that the table is for, or the one that was looked up.
        virt: VirtAddr,
        /// The level of the table.
        level: Level,
        /// The frame of the table.
        table: Frame,
    },
    /// There are more tables than the limit that was set; what lies from this address on was not read.
    TableLimit {
        /// The first address that the next table is for.
        virt: VirtAddr,
        /// The limit.
        limit: u64,
    },
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reserved { virt, level, entry, bits } => {
                write!(f, "{virt}: the {level} entry {entry:#018x} has the reserved bits {bits:#x}")
            }
            Self::Unreachable { virt, level, table } => {
                write!(f, "{virt}: the {level} in {table} cannot be reached")
            }
            Self::TableLimit { virt, limit } => {
                write!(f, "{virt}: more than {limit} tables, no further one was read")
            }
        }
    }
}

impl core::error::Error for Defect {}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.virt)?;
        if self.virt.as_u64() != self.frame.start().as_u64() {
            write!(f, " -> {}", self.frame.start())?;
        }
        write!(f, " {} {}", self.size, self.attributes)?;
        if self.user { f.write_str(" user") } else { Ok(()) }
    }
}

/// Prints the end of the walk and a line for each entry that it read.
impl fmt::Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.end {
            End::Leaf(leaf) => {
                let offset = self.virt.as_u64() & (leaf.size.bytes() - 1);
                let phys = leaf.frame.start().as_u64() + offset;
                write!(f, "{} -> {phys:#x} {} {}", self.virt, leaf.attributes, leaf.size)?;
            }
            End::NotPresent(level) => write!(f, "{}: the {level} entry is not present", self.virt)?,
            End::Defect(defect) => write!(f, "{defect}")?,
            End::NonCanonical => write!(f, "{} is not canonical", self.virt)?,
        }
        for Step { level, table, index, entry } in self.steps() {
            write!(f, "\n  {level:<4} {:#x}[{index:>3}] {entry:#018x}", table.start())?;
        }
        Ok(())
    }
}
