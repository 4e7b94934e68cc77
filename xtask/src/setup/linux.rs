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
        let _alone = apt::one_at_a_time();
        let kernel = paths::folder("setup/linux")?.join(format!("vmlinuz-{}", self.name()));
        if kernel.is_file() {
            return Ok(kernel);
        }
        if apt::is_debian() {
            self.download(&kernel)?;
            return Ok(kernel);
        }
        // Elsewhere the system's own kernel does as well, where it may be read.
        if self == Release::Debian12
            && let Some(kernel) = kernel_under(Path::new("/"))
        {
            return Ok(kernel);
        }
        let name = self.name();
        Err(Unavailable(format!(
            "no kernel {name}: it is Debian's; any bzImage serves, by `demo linux --kernel`"
        ))
        .into())
    }

    /// From the package that the cloud kernel's metapackage stands for. Its modules are of no use here.
    fn download(self, kernel: &Path) -> Result<()> {
        let apt = Apt::new(&[self.suite()])?;
        let find = |package: &str, prefix: &str| -> Result<Option<String>> {
            Ok(apt.dependencies(package)?.into_iter().find(|name| name.starts_with(prefix)))
        };
        let image = find("linux-image-cloud-amd64", "linux-image-")?.context("Debian has no cloud kernel")?;
        // Since Linux 7 the image is a package of its own.
        let package = find(&image, "linux-binary-")?.unwrap_or(image);
        let folder = kernel.parent().context("a file without a folder")?;
        let scratch = tempfile::tempdir_in(folder)?;
        let tree = scratch.path().join("tree");
        apt.unpack(&package, &tree)?;
        let found = kernel_under(&tree).with_context(|| format!("{package} holds no kernel"))?;
        fs::rename(&found, kernel).with_context(|| format!("cannot keep {}", found.display()))
    }
}

/// A kernel that may be read, where distributions put it: the newest, as far as names tell.
fn kernel_under(root: &Path) -> Option<PathBuf> {
    let entries =
        |folder: PathBuf| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let of_modules = entries(root.join("usr/lib/modules")).map(|folder| folder.join("vmlinuz"));
    let mut kernels: Vec<_> = entries(root.join("boot"))
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz")))
        .chain(of_modules)
        .filter(|path| fs::File::open(path).is_ok())
        .collect();
    kernels.sort();
    kernels.pop()
}
