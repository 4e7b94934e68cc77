//! The map before it is built: checked, and its tables counted.

use core::fmt;

use kexec_abi::{FrameAllocator, PhysMemory};

use crate::census::Census;
use crate::error::Error;
use crate::extent::{Extent, Extents};
use crate::fill;
use crate::level::{LeafSize, Level};
use crate::map::Map;
use crate::mapping::Mapping;
use crate::options::Options;

/// A request that can be fulfilled, and what that takes.
///
/// # The number of tables
///
/// Call what one entry of a table of some level covers a *slot* of that level, and a slot a *leaf slot* if one leaf could
/// map all of it: its level has leaves (PT; PD; PDPT with [`Options::giant_pages`]), every page of it is asked for with the same
/// attributes, and its physical addresses are consecutive from a multiple of its size on. Then the number of tables is
///
/// 1 (the root) + for each level from PD up to the root's: the number of slots that have a page asked for and are not leaf slots.
///
/// No tree that shares no table has fewer: a slot that has a page asked for needs a present entry, which is a leaf only if it
/// is a leaf slot, and otherwise points to a table for this slot alone; slots below a leaf are leaf slots and were not
/// counted. The builder makes no other table. (Tables could be shared between slots with equal content, when
/// one range is mapped twice; this crate does not, so that each table can be changed by itself.)
#[derive(Clone)]
#[must_use]
pub struct Plan<'a> {
    mappings: &'a [Mapping],
    options: Options,
    census: Census,
}

impl<'a> Plan<'a> {
    /// Checks the request and counts the tables and leaves of its map. Sorts `mappings` by priority and address; overlaps,
    /// neighbours and any order are fine, and planning again after adding some is.
    ///
    /// Takes O(n log n) time for n mappings, however large they are.
    ///
    /// # Errors
    ///
    /// An [`Error`] that names the option or the mappings that cannot be fulfilled.
    pub fn new(mappings: &'a mut [Mapping], options: &Options) -> Result<Self, Error> {
        options.check()?;
        for mapping in &*mappings {
            if mapping.priority >= Mapping::PRIORITIES {
                return Err(Error::Priority(*mapping));
            }
            mapping.extent(options)?;
        }
        mappings.sort_unstable_by_key(|mapping| (mapping.priority, first_page(mapping, options)));
        check_overlaps(mappings, options)?;
        let census = count(Extents::new(mappings, options), options);
        Ok(Self { mappings, options: *options, census })
    }

    /// The number of frames that [`build`](Self::build) takes, exactly: one a table.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.census.table_count()
    }

    /// The number of tables and leaves by level.
    #[must_use]
    pub const fn census(&self) -> &Census {
        &self.census
    }

    /// Builds the tables in frames from `mem`. All frames are taken before the first table is made.
    ///
    /// # Errors
    ///
    /// [`Error::OutOfFrames`], [`Error::FrameBeyondPhysBits`] or [`Error::Unreachable`]. All frames were given back then.
    pub fn build<M: PhysMemory + FrameAllocator>(&self, mem: &mut M) -> Result<Map, Error> {
        let extents = Extents::new(self.mappings, &self.options);
        let root = fill::build(extents, &self.options, self.frames(), mem)?;
        Ok(Map::new(root, self.options, self.frames()))
    }
}

impl fmt::Debug for Plan<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan")
            .field("options", &self.options)
            .field("census", &self.census)
            .finish_non_exhaustive()
    }
}

fn first_page(mapping: &Mapping, options: &Options) -> u64 {
    mapping.extent(options).map_or(0, |extent| extent.first)
}

/// Checks that sorted mappings of equal priority agree where they overlap.
fn check_overlaps(sorted: &[Mapping], options: &Options) -> Result<(), Error> {
    for layer in sorted.chunk_by(|a, b| a.priority == b.priority) {
        // All that came before and overlaps with the next one agrees with the one that reaches furthest.
        let mut furthest: Option<(&Mapping, Extent)> = None;
        for mapping in layer {
            let extent = mapping.extent(options)?;
            if extent.is_empty() {
                continue;
            }
            match furthest {
                Some((before, reach)) if extent.first < reach.end => {
                    if before.attributes != mapping.attributes || !extent.agrees_with(&reach) {
                        return Err(Error::Conflict(*before, *mapping));
                    }
                    if extent.end > reach.end {
                        furthest = Some((mapping, extent));
                    }
                }
                _ => furthest = Some((mapping, extent)),
            }
        }
    }
    Ok(())
}

/// Counts by the formula that [`Plan`] documents.
fn count(extents: Extents<'_>, options: &Options) -> Census {
    let mut census = Census::default();
    let root = Level::root(options.levels);
    census.add_table(root, 1);
    // For each level, the slot after the last one that was counted: extents ascend, so only their first slot may be known.
    let mut next_slot = [0; 5];
    for extent in extents {
        let mut in_larger_leaves = 0;
        for size in LeafSize::ALL.into_iter().rev() {
            if (size == LeafSize::Size1GiB && !options.giant_pages) || !extent.allows(size) {
                continue;
            }
            let pages = extent.filled(size.level()) * size.pages();
            census.add_leaf(size, (pages - in_larger_leaves) / size.pages());
            in_larger_leaves = pages;
        }
        for level in Level::ALL.into_iter().filter(|&level| level <= root) {
            let Some(below) = level.below() else { continue };
            let leaf_slots = match level.leaf() {
                Some(LeafSize::Size1GiB) if !options.giant_pages => 0,
                Some(size) if extent.allows(size) => extent.filled(level),
                _ => 0,
            };
            let next = &mut next_slot[level.number() - 1];
            let (first, end) = (extent.first >> level.shift(), ((extent.end - 1) >> level.shift()) + 1);
            let known = u64::from(first < *next);
            // A known slot is one that this extent shares with another, so none of its leaf slots.
            census.add_table(below, end - first - leaf_slots - known);
            *next = end;
        }
    }
    census
}
