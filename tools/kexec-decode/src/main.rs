//! `kexec-decode LOG`: see the library.

use std::process::ExitCode;

use clap::Parser;
use kexec_decode::cli;

/// Finds kexec fault dumps in a serial log and explains them
#[derive(Parser)]
#[command(name = "kexec-decode", version)]
struct Command {
    #[command(flatten)]
    args: cli::Args,
}

fn main() -> anyhow::Result<ExitCode> {
    cli::run(Command::parse().args)
}
