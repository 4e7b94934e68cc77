//! Disk images that boot a kernel with a bundle: made by `tools/disk-image`, a program of its own workspace.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::paths;

/// The image of `kernel` with `bundle`: named by their digest, so that equal ones are made once.
pub(crate) fn image(tool: &Path, kernel: &Path, bundle: &[u8]) -> Result<PathBuf> {
    let folder = paths::folder("images")?;
    let elf = fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let mut digest = Sha256::new();
    digest.update(fs::read(tool)?);
    digest.update(&elf);
    digest.update(bundle);
    let digest: String = digest.finalize()[..8].iter().map(|byte| format!("{byte:02x}")).collect();
    let name = kernel.file_name().unwrap_or_default().display();
    let image = folder.join(format!("{name}-{digest}.img"));
    if let Ok(file) = fs::File::options().write(true).open(&image) {
        file.set_modified(SystemTime::now())?;
        return Ok(image);
    }

    // Under a name of its own until it is whole: another thread may be at the same image.
    let scratch = tempfile::tempdir_in(&folder)?;
    let (ramdisk, made) = (scratch.path().join("bundle.tar"), scratch.path().join("image"));
    fs::write(&ramdisk, bundle)?;
    let output = Command::new(tool).arg(kernel).arg(&ramdisk).arg(&made).output()?;
    if !output.status.success() {
        bail!("no disk image of {name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    fs::rename(&made, &image)?;
    Ok(image)
}

/// Removes images that no run has used for a day: each change of a kernel leaves some behind.
pub(crate) fn sweep() -> Result<()> {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    for entry in fs::read_dir(paths::folder("images")?)? {
        let entry = entry?;
        if entry.metadata()?.modified()?.elapsed().is_ok_and(|age| age > DAY) && entry.file_type()?.is_file()
        {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
