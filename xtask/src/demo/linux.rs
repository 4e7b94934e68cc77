//! `cargo xtask demo linux`.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::bundle::Content;
use crate::scenario::{Linux, Scenario, linux};
use crate::setup::linux::Release;

#[derive(clap::Args)]
pub(super) struct Args {
    /// A bzImage, or one of Debian's: debian12, debian12-backports, debian13-backports
    #[arg(long, value_name = "BZIMAGE", default_value = "debian12")]
    kernel: String,
    /// An initrd that powers off when it is done [default: a busybox that tells what it found]
    #[arg(long, value_name = "FILE")]
    initrd: Option<PathBuf>,
    /// Added to the command line
    #[arg(long, value_name = "ARGS", default_value = "token=hello", allow_hyphen_values = true)]
    append: String,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        let kernel = match Release::from_str(&self.kernel, true) {
            Ok(release) => Content::Linux(release),
            Err(_) => Content::File(existing(self.kernel.into())?),
        };
        let initrd = self.initrd.map(existing).transpose()?;
        let settings = Linux { kernel, initrd, append: self.append, ..Linux::default() };
        Ok(linux(settings, "demo"))
    }
}

fn existing(path: PathBuf) -> Result<PathBuf> {
    path.canonicalize().with_context(|| format!("cannot read {}", path.display()))
}
