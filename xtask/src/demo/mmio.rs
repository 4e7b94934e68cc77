//! `cargo xtask demo mmio`.

use anyhow::Result;

use crate::card::Width;
use crate::scenario::{Scenario, mmio};

#[derive(clap::Args)]
pub(super) struct Args {
    /// The width in bits of the accesses that the port's registers answer to
    #[arg(long, value_enum, default_value = "32")]
    width: Width,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(mmio(self.width))
    }
}
