//! rust-src, the standard library's source: kernels are built with a core of their own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::apt::{self, Apt};
use super::in_path;
use crate::{paths, ui};

/// Puts it where rustup would.
pub(crate) fn ensure() -> Result<()> {
    let library = PathBuf::from(rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library");
    if complete(&library) {
        return Ok(());
    }
    let version = release(&rustc(&["--version", "--verbose"])?)?;
    let rustup = in_path("rustup").map(|_| with_rustup());
    if complete(&library) {
        return Ok(());
    }
    if apt::is_debian() {
        return with_apt(&version, &library);
    }
    if let Some(Err(error)) = rustup {
        return Err(error.context("rustup cannot fetch rust-src"));
    }
    bail!(
        "missing: the standard library's source of Rust {version}. Install\n  with rustup:    rustup component add \
         rust-src\n  Debian, Ubuntu: sudo apt-get install rust-src\n  Fedora:         sudo dnf install rust-src\n  Arch: \
         \u{20}         sudo pacman -S rust-src\n  Nix:            rustPlatform.rustLibSrc"
    )
}

fn complete(library: &Path) -> bool {
    // Cargo reads the one first, and rustc the other.
    library.join("Cargo.lock").is_file() && library.join("core/src/lib.rs").is_file()
}

fn rustc(arguments: &[&str]) -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(arguments).output().context("cannot run rustc")?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// `1.95.0`, from what rustc says of itself.
fn release(verbose: &str) -> Result<String> {
    let line = verbose.lines().find_map(|line| line.strip_prefix("release: "));
    Ok(line.context("rustc does not say its release")?.to_owned())
}

fn with_rustup() -> Result<()> {
    // Where its servers are out of reach, that should not take long to find out.
    const LIMIT: Duration = Duration::from_secs(90);
    let mut rustup = Command::new("rustup");
    rustup.args(["component", "add", "rust-src"]).env("RUSTUP_MAX_RETRIES", "0");
    ui::run_within("fetching rust-src (rustup component add)", &mut rustup, LIMIT).map(drop)
}

/// Debian's package of the very version of the compiler.
fn with_apt(version: &str, library: &Path) -> Result<()> {
    let apt = Apt::new(&["trixie-backports"])?;
    let versions = apt.versions("rust-src")?;
    let package = versions.iter().find(|candidate| candidate.starts_with(&format!("{version}+")));
    let Some(package) = package else {
        bail!(
            "Debian has no rust-src {version}; it has {}. Try `rustup component add rust-src`",
            versions.join(", ")
        );
    };
    let tree = paths::folder("setup")?.join("rust-src");
    apt.unpack(&format!("rust-src={package}"), &tree)?;
    let source = tree.join(format!("usr/src/rustc-{version}/library"));
    if !complete(&source) {
        bail!("Debian's rust-src has no library/ where it should: {}", source.display());
    }
    let parent = library.parent().context("a sysroot without a parent")?;
    ui::say(format!("putting rust-src at {}", library.display()));
    fs::create_dir_all(parent)?;
    // Under another name until it is whole.
    let partial = parent.join("library.partial");
    let copied = Command::new("cp").arg("--recursive").arg("-T").arg(&source).arg(&partial).status()?;
    if !copied.success() {
        bail!("cannot copy rust-src to {}", partial.display());
    }
    fs::rename(&partial, library).with_context(|| format!("cannot make {}", library.display()))?;
    fs::remove_dir_all(&tree)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_rustc() {
        let said =
            "rustc 1.95.0 (59807616e 2026-04-14)\nbinary: rustc\nrelease: 1.95.0\nLLVM version: 22.1.2\n";
        assert_eq!(release(said).unwrap(), "1.95.0");
        assert!(release("rustc").is_err());
    }
}
