//! `cargo xtask demo [NAME]`: one scenario, shown live. A file each, below; a demo is what its `scenario()` gives.

mod chain;
mod fault;
mod linux;
mod map;
mod mmio;
mod return_;

use std::process::ExitCode;

use anyhow::Result;
use clap::Subcommand;

use crate::context::Context;
use crate::dump;
use crate::log::Live;
use crate::qemu::Options;
use crate::scenario::{self, Scenario};
use crate::ui;

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    qemu: Options,
    #[command(subcommand)]
    demo: Option<Demo>,
}

#[derive(Subcommand)]
enum Demo {
    /// Three kernels, one power-on (the default)
    Chain(chain::Args),
    /// From a Rust kernel into any Linux
    Linux(linux::Args),
    /// There and back: a peer that returns
    Return(return_::Args),
    /// An exception on the way, its dump, and the dump explained
    Fault(fault::Args),
    /// The identity map of a transition, printed and drawn
    Map(map::Args),
    /// Dumps through a serial port in memory
    Mmio(mmio::Args),
}

impl Demo {
    fn scenario(self) -> Result<Scenario> {
        match self {
            Demo::Chain(args) => args.scenario(),
            Demo::Linux(args) => args.scenario(),
            Demo::Return(args) => args.scenario(),
            Demo::Fault(args) => args.scenario(),
            Demo::Map(args) => args.scenario(),
            Demo::Mmio(args) => args.scenario(),
        }
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let scenario = args.demo.unwrap_or(Demo::Chain(chain::Args {})).scenario()?;
    let context = Context::new(&args.qemu)?;
    let outcome = scenario::run(&scenario, &context, Some(Live::new()))?;
    let (name, seconds) = (&scenario.name, outcome.elapsed.as_secs_f32());
    dump::show(&outcome.dumps);
    ui::say(format!("serial log: {}", outcome.log.path.display()));
    match &outcome.verdict {
        Ok(said) if said.is_empty() => ui::verdict(true, format!("{name} in {seconds:.1} s")),
        Ok(said) => ui::verdict(true, format!("{name} in {seconds:.1} s: {said}")),
        Err(why) => ui::verdict(false, format!("{name} after {seconds:.1} s: {why}")),
    }
    Ok(if outcome.verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
