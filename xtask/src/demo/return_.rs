//! `cargo xtask demo return`.

use anyhow::Result;

use crate::scenario::{Scenario, rounds};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How often to go there and back
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(rounds("demo/return", self.rounds))
    }
}
