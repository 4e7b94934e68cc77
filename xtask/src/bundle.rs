//! The bundle: the ramdisk that the boot loader hands to a kernel, a tar archive (ustar) that says what to run next.
//!
//! | file      | what it is |
//! |-----------|------------|
//! | `second`  | optional: an ELF kernel; it gets the same bundle as its ramdisk |
//! | `vmlinuz` | Linux, a bzImage |
//! | `initrd`  | Linux's initrd |
//! | `append`  | Linux's command line, text |
//!
//! A scenario may add files of its own.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::initrd::Payload;
use crate::setup::linux::Release;

/// The files of a bundle, by what they are: made only when a machine is about to boot with them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Bundle {
    files: Vec<(String, Content)>,
}

/// Where a file's bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    File(PathBuf),
    /// One of the kernels in examples/.
    Kernel(String),
    Linux(Release),
    /// The busybox initrd with this payload.
    Initrd(Payload),
}

impl Bundle {
    /// Adds a file.
    pub(crate) fn with(mut self, name: &str, content: Content) -> Self {
        self.files.push((name.to_owned(), content));
        self
    }

    /// One of the files.
    pub(crate) fn file(&self, name: &str, context: &Context) -> Result<Vec<u8>> {
        let (_, content) = self.files.iter().find(|(file, _)| file == name).context("not in the bundle")?;
        content.bytes(context)
    }

    /// The names of the kernels of examples/ in it.
    pub(crate) fn kernels(&self) -> impl Iterator<Item = &str> {
        self.files.iter().filter_map(|(_, content)| match content {
            Content::Kernel(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// The archive.
    pub(crate) fn archive(&self, context: &Context) -> Result<Vec<u8>> {
        let mut files = Vec::with_capacity(self.files.len());
        for (name, content) in &self.files {
            files.push((name.as_str(), content.bytes(context)?));
        }
        archive(&files)
    }
}

impl Content {
    fn bytes(&self, context: &Context) -> Result<Vec<u8>> {
        match self {
            Content::Bytes(bytes) => Ok(bytes.clone()),
            Content::File(path) => read(path),
            Content::Kernel(name) => read(&context.kernel(name)?),
            Content::Linux(release) => read(&release.bzimage()?),
            Content::Initrd(payload) => payload.initrd(),
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

fn archive(files: &[(&str, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, bytes) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, bytes.as_slice())?;
    }
    Ok(archive.into_inner()?)
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn an_archive_holds_its_files_in_order() {
        let bytes = archive(&[("second", vec![1; 513]), ("append", b"quiet".to_vec())]).unwrap();
        let mut found = Vec::new();
        for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            found.push((entry.path().unwrap().display().to_string(), content));
        }
        assert_eq!(found, [("second".to_owned(), vec![1; 513]), ("append".to_owned(), b"quiet".to_vec())]);
        assert_eq!(&bytes[257..263], b"ustar\0", "the guest's reader takes ustar only");
    }
}
