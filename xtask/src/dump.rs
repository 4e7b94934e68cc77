//! Dumps in a serial log, explained on the spot by `kexec-decode`; and `cargo xtask decode`, which is that program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};
use kexec_decode::{Kernel, Report, cli};

pub(crate) use kexec_decode::cli::Args;

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    cli::run(args)
}

/// The dumps of a log, explained with the kernels that took part. The explanations lie beside the log as well.
pub(crate) fn explain(log: &Path, kernels: &[PathBuf]) -> Result<Vec<Report>> {
    let beside = log.with_extension("decoded.txt");
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    // Symbols are read only when there is something to look up.
    let reports = match kexec_decode::Dump::find_all(&bytes).is_empty() {
        true => Vec::new(),
        false => {
            let kernels = kernels.iter().map(|kernel| Kernel::open(kernel, None)).collect::<Result<_>>()?;
            kexec_decode::explain(&bytes, kernels, None)
        }
    };
    if reports.is_empty() {
        // An earlier run's is no longer true.
        let _ = fs::remove_file(beside);
    } else {
        fs::write(beside, reports.iter().map(|report| format!("{report}\n")).collect::<String>())?;
    }
    Ok(reports)
}

/// Shows explanations below a log; coloured on a terminal.
pub(crate) fn show(reports: &[Report]) {
    for report in reports {
        match console::colors_enabled() {
            true => println!("\n{}", report.styled()),
            false => println!("\n{report}"),
        }
    }
}
