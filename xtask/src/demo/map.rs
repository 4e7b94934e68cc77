//! `cargo xtask demo map`.

use std::fs;

use anyhow::{Context as _, Result};

use crate::map::{Map, svg};
use crate::paths;
use crate::scenario::{Scenario, transition_map};

#[derive(clap::Args)]
pub(super) struct Args {
    /// Let none of the image lie where it is wanted, so that all of it has to be moved
    #[arg(long)]
    moved: bool,
}

impl Args {
    pub(super) fn scenario(self) -> Result<Scenario> {
        Ok(transition_map("demo/map", self.moved).inspect(|heard| {
            let map = Map::read(heard.lines)?;
            map.check()?;
            let file = paths::target().join("transition-map.svg");
            fs::write(&file, svg::draw(&map)).with_context(|| format!("cannot write {}", file.display()))?;
            Ok(format!("{map}; drawn in {}", file.display()))
        }))
    }
}
