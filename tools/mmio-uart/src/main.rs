//! The card as a program. See the library.

use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use mmio_uart::{Width, serve};

/// A PCI card with a memory-mapped 16550 for QEMU's vfio-user-pci. Ends when QEMU does: with 0 if the guest was heard and all its
/// accesses were right, with 1 if any was wrong, with 2 if nothing was heard.
#[derive(Parser)]
struct Arguments {
    /// The socket to listen at; QEMU: -device '{"driver":"vfio-user-pci","socket":{"path":"…","type":"unix"}}'
    #[arg(long)]
    socket: PathBuf,
    /// The width in bits of the accesses that the registers answer to
    #[arg(long, default_value = "32", value_parser = width)]
    width: Width,
    /// Where to write what the port hears, instead of standard output
    #[arg(long)]
    heard: Option<PathBuf>,
    /// Where to write a line for each access
    #[arg(long)]
    log: Option<PathBuf>,
}

fn width(bits: &str) -> Result<Width, String> {
    match bits {
        "8" => Ok(Width::Byte),
        "32" => Ok(Width::Word),
        _ => Err("8 or 32".into()),
    }
}

fn create(path: &PathBuf) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let heard: Box<dyn Write> = match &arguments.heard {
        Some(path) => Box::new(create(path)?),
        None => Box::new(stdout()),
    };
    let log: Box<dyn Write> = match &arguments.log {
        Some(path) => Box::new(BufWriter::new(create(path)?)),
        None => Box::new(std::io::sink()),
    };
    let counts = serve(&arguments.socket, arguments.width, heard, log)?;
    eprintln!("mmio-uart: {counts}");
    Ok(match counts {
        counts if counts.wrong > 0 => ExitCode::from(1),
        counts if counts.heard == 0 => ExitCode::from(2),
        _ => ExitCode::SUCCESS,
    })
}
