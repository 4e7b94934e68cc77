//! What is to be mapped, as the longest possible runs of pages in ascending order.

use crate::level::{LeafSize, Level};
use crate::mapping::Mapping;
use crate::options::Options;

/// Virtually and physically consecutive pages with equal attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    /// The first virtual page.
    pub(crate) first: u64,
    /// One past the last virtual page.
    pub(crate) end: u64,
    /// The number of the frame that `first` is mapped to.
    pub(crate) frame: u64,
    /// The bits of a leaf but its address and size.
    pub(crate) leaf: u64,
}

impl Extent {
    pub(crate) const EMPTY: Self = Self { first: 0, end: 0, frame: 0, leaf: 0 };

    pub(crate) const fn is_empty(&self) -> bool {
        self.first == self.end
    }

    /// The extent from page `first` on, a page of it.
    const fn from(self, first: u64) -> Self {
        Self { first, frame: self.frame + (first - self.first), ..self }
    }

    /// Whether both map pages to the same frames in the same way, where both map a page.
    pub(crate) const fn agrees_with(&self, other: &Self) -> bool {
        self.leaf == other.leaf
            && self.frame.wrapping_sub(self.first) == other.frame.wrapping_sub(other.first)
    }

    /// Whether virtual and physical addresses are equal modulo the size of a leaf.
    pub(crate) const fn allows(&self, size: LeafSize) -> bool {
        (self.frame ^ self.first) & (size.pages() - 1) == 0
    }

    /// The number of leaves of `size` that the extent begins with: 0 unless one may begin at its very first page.
    pub(crate) const fn leading(&self, size: LeafSize) -> u64 {
        if (self.first | self.frame) & (size.pages() - 1) == 0 {
            (self.end - self.first) >> size.level().shift()
        } else {
            0
        }
    }

    /// The number of slots of `level` (what one entry covers) that the extent fills from end to end.
    pub(crate) const fn filled(&self, level: Level) -> u64 {
        let shift = level.shift();
        (self.end >> shift).saturating_sub((self.first + (1 << shift) - 1) >> shift)
    }
}

/// The extents of mappings that have been sorted by priority and first page, and of which those of one priority agree.
#[derive(Clone)]
pub(crate) struct Extents<'a> {
    /// For each priority that occurs, in ascending order, what it still asks for.
    layers: [Layer<'a>; Mapping::PRIORITIES as usize],
    layer_count: usize,
    /// All pages below have been given out.
    position: u64,
    /// Given out by `visible` and not yet by `next`: it may go on.
    pending: Option<Extent>,
}

impl<'a> Extents<'a> {
    pub(crate) fn new(sorted: &'a [Mapping], options: &'a Options) -> Self {
        let mut layers = core::array::from_fn(|_| Layer { rest: &[], options, current: None });
        let mut layer_count = 0;
        for layer in sorted.chunk_by(|a, b| a.priority == b.priority).take(layers.len()) {
            layers[layer_count] = Layer::new(layer, options);
            layer_count += 1;
        }
        let mut extents = Self { layers, layer_count, position: 0, pending: None };
        extents.pending = extents.visible();
        extents
    }

    /// The next piece of the topmost layer there, as far as no higher layer begins.
    fn visible(&mut self) -> Option<Extent> {
        let layers = &mut self.layers[..self.layer_count];
        if let [only] = layers {
            return only.next();
        }
        let mut top: Option<Extent> = None;
        for layer in layers {
            // From the lowest to the highest: a later layer hides the earlier ones.
            let Some(extent) = layer.from(self.position) else { continue };
            match &mut top {
                Some(below) if below.first < extent.first => below.end = below.end.min(extent.first),
                _ => top = Some(extent),
            }
        }
        self.position = top?.end;
        top
    }
}

impl Iterator for Extents<'_> {
    type Item = Extent;

    fn next(&mut self) -> Option<Extent> {
        let mut extent = self.pending.take()?;
        loop {
            self.pending = self.visible();
            match self.pending {
                Some(next) if next.first == extent.end && next.agrees_with(&extent) => extent.end = next.end,
                _ => return Some(extent),
            }
        }
    }
}

/// The mappings of one priority as extents, neighbours and duplicates merged.
#[derive(Clone, Copy)]
struct Layer<'a> {
    rest: &'a [Mapping],
    options: &'a Options,
    current: Option<Extent>,
}

impl<'a> Layer<'a> {
    fn new(mappings: &'a [Mapping], options: &'a Options) -> Self {
        let mut layer = Self { rest: mappings, options, current: None };
        layer.next();
        layer
    }

    /// The part from page `position` on of the first extent that has one.
    fn from(&mut self, position: u64) -> Option<Extent> {
        while self.current?.end <= position {
            self.next();
        }
        let extent = self.current?;
        Some(if extent.first < position { extent.from(position) } else { extent })
    }

    fn next(&mut self) -> Option<Extent> {
        let given = self.current.take();
        while let Some((mapping, rest)) = self.rest.split_first() {
            let Ok(extent) = mapping.extent(self.options) else { break };
            match &mut self.current {
                _ if extent.is_empty() => {}
                None => self.current = Some(extent),
                Some(current) if extent.first <= current.end && extent.agrees_with(current) => {
                    current.end = current.end.max(extent.end);
                }
                Some(_) => break,
            }
            self.rest = rest;
        }
        given
    }
}
