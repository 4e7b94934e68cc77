//! What the machines need and a fresh system lacks. Each step is skipped when its result is there, says what it
//! does before it does it, and keeps what it downloads under target/.
//!
//! | what | Debian, as root | elsewhere |
//! |---|---|---|
//! | QEMU, OVMF | the system's packages | as found; else one message says what to install |
//! | rust-src | rustup, else Debian's package | rustup |
//! | static busybox, Linux kernels | Debian's packages, unpacked under target/ | as found |
//!
//! The system's package sources are never changed: see [`apt`].

pub(crate) mod apt;
pub(crate) mod busybox;
pub(crate) mod linux;
pub(crate) mod packages;
pub(crate) mod qemu;
pub(crate) mod rust_src;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;

use crate::qemu::{Options, Qemu};
use crate::{cargo, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    qemu: Options,
    /// Also what only some scenarios want: other kernels, and a QEMU with vfio-user-pci
    #[arg(long)]
    all: bool,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let qemu = all(&args.qemu)?;
    cargo::disk_image()?;
    if args.all {
        for release in linux::Release::ALL {
            release.bzimage()?;
        }
        cargo::mmio_uart()?;
        let qemu = qemu::vfio_user(&args.qemu)?;
        ui::say(format!("a QEMU with vfio-user-pci: {}", qemu.version()?));
    }
    ui::say(format!("ready: {}, firmware {}", qemu.version()?, qemu.firmware.display()));
    Ok(ExitCode::SUCCESS)
}

/// Everything that every demo and scenario needs.
pub(crate) fn all(options: &Options) -> Result<Qemu> {
    packages::ensure(options)?;
    rust_src::ensure()?;
    busybox::find()?;
    linux::Release::Debian12.bzimage()?;
    qemu::find(options)
}

/// A thing that some scenarios want and this system cannot have: they are skipped, and say so.
#[derive(Debug)]
pub(crate) struct Unavailable(pub(crate) String);

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Unavailable {}

/// A program in PATH.
pub(crate) fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}
