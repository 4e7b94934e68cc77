//! The command line, for the program and for whoever wraps it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::dump::{Dump, State};
use crate::kernel::Kernel;
use crate::plan::Plan;
use crate::report::Report;

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
    let decoded = decode(&log, kernels, plan.as_deref());
    if decoded.is_empty() {
        anstream::eprintln!("no dump in {}", args.log.display());
        return Ok(ExitCode::FAILURE);
    }
    let count = decoded.len();
    for (index, (heading, report)) in decoded.iter().enumerate() {
        let title = anstyle::Style::new().bold().underline();
        anstream::println!("{title}Dump {} of {count}, {heading}{title:#}\n\n{}", index + 1, report.styled());
    }
    Ok(ExitCode::SUCCESS)
}

/// Finds and explains all dumps of a log: a heading and a report each. Takes the plan from `plan` (the last one there), or
/// from the log (the last one before the dump).
#[must_use]
pub fn decode(log: &[u8], mut kernels: Vec<Kernel>, plan: Option<&[u8]>) -> Vec<(String, Report)> {
    let found = Dump::find_all(log);
    let code: Vec<_> =
        found.iter().filter_map(|found| Some((found.dump.number("rip")?, found.dump.code()))).collect();
    for kernel in &mut kernels {
        kernel.find_bias(log, &code);
    }
    let given = plan.and_then(|text| Plan::find_all(text).pop());
    let printed = Plan::find_all(log);
    let explain = |found: &crate::dump::Found| {
        let before = printed.iter().rfind(|plan| plan.offset < found.range.start);
        let plan = given.as_ref().or(before);
        let state = match found.state {
            State::Complete => "complete",
            State::Damaged { .. } => "damaged",
            State::Truncated => "truncated",
            State::DumperFault { .. } => "ended by a fault of the dumper",
        };
        (format!("line {} of the log, {state}", found.line), Report::new(found, &kernels, plan))
    };
    found.iter().map(explain).collect()
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
