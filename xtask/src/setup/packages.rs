//! The system's packages: QEMU and OVMF. Installed where that can be done unasked, otherwise asked for in one message.

use anyhow::{Result, bail};

use super::{apt, busybox, qemu};
use crate::qemu::Options;

struct Requirement {
    what: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    nix: &'static str,
}

const QEMU: Requirement = Requirement {
    what: "QEMU for x86-64 (qemu-system-x86_64)",
    debian: "qemu-system-x86",
    fedora: "qemu-system-x86-core",
    arch: "qemu-system-x86",
    nix: "nixpkgs#qemu",
};

const FIRMWARE: Requirement = Requirement {
    what: "OVMF, the UEFI firmware",
    debian: "ovmf",
    fedora: "edk2-ovmf",
    arch: "edk2-ovmf",
    nix: "nixpkgs#qemu",
};

const BUSYBOX: Requirement = Requirement {
    what: "a static busybox",
    debian: "busybox-static",
    fedora: "busybox",
    arch: "busybox",
    nix: "nixpkgs#pkgsStatic.busybox",
};

/// Installs what is missing, or says what to install.
pub(crate) fn ensure(options: &Options) -> Result<()> {
    if let Some(path) = &options.qemu
        && !path.is_file()
    {
        bail!("--qemu: there is no {}", path.display());
    }
    let mut missing = Vec::new();
    if qemu::program(options).is_none() {
        missing.push(&QEMU);
    }
    if qemu::firmware(options).is_none() {
        missing.push(&FIRMWARE);
    }
    // On Debian it comes without being installed.
    if busybox::installed().is_none() && !apt::is_debian() {
        missing.push(&BUSYBOX);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if super::in_path("apt-get").is_some() && apt::is_root() {
        return apt::install(&missing.iter().map(|package| package.debian).collect::<Vec<_>>());
    }
    bail!(message(&missing))
}

fn message(missing: &[&Requirement]) -> String {
    let list = |separator: &str, name: fn(&Requirement) -> &'static str| {
        let mut names: Vec<_> = missing.iter().map(|package| name(package)).collect();
        names.dedup();
        names.join(separator)
    };
    format!(
        "missing: {}. Install\n  Debian, Ubuntu: sudo apt-get install {}\n  Fedora:         sudo dnf install {}\n  \
         Arch:           sudo pacman -S {}\n  Nix:            nix shell {}",
        list(", ", |package| package.what),
        list(" ", |package| package.debian),
        list(" ", |package| package.fedora),
        list(" ", |package| package.arch),
        list(" ", |package| package.nix),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_each_package_once_for_each_distribution() {
        let message = message(&[&QEMU, &FIRMWARE]);
        assert!(message.contains("apt-get install qemu-system-x86 ovmf\n"), "{message}");
        assert!(message.contains("dnf install qemu-system-x86-core edk2-ovmf\n"), "{message}");
        assert!(message.contains("pacman -S qemu-system-x86 edk2-ovmf\n"), "{message}");
        assert!(message.ends_with("nix shell nixpkgs#qemu"), "{message}");
    }
}
