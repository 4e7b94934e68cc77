//! The command line, for the program and for whoever wraps it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::explain::explain;
use crate::kernel::Kernel;

/// What the program is asked.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A serial log; `-` is standard input
    pub log: PathBuf,
    /// A kernel's ELF for symbols and text; ELF@BIAS where it was loaded BIAS bytes (hexadecimal) above its linked addresses. May be repeated
    #[arg(long = "kernel", value_name = "ELF[@BIAS]")]
    pub kernels: Vec<String>,
    /// A file with the printed plan of the transition, if it is not in the log
    #[arg(long)]
    pub plan: Option<PathBuf>,
}

/// Explains each dump in the log on standard output, with colours on a terminal. A log without one is a failure.
///
/// # Errors
///
/// A file cannot be read.
pub fn run(args: Args) -> Result<ExitCode> {
    let log = read(&args.log)?;
    let plan = args.plan.as_deref().map(read).transpose()?;
    let kernels =
        args.kernels.iter().map(|argument| Kernel::from_argument(argument)).collect::<Result<_>>()?;
    let reports = explain(&log, kernels, plan.as_deref());
    if reports.is_empty() {
        anstream::eprintln!("no dump in {}", args.log.display());
        return Ok(ExitCode::FAILURE);
    }
    for report in reports {
        anstream::println!("{}", report.styled());
    }
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().read_to_end(&mut data).context("cannot read standard input")?;
    } else {
        data = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    }
    Ok(data)
}
