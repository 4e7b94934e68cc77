//! A good file made bad.

use kexec_payload::{ReadAt, ReadError};

/// A file that ends early, or holds other bytes somewhere.
#[derive(Clone, Copy)]
pub struct Altered<'a> {
    file: &'a [u8],
    patch: (usize, &'a [u8]),
}

impl<'a> Altered<'a> {
    /// The first `len` bytes of `file`.
    pub fn truncated(file: &'a [u8], len: usize) -> Self {
        Self { file: &file[..len], patch: (0, &[]) }
    }

    /// `file` with `bytes` at `offset`.
    pub fn patched(file: &'a [u8], offset: usize, bytes: &'a [u8]) -> Self {
        Self { file, patch: (offset, bytes) }
    }
}

impl ReadAt for Altered<'_> {
    fn len(&self) -> u64 {
        ReadAt::len(self.file)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), ReadError> {
        self.file.read_at(offset, buf)?;
        let (start, bytes) = self.patch;
        for (at, byte) in (start..).zip(bytes) {
            if let Some(place) = at.checked_sub(offset as usize).and_then(|at| buf.get_mut(at)) {
                *place = *byte;
            }
        }
        Ok(())
    }
}
