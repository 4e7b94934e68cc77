//! Where a payload's bytes go, and how they get there.

use core::fmt;

use kexec_abi::{PAGE_SIZE, PhysAddr, PhysRange};

use crate::place::PlaceError;
use crate::read::{ReadAt, ReadError};

/// Takes a kernel's segments and their bytes: an image that is being filled.
///
/// A loader announces a segment before it writes into it. Bytes that are never written read as zero. Writes come in any
/// order, none crosses a 4 KiB boundary, and a byte may be written more than once (by a relocation): the last one counts.
pub trait Sink {
    /// What can go wrong in the image.
    type Error;

    /// Adds the segment at `destination`, which is aligned to 4 KiB at both ends, is not empty, and overlaps no other.
    ///
    /// # Errors
    ///
    /// The image's own, for instance that the range is not usable memory. The loader stops and passes it on.
    fn segment(&mut self, destination: PhysRange) -> Result<(), Self::Error>;

    /// Puts `bytes` at the physical destination address `at`, inside an added segment.
    ///
    /// # Errors
    ///
    /// The image's own. The loader stops and passes it on.
    fn write(&mut self, at: PhysAddr, bytes: &[u8]) -> Result<(), Self::Error>;
}

/// Why a payload could not be loaded; `E` is the sink's error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError<E> {
    /// The payload and its parameters do not fit the machine or each other; nothing was given to the sink.
    Place(PlaceError),
    /// A file could not be read.
    Read(ReadError),
    /// The sink refused.
    Sink(E),
}

impl<E> From<PlaceError> for LoadError<E> {
    fn from(error: PlaceError) -> Self {
        Self::Place(error)
    }
}

impl<E> From<ReadError> for LoadError<E> {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl<E: fmt::Display> fmt::Display for LoadError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(error) => error.fmt(f),
            Self::Read(error) => error.fmt(f),
            Self::Sink(error) => error.fmt(f),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> core::error::Error for LoadError<E> {}

/// Streams `len` bytes of `file`, from `offset` on, to the destination `at`, a page at a time.
///
/// `at + len` and `offset + len` do not overflow: the callers have checked them.
pub(crate) fn copy<S: Sink + ?Sized>(
    file: &(impl ReadAt + ?Sized),
    offset: u64,
    at: PhysAddr,
    len: u64,
    sink: &mut S,
) -> Result<(), LoadError<S::Error>> {
    let mut page = [0; PAGE_SIZE as usize];
    let mut done = 0;
    while done < len {
        let to = PhysAddr::new(at.as_u64() + done);
        let chunk = (PAGE_SIZE - to.as_u64() % PAGE_SIZE).min(len - done);
        let bytes = &mut page[..chunk as usize];
        file.read_at(offset + done, bytes)?;
        sink.write(to, bytes).map_err(LoadError::Sink)?;
        done += chunk;
    }
    Ok(())
}

/// Puts `bytes` at the destination `at`.
pub(crate) fn write<S: Sink + ?Sized>(
    bytes: &[u8],
    at: PhysAddr,
    sink: &mut S,
) -> Result<(), LoadError<S::Error>> {
    copy(bytes, 0, at, bytes.len() as u64, sink)
}
