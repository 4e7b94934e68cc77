//! A map that has been built.

use kexec_abi::{Frame, FrameAllocator, Levels, PAGE_SIZE, PhysMemory, VirtAddr};

use crate::attributes::Attributes;
use crate::entry;
use crate::error::Error;
use crate::fill;
use crate::level::{LeafSize, Level};
use crate::options::Options;
use crate::page;
use crate::tables::Tables;

/// Tables that [`Plan::build`](crate::Plan::build) made. Their frames stay taken until [`free`](Self::free).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "its frames are lost unless it is loaded or freed"]
pub struct Map {
    root: Frame,
    options: Options,
    frames: u64,
}

impl Map {
    pub(crate) const fn new(root: Frame, options: Options, frames: u64) -> Self {
        Self { root, options, frames }
    }

    /// The frame of the root table.
    #[must_use]
    pub const fn root(&self) -> Frame {
        self.root
    }

    /// The value of CR3 that loads the map: the root's address, with the encryption bit that it needs.
    #[must_use]
    pub const fn cr3(&self) -> u64 {
        self.root.start().as_u64() | self.options.encryption.bits(false)
    }

    /// The paging depth.
    #[must_use]
    pub const fn levels(&self) -> Levels {
        self.options.levels
    }

    /// The number of frames that the tables take.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }

    /// The map, to be read.
    #[must_use]
    pub const fn tables(&self) -> Tables {
        Tables::of(self.root, self.options)
    }

    /// Gives the table frames themselves `attributes`, wherever the map has them at their own address.
    ///
    /// Which frames the tables are in is known only when they are; so this splits the leaves that hold them, which may take
    /// further frames, which are protected too. Few, if the allocator gives frames that lie close together: at most one for
    /// each 2 MiB (and 1 GiB) that has a table in it.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfFrames`] for the first further frame that is not there, [`Error::Unreachable`]. The map is
    /// complete then, but some tables have the attributes that they had.
    pub fn protect_tables<M: PhysMemory + FrameAllocator>(
        &mut self,
        attributes: Attributes,
        mem: &mut M,
    ) -> Result<(), Error> {
        loop {
            let before = self.frames;
            self.protect_tables_of(self.root, Level::root(self.levels()), attributes, mem)?;
            // A further table may lie below one that had been passed already. Each pass but the last splits a leaf, so
            // there is a last.
            if self.frames == before {
                return Ok(());
            }
        }
    }

    fn protect_tables_of<M: PhysMemory + FrameAllocator>(
        &mut self,
        table: Frame,
        level: Level,
        attributes: Attributes,
        mem: &mut M,
    ) -> Result<(), Error> {
        let virt = VirtAddr::new(table.start().as_u64());
        match self.set_page(virt, Some(table), attributes, mem) {
            Ok(()) | Err(Error::NotMapped(_)) => {}
            Err(error) => return Err(error),
        }
        let Some(below) = level.below() else { return Ok(()) };
        for index in 0..512 {
            let word = mem.read_word(table, index)?;
            if word & entry::PRESENT != 0 && !entry::is_leaf(word, level) {
                let child = entry::frame(word, LeafSize::Size4KiB, self.options.encryption);
                self.protect_tables_of(child, below, attributes, mem)?;
            }
        }
        Ok(())
    }

    /// Gives the 4 KiB page at `virt` other attributes, and splits the leaf that it lies in where that is larger. Where the
    /// map is in use, the caller flushes the page from the TLB.
    ///
    /// The tables may then be more than the fewest: leaves are never joined.
    ///
    /// # Errors
    ///
    /// [`Error::NotMapped`], [`Error::OutOfFrames`], [`Error::FrameBeyondPhysBits`] or [`Error::Unreachable`]; the map maps
    /// what it mapped then.
    pub fn protect<M: PhysMemory + FrameAllocator>(
        &mut self,
        virt: VirtAddr,
        attributes: Attributes,
        mem: &mut M,
    ) -> Result<(), Error> {
        self.set_page(virt, None, attributes, mem)
    }

    /// As [`protect`](Self::protect), if the page is mapped to `frame`, or to any for `None`.
    fn set_page<M: PhysMemory + FrameAllocator>(
        &mut self,
        virt: VirtAddr,
        frame: Option<Frame>,
        attributes: Attributes,
        mem: &mut M,
    ) -> Result<(), Error> {
        let Options { levels, nx, encryption, .. } = self.options;
        if !page::is_canonical(virt.as_u64(), levels) {
            return Err(Error::NotMapped(virt));
        }
        let page = page::of(virt.as_u64(), levels);
        let leaf = entry::leaf(attributes, nx, encryption);
        let (mut table, mut level) = (self.root, Level::root(levels));
        loop {
            let index = (page >> level.shift()) as usize % 512;
            let word = mem.read_word(table, index)?;
            if word & entry::PRESENT == 0 {
                return Err(Error::NotMapped(virt));
            }
            let size = level.leaf().filter(|_| entry::is_leaf(word, level));
            match (size, level.below()) {
                (None, Some(below)) => {
                    (table, level) = (entry::frame(word, LeafSize::Size4KiB, encryption), below);
                }
                (Some(size), below) => {
                    let first = entry::frame(word, size, encryption).start().as_u64();
                    let mapped = first + (page % size.pages()) * PAGE_SIZE;
                    if frame.is_some_and(|frame| frame.start().as_u64() != mapped) {
                        return Err(Error::NotMapped(virt));
                    }
                    if word == entry::sized(leaf, size) | first {
                        return Ok(());
                    }
                    let Some(below) = below else {
                        return Ok(mem.write_word(table, index, leaf | mapped)?);
                    };
                    let split = fill::split(word, size, below, &self.options, mem)?;
                    let entry = entry::table(split, self.options.table_flags, encryption);
                    if let Err(unreachable) = mem.write_word(table, index, entry) {
                        mem.free(split);
                        return Err(unreachable.into());
                    }
                    self.frames += 1;
                }
                (None, None) => return Err(Error::NotMapped(virt)),
            }
        }
    }

    /// Gives all table frames back to the allocator that they came from. The map must not be in use.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] for a table that can no longer be reached; all others were given back.
    pub fn free<M: PhysMemory + FrameAllocator>(self, mem: &mut M) -> Result<(), Error> {
        fill::free(self.root, Level::root(self.levels()), 512, &self.options, mem)
    }
}
