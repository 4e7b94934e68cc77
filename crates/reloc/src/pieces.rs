//! The pieces of page code, laid out in the code frame.

use kexec_abi::page_code::PageCode;
use kexec_abi::{Console, PhysAddr};
use kexec_exception::page_code::{DUMP, EXCEPTION};

use crate::detour::DETOUR;
use crate::engine::ENGINE;

/// Pieces begin at multiples of this many bytes, as their templates do.
const ALIGN: u64 = 16;

/// A piece and where its copy lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    pub(crate) code: &'static PageCode,
    /// Bytes from the start of the code frame.
    pub(crate) offset: u64,
}

impl Piece {
    /// The address of a label of the piece where it was linked.
    pub(crate) fn linked(code: &PageCode, label: usize) -> u64 {
        code.bytes().as_ptr() as u64 + code.offset(label) as u64
    }

    /// The address of a label of the copy.
    pub(crate) fn at(&self, frame: PhysAddr, label: usize) -> u64 {
        frame.as_u64() + self.offset + self.code.offset(label) as u64
    }
}

/// All pieces of a transition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pieces {
    pub(crate) engine: Piece,
    pub(crate) exception: Piece,
    pub(crate) dump: Piece,
    pub(crate) console: Option<Piece>,
    /// Where the new kernel wants another paging depth.
    pub(crate) detour: Option<Piece>,
    /// Bytes in all.
    pub(crate) size: u64,
}

impl Pieces {
    pub(crate) fn new(console: Option<&Console>, detour: bool) -> Self {
        let mut size = 0_u64;
        let mut place = |code: &'static PageCode| {
            let offset = size.next_multiple_of(ALIGN);
            size = offset + code.bytes().len() as u64;
            Piece { code, offset }
        };
        let engine = place(&ENGINE);
        let exception = place(&EXCEPTION);
        let dump = place(&DUMP);
        let console = console.map(|console| place(console.code));
        let detour = detour.then(|| place(&DETOUR));
        Self { engine, exception, dump, console, detour, size }
    }

    /// Those that also run where they were linked.
    pub(crate) fn linked(&self) -> impl Iterator<Item = Piece> + use<> {
        [Some(self.engine), Some(self.exception), Some(self.dump), self.console].into_iter().flatten()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Piece> + use<> {
        [Some(self.engine), Some(self.exception), Some(self.dump), self.console, self.detour]
            .into_iter()
            .flatten()
    }
}
