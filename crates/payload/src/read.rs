//! A file's bytes, wherever they lie.

use core::fmt;

/// A file that can be read at any offset. It need not be contiguous in memory, nor in memory at all.
///
/// Implemented for `[u8]`, for `[&[u8]]` (a file in pieces, in order) and for references. An implementor returns the same
/// bytes each time: a file is checked when it is parsed and read again when it is loaded.
pub trait ReadAt {
    /// The file's size in bytes.
    fn len(&self) -> u64;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// [`ReadError`] if not all of them lie in the file or can be read; `buf`'s content is unspecified then.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError>;
}

/// Bytes of a file that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadError {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How many bytes were asked for.
    pub len: u64,
}

impl ReadError {
    fn new(offset: u64, buf: &[u8]) -> Self {
        Self { offset, len: buf.len() as u64 }
    }
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes at offset {:#x} of the file cannot be read", self.len, self.offset)
    }
}

impl core::error::Error for ReadError {}

impl ReadAt for [u8] {
    fn len(&self) -> u64 {
        <[u8]>::len(self) as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..start.checked_add(buf.len())?))
            .ok_or(ReadError::new(offset, buf))?;
        buf.copy_from_slice(bytes);
        Ok(())
    }
}

impl ReadAt for [&[u8]] {
    fn len(&self) -> u64 {
        self.iter().map(ReadAt::len).sum()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        let error = ReadError::new(offset, buf);
        let mut skip = offset;
        let mut rest = buf;
        for piece in self {
            if rest.is_empty() {
                break;
            }
            let Some(bytes) = usize::try_from(skip).ok().and_then(|skip| piece.get(skip..)) else {
                skip -= ReadAt::len(piece);
                continue;
            };
            skip = 0;
            let (now, later) = rest.split_at_mut(bytes.len().min(rest.len()));
            now.copy_from_slice(&bytes[..now.len()]);
            rest = later;
        }
        if rest.is_empty() { Ok(()) } else { Err(error) }
    }
}

impl<T: ReadAt + ?Sized> ReadAt for &T {
    fn len(&self) -> u64 {
        (**self).len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        (**self).read_at(offset, buf)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_read_past_the_end_is_an_error_that_says_where_and_how_much() {
        let file: &[u8] = &[1, 2, 3];
        assert_eq!(file.read_at(2, &mut [0; 2]), Err(ReadError { offset: 2, len: 2 }));
        assert_eq!(file.read_at(u64::MAX, &mut [0; 1]), Err(ReadError { offset: u64::MAX, len: 1 }));
        let pieces: &[&[u8]] = &[&[1], &[2, 3]];
        assert_eq!(pieces.read_at(2, &mut [0; 2]), Err(ReadError { offset: 2, len: 2 }));
        assert_eq!(pieces.read_at(u64::MAX, &mut [0; 1]), Err(ReadError { offset: u64::MAX, len: 1 }));
    }

    proptest! {
        #[test]
        fn a_file_in_pieces_reads_like_the_same_file_in_one(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9), 0..6),
            offset in 0u64..48,
            len in 0usize..48,
        ) {
            let whole = pieces.concat();
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            let mut buf = vec![0; len];
            let read = slices.as_slice().read_at(offset, &mut buf);
            prop_assert_eq!(ReadAt::len(slices.as_slice()), whole.len() as u64);
            match whole.get(offset as usize..offset as usize + len) {
                Some(expected) => prop_assert_eq!((read, buf.as_slice()), (Ok(()), expected)),
                // Nothing is asked for, so nothing can be missing.
                None if len == 0 => {}
                None => prop_assert_eq!(read, Err(ReadError { offset, len: len as u64 })),
            }
        }
    }
}
