//! Cargo, as a child process: for what is built apart from the root workspace.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{paths, ui};

/// The cargo that runs xtask.
fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Cargo in a workspace of its own, with a target folder of its own.
///
/// The folder is an argument and not in the environment: the build script of `bootloader` starts another cargo,
/// which would wait for ever for a folder that this one has locked.
fn apart(workspace: &Path, target: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(cargo());
    command
        .current_dir(workspace)
        .args(arguments)
        .arg("--target-dir")
        .arg(target)
        .env_remove("CARGO_TARGET_DIR");
    // What cargo set for xtask is not for the child.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("CARGO_PKG_") || name == "CARGO_MANIFEST_DIR") {
            command.env_remove(name);
        }
    }
    command
}

/// Builds the kernels in examples/; gives the folder of their ELF files.
pub(crate) fn kernels() -> Result<PathBuf> {
    let target = paths::target().join("examples");
    // The rest is in examples/.cargo/config.toml: target, and a core built from source.
    let mut command = apart(&paths::root().join("examples"), &target, &["build"]);
    ui::run("building the kernels", command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(target.join("x86_64-unknown-none/debug"))
}

/// Builds the program that makes disk images.
pub(crate) fn disk_image() -> Result<PathBuf> {
    let target = paths::target().join("disk-image");
    let mut command =
        apart(&paths::root().join("tools/disk-image"), &target, &["build", "--release", "--locked"]);
    // bootloader builds its UEFI program from source, with a core of its own.
    ui::run("building the boot loader", command.env("RUSTC_BOOTSTRAP", "1"))?;
    Ok(target.join("release/disk-image"))
}

/// Builds the server of the card with a serial port in memory.
pub(crate) fn mmio_uart() -> Result<PathBuf> {
    let target = paths::target().join("mmio-uart");
    let mut command = apart(&paths::root().join("tools/mmio-uart"), &target, &["build", "--locked"]);
    ui::run("building the server of the card", &mut command)?;
    Ok(target.join("debug/mmio-uart"))
}

/// `cargo test` of a workspace; one apart from the root's gets a target folder of that name.
pub(crate) fn test(workspace: &Path, apart_as: Option<&str>, filter: &str) -> Command {
    let mut command = match apart_as {
        None => {
            let mut command = Command::new(cargo());
            command.current_dir(workspace).args(["test", "--workspace"]);
            command
        }
        Some(name) => apart(workspace, &paths::target().join(name), &["test"]),
    };
    command.args(["--no-fail-fast", "--color", "never"]);
    if !filter.is_empty() {
        command.arg(filter);
    }
    command
}

/// `cargo bench` of the benchmark of a package of the root workspace.
pub(crate) fn bench(package: &str, filter: &str) -> Command {
    let mut command = Command::new(cargo());
    command.current_dir(paths::root()).args(["bench", "--package", package, "--bench", package, "--"]);
    if !filter.is_empty() {
        command.arg(filter);
    }
    command
}
