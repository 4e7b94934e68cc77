//! Page tables made by identmap: in force in the processor, and those of a transition.

use anyhow::{Context as _, Result, ensure};

use super::{Heard, Linux, Scenario};
use crate::map::Map;
use crate::qemu::Machine;

pub(super) fn scenarios() -> Vec<Scenario> {
    // The boot loader maps all physical memory, so that there are leaves of every size; with 3 GiB a GiB of RAM has one of its own.
    let in_force = [
        ("in-force", Machine::default(), true),
        ("in-force-with-three-gigabytes", Machine::default().memory(3072), true),
        (
            "in-force-without-giant-pages",
            Machine::default().cpu("max,la57=off,pdpe1gb=off").memory(3072),
            false,
        ),
        ("in-force-on-an-older-processor", Machine::default().cpu("qemu64"), false),
    ];
    let in_force = in_force.into_iter().map(|(name, machine, giant)| {
        Scenario::lab(format!("identmap/{name}"), "identmap")
            .on(machine)
            .expect(r"^lab: 4 levels: [0-9]+ tables \(1 PML4, .*\), [0-9]+ leaves \([0-9]+ of 4 KiB, [0-9]+ of 2 MiB")
            .forbid("^lab: wrong: ")
            .expect("^lab: [0-9]+ accesses done, [0-9]+ refused$")
            .expect("^lab: all as asked for$")
            .inspect(move |heard| tried(heard, giant))
    });
    let maps = [("a-transitions-map", false), ("the-map-of-a-transition-that-moves-all", true)];
    in_force.chain(maps.map(|(name, moved)| transition_map(&format!("identmap/{name}"), moved))).collect()
}

/// How much was tried: enough to be worth something.
fn tried(heard: &Heard, giant: bool) -> Result<String> {
    let number = |after: &str, before: &str| {
        let line =
            heard.lines.iter().find_map(|line| line.split_once(after)?.0.rsplit(before).next()?.parse().ok());
        line.with_context(|| format!("no number before {after}"))
    };
    let (done, refused): (u64, u64) = (number(" accesses done", " ")?, number(" refused", " ")?);
    ensure!(done >= 500 && refused >= 500, "only {done} accesses done and {refused} refused");
    let leaves = number(" of 1 GiB", " ").unwrap_or(0);
    ensure!((leaves > 0) == giant, "{leaves} leaves of 1 GiB");
    Ok(format!("{done} accesses done, {refused} refused"))
}

/// The map of a transition to Linux, and what lies in it.
pub(crate) fn transition_map(name: &str, moved: bool) -> Scenario {
    let linux = Linux::default();
    let command = if moved { "map-moved" } else { "map" };
    Scenario::lab(name, &format!("{command} {}", linux.command_line()))
        .with_bundle(linux.bundle())
        .expect("^lab: plan: end$")
        .expect("^lab: map: memory ")
        .expect("^lab: map: table ")
        .expect("^lab: map: leaves ")
        .expect("^lab: 4 levels from 0x[0-9a-f]+: ")
        .inspect(|heard| {
            let map = Map::read(heard.lines)?;
            map.check()?;
            Ok(map.to_string())
        })
}
