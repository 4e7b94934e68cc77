//! Which frame holds the content of which page of a segment: a radix tree of frames, 512 words each.
//!
//! Scratch of an [`Image`](crate::Image): it is given back when the list has been written.

use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, Unreachable};

/// Set in a word that names a frame, since that may be frame 0.
const PRESENT: u64 = 1;

/// Index bits of one level.
const BITS: u32 = 9;

/// Why a page's frame could not be noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeError {
    OutOfMemory,
    Unreachable(Unreachable),
}

impl From<Unreachable> for NodeError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
}

/// A sparse array of frames. A word without [`PRESENT`] is no frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct SourceMap {
    root: Option<Frame>,
    height: u32,
}

impl SourceMap {
    /// A map for the pages 0 to `pages - 1`. Takes no memory yet.
    pub(crate) const fn new(pages: u64) -> Self {
        let bits = u64::BITS - pages.saturating_sub(1).leading_zeros();
        let height = bits.div_ceil(BITS);
        Self { root: None, height: if height == 0 { 1 } else { height } }
    }

    /// An empty map of no page.
    pub(crate) const EMPTY: Self = Self { root: None, height: 1 };

    pub(crate) fn get<M: PhysMemory>(&self, memory: &M, page: u64) -> Result<Option<Frame>, Unreachable> {
        let Some(mut node) = self.root else { return Ok(None) };
        for level in (0..self.height).rev() {
            match decode(memory.read_word(node, index(page, level))?) {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    pub(crate) fn set<M>(&mut self, memory: &mut M, page: u64, frame: Frame) -> Result<(), NodeError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let mut node = match self.root {
            Some(root) => root,
            None => {
                let root = new_node(memory)?;
                self.root = Some(root);
                root
            }
        };
        for level in (1..self.height).rev() {
            let at = index(page, level);
            node = match decode(memory.read_word(node, at)?) {
                Some(next) => next,
                None => {
                    let next = new_node(memory)?;
                    memory.write_word(node, at, encode(next))?;
                    next
                }
            };
        }
        Ok(memory.write_word(node, index(page, 0), encode(frame))?)
    }

    /// Gives back the nodes, and with `sources` the frames that they name.
    pub(crate) fn free<M: PhysMemory + FrameAllocator>(&mut self, memory: &mut M, sources: bool) {
        if let Some(root) = self.root.take() {
            free_node(memory, root, self.height, sources);
        }
    }
}

fn index(page: u64, level: u32) -> usize {
    (page >> (level * BITS)) as usize % 512
}

fn encode(frame: Frame) -> u64 {
    frame.start().as_u64() | PRESENT
}

fn decode(word: u64) -> Option<Frame> {
    (word & PRESENT != 0).then(|| Frame::containing(PhysAddr::new(word)))
}

fn new_node<M: PhysMemory + FrameAllocator>(memory: &mut M) -> Result<Frame, NodeError> {
    let node = memory.allocate().ok_or(NodeError::OutOfMemory)?;
    if let Err(error) = memory.zero(node) {
        memory.free(node);
        return Err(error.into());
    }
    Ok(node)
}

/// `height` is at most 5: a page number has 40 bits.
fn free_node<M: PhysMemory + FrameAllocator>(memory: &mut M, node: Frame, height: u32, sources: bool) {
    if height > 1 || sources {
        for at in 0..512 {
            // A node that was reached to be written is reached to be read.
            let Ok(Some(next)) = memory.read_word(node, at).map(decode) else { continue };
            if height > 1 {
                free_node(memory, next, height - 1, sources);
            } else {
                memory.free(next);
            }
        }
    }
    memory.free(node);
}
