//! QEMU and its firmware.

use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};

use super::apt::{self, Apt};
use super::{Unavailable, in_path};
use crate::paths;
use crate::qemu::{Options, Qemu};

/// The QEMU that was asked for, or the one in PATH, with a firmware for it.
pub(crate) fn find(options: &Options) -> Result<Qemu> {
    let program = program(options).context("there is no QEMU")?;
    let firmware = firmware(options).context("there is no OVMF")?;
    Ok(Qemu { program: vec![program.into()], firmware, accel: options.accel.clone() })
}

pub(super) fn program(options: &Options) -> Option<PathBuf> {
    match &options.qemu {
        Some(path) => path.is_file().then(|| path.clone()),
        None => in_path("qemu-system-x86_64"),
    }
}

/// Where distributions put OVMF's code volume; last, the copy that QEMU brings.
pub(super) fn firmware(options: &Options) -> Option<PathBuf> {
    const PLACES: [&str; 6] = [
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_CODE_4M.fd",
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/x64/OVMF_CODE.4m.fd",
        "/usr/share/edk2-ovmf/x64/OVMF_CODE.fd",
    ];
    let beside = program(options)
        .and_then(|program| fs::canonicalize(program).ok())
        .and_then(|program| Some(program.parent()?.parent()?.join("share/qemu/edk2-x86_64-code.fd")));
    PLACES.map(PathBuf::from).into_iter().chain(beside).find(|file| file.is_file())
}

/// A QEMU that has `vfio-user-pci` (10.1 and later), for devices served by another process: the given one, or
/// Debian's of trixie-backports in a tree under target/, with the libraries and the loader that it was built for.
pub(crate) fn vfio_user(options: &Options) -> Result<Qemu> {
    const PROGRAM: &str = "usr/bin/qemu-system-x86_64";
    if options.qemu.is_some() {
        let qemu = find(options)?;
        return match qemu.has_device("vfio-user-pci")? {
            true => Ok(qemu),
            false => Err(Unavailable(format!("{} has no vfio-user-pci", qemu.version()?)).into()),
        };
    }
    let _alone = apt::one_at_a_time();
    let tree = paths::folder("setup")?.join("qemu-vfio-user");
    if !tree.join(PROGRAM).is_file() {
        if !apt::is_debian() {
            let why = "no QEMU with vfio-user-pci: give one of 10.1 or later with --qemu";
            return Err(Unavailable(why.to_owned()).into());
        }
        Apt::new(&["trixie", "trixie-backports"])
            .and_then(|apt| apt.unpack_tree("trixie-backports", &["qemu-system-x86", "ovmf", "libc6"], &tree))
            .map_err(|error| Unavailable(format!("no QEMU with vfio-user-pci to be had: {error:#}")))?;
    }
    let in_tree = |path: &str| tree.join(path);
    let library = in_tree("usr/lib/x86_64-linux-gnu");
    let search = [library.clone(), in_tree("lib/x86_64-linux-gnu"), library.join("pulseaudio")];
    let search = std::env::join_paths(search.iter().filter(|folder| folder.is_dir()))?;
    let program: Vec<OsString> = vec![
        in_tree("usr/lib64/ld-linux-x86-64.so.2").into(),
        "--library-path".into(),
        search,
        in_tree(PROGRAM).into(),
        "-L".into(),
        in_tree("usr/share/qemu").into(),
        "-L".into(),
        in_tree("usr/share/seabios").into(),
        "-L".into(),
        in_tree("usr/lib/ipxe/qemu").into(),
    ];
    Ok(Qemu { program, firmware: in_tree("usr/share/OVMF/OVMF_CODE_4M.fd"), accel: options.accel.clone() })
}
