//! Debian's kernels for virtual machines: the unmodified Linux that the chain ends in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Unavailable;
use super::apt::{self, Apt};
use crate::paths;

/// A Debian kernel, by the suite that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Release {
    /// Linux 6.1
    Debian12,
    /// Linux 6.12
    Debian12Backports,
    /// The newest that Debian 13 has
    Debian13Backports,
}

impl Release {
    pub(crate) const ALL: [Release; 3] =
        [Release::Debian12, Release::Debian12Backports, Release::Debian13Backports];

    /// Its name on the command line and in scenarios.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Release::Debian12 => "debian-12",
            Release::Debian12Backports => "debian-12-backports",
            Release::Debian13Backports => "debian-13-backports",
        }
    }

    fn suite(self) -> &'static str {
        match self {
            Release::Debian12 => "bookworm",
            Release::Debian12Backports => "bookworm-backports",
            Release::Debian13Backports => "trixie-backports",
        }
    }

    /// The kernel's file, downloaded if it is not there.
    pub(crate) fn bzimage(self) -> Result<PathBuf> {
        let tree = paths::folder("setup/linux")?.join(self.name());
        if let Some(kernel) = kernel_in(&tree.join("boot")) {
            return Ok(kernel);
        }
        if apt::is_debian() {
            self.download(&tree)?;
            return kernel_in(&tree.join("boot")).context("Debian's kernel package holds no kernel");
        }
        // Elsewhere the system's own kernel does as well, where it may be read.
        if self == Release::Debian12
            && let Some(kernel) = kernel_in(Path::new("/boot"))
        {
            return Ok(kernel);
        }
        let name = self.name();
        Err(Unavailable(format!(
            "no kernel {name}: it is Debian's; any bzImage serves, by `demo linux --kernel`"
        ))
        .into())
    }

    fn download(self, tree: &Path) -> Result<()> {
        let apt = Apt::new(&[self.suite()])?;
        let names = apt.dependencies("linux-image-cloud-amd64")?;
        let name = names.iter().find(|name| name.starts_with("linux-image-")).context("no cloud kernel")?;
        apt.unpack(name, tree)
    }
}

fn kernel_in(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?;
    let mut kernels: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .filter(|path| fs::File::open(path).is_ok())
        .collect();
    kernels.sort();
    kernels.pop()
}
