//! `cargo xtask demo chain`.

use anyhow::Result;

use crate::scenario::{Linux, Scenario, chain};

#[derive(clap::Args)]
pub(super) struct Args {}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(chain(Linux::default()))
    }
}
