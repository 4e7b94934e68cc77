//! Where things lie: the repository, and what is made under its target folder.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::{env, fs};

use anyhow::{Context, Result};

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| {
        let manifest = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        Path::new(&manifest).parent().unwrap_or(Path::new(".")).to_path_buf()
    });
    &ROOT
}

/// Cargo's target folder: all that is built, downloaded or written lies here.
pub(crate) fn target() -> &'static Path {
    static TARGET: LazyLock<PathBuf> = LazyLock::new(|| match env::var_os("CARGO_TARGET_DIR") {
        // Relative to where cargo was started, like cargo's own reading of it.
        Some(target) => std::path::absolute(&target).unwrap_or_else(|_| target.into()),
        None => root().join("target"),
    });
    &TARGET
}

/// A folder under target, made if it is missing.
pub(crate) fn folder(name: &str) -> Result<PathBuf> {
    let folder = target().join(name);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
