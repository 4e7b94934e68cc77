//! `cargo xtask demo return`.

use anyhow::Result;

use crate::scenario::{Scenario, rounds};

#[derive(clap::Args)]
pub(super) struct Args {
    /// How often to go there and back
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// The peer's levels of paging; the kernel that calls it has 4
    #[arg(long, value_parser = clap::value_parser!(u8).range(4..=5))]
    levels: Option<u8>,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(rounds("demo/return", self.rounds, self.levels))
    }
}
