//! The files that came with the kernel: a tar archive as its ramdisk, which says what to run next.

use tar_no_std::TarArchiveRef;

use crate::failure::Failure;

/// The archive.
#[derive(Clone, Copy, Debug)]
pub struct Bundle {
    /// All of it, to be handed on as the next kernel's ramdisk.
    pub archive: &'static [u8],
}

impl Bundle {
    /// The file of that name.
    pub fn find(&self, name: &'static str) -> Option<&'static [u8]> {
        let archive = TarArchiveRef::new(self.archive).ok()?;
        archive.entries().find(|file| file.filename().as_str() == Ok(name)).map(|file| file.data())
    }

    /// The file of that name, which has to be there.
    pub fn file(&self, name: &'static str) -> Result<&'static [u8], Failure> {
        self.find(name).ok_or(Failure::Missing(name))
    }
}
