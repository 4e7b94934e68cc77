//! `cargo xtask demo fault`.

use anyhow::Result;

use crate::scenario::{Place, Scenario, cause_of, fault};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Which exception, by its vector, 0 to 31
    #[arg(long, value_name = "N", default_value_t = 14)]
    vector: u64,
    /// Where
    #[arg(long, value_enum, default_value = "payload")]
    at: Place,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(fault(cause_of(self.vector, self.at)?, self.at))
    }
}
