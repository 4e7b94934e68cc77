//! `disk-image KERNEL RAMDISK IMAGE`: a UEFI disk image that boots KERNEL (an ELF file) with RAMDISK.
//!
//! A program and a workspace of its own, so that neither the libraries nor xtask depend on `bootloader`,
//! whose build script needs rust-src and a long time.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use bootloader::DiskImageBuilder;
use bootloader_boot_config::BootConfig;

fn main() -> Result<()> {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [kernel, ramdisk, image] = <[PathBuf; 3]>::try_from(arguments)
        .or_else(|given| bail!("disk-image takes KERNEL RAMDISK IMAGE, not {} arguments", given.len()))?;

    // The log's first lines are the kernel's own; and text in a framebuffer takes seconds under TCG.
    let mut config = BootConfig::default();
    config.frame_buffer_logging = false;
    config.serial_logging = false;

    let mut builder = DiskImageBuilder::new(kernel.clone());
    builder.set_ramdisk(ramdisk.clone());
    builder.set_boot_config(&config);
    builder
        .create_uefi_image(&image)
        .with_context(|| format!("{} of {} and {}", image.display(), kernel.display(), ramdisk.display()))
}
