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

/// A dump in a log: where it is and how whole, and what it means.
pub(crate) struct Explained {
    pub(crate) heading: String,
    pub(crate) report: Report,
}

/// The dumps of a log, explained with the kernels that took part. The explanations lie beside the log as well.
pub(crate) fn explain(log: &Path, kernels: &[PathBuf]) -> Result<Vec<Explained>> {
    let beside = log.with_extension("decoded.txt");
    let bytes = fs::read(log).with_context(|| format!("cannot read {}", log.display()))?;
    // Symbols are read only when there is something to look up.
    let dumps = match kexec_decode::Dump::find_all(&bytes).is_empty() {
        true => Vec::new(),
        false => {
            let kernels = kernels.iter().map(|kernel| Kernel::open(kernel, None)).collect::<Result<_>>()?;
            cli::decode(&bytes, kernels, None)
        }
    };
    if dumps.is_empty() {
        // An earlier run's is no longer true.
        let _ = fs::remove_file(beside);
    } else {
        let text: String = dumps.iter().map(|(heading, report)| format!("{heading}\n\n{report}\n")).collect();
        fs::write(beside, text)?;
    }
    Ok(dumps.into_iter().map(|(heading, report)| Explained { heading, report }).collect())
}

/// Shows explanations below a log; coloured on a terminal.
pub(crate) fn show(dumps: &[Explained]) {
    for Explained { heading, report } in dumps {
        let title = console::style(format!("dump at {heading}")).bold();
        match console::colors_enabled() {
            true => println!("\n{title}\n\n{}", report.styled()),
            false => println!("\n{title}\n\n{report}"),
        }
    }
}
