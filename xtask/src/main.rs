//! `cargo xtask`: sets up what is missing, builds the kernels, boots them in QEMU, and judges what they say.
//!
//! Plain stable Rust, and never a dependency on `bootloader`: it must run before anything is set up.
//! `xtask/README.md` tells how to add a demo or a scenario.

mod bench;
mod bundle;
mod card;
mod cargo;
mod context;
mod cpio;
mod demo;
mod disk;
mod dump;
mod initrd;
mod log;
mod map;
mod paths;
mod qemu;
mod qmp;
mod scenario;
mod setup;
mod test;
mod ui;

use std::process::ExitCode;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, boots and tests", version)]
enum Command {
    /// Boot a demonstration and show its serial output live
    Demo(demo::Args),
    /// Run all host tests and all QEMU scenarios
    Test(test::Args),
    /// Measure, side by side with others
    Bench(bench::Args),
    /// Explain the dumps in a serial log
    Decode(dump::Args),
    /// Only set up what the other commands need
    Setup(setup::Args),
}

fn main() -> ExitCode {
    let result = match Command::parse() {
        Command::Demo(args) => demo::run(args),
        Command::Test(args) => test::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Decode(args) => dump::run(args),
        Command::Setup(args) => setup::run(args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            ui::error(&error);
            ExitCode::FAILURE
        }
    }
}
