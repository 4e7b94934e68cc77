//! The plan of the transition to Linux: what it takes, and the bounds on it.

use anyhow::{Context as _, Result, ensure};

use super::{Linux, Scenario};
use crate::qemu::Machine;

/// The pieces of page code, and the most bytes that each may have.
const PIECES: &[(&str, u64)] = &[("ENGINE", 1136), ("EXCEPTION", 896), ("DUMP", 1152), ("PIO", 64)];

/// Frames of page code: the pieces together fit one.
const CODE_FRAMES: usize = 1;

/// Control frames that hold data: control block, stack, two debug frames.
const DATA_FRAMES: usize = 4;

/// Frames of tables: a level-1 table for each 2 MiB that is not of one kind, and what leads there, which grows by one for each
/// GiB of RAM where there are no 1 GiB pages.
const TABLES: u64 = 24;

pub(super) fn scenarios() -> Vec<Scenario> {
    let linux = Linux::default();
    let plan = |name: &str, machine| {
        Scenario::lab(format!("plan/{name}"), "plan")
            .with_bundle(linux.bundle())
            .on(machine)
            .expect("^lab: plan: version 1$")
            .expect("^lab: plan: end$")
            .expect("^lab: [0-9]+ frames free, before and after$")
            .inspect(|heard| bounds(heard.lines))
    };
    vec![
        plan("a-transition-to-linux-stays-within-its-bounds", Machine::default()),
        plan("so-it-does-with-six-gigabytes", Machine::default().memory(6144)),
        plan("so-it-does-without-giant-pages", Machine::default().cpu("max,la57=off,pdpe1gb=off")),
    ]
}

fn bounds(lines: &[String]) -> Result<String> {
    let plan = || lines.iter().filter_map(|line| line.strip_prefix("lab: plan: "));
    for (piece, bound) in PIECES {
        let range = plan().find_map(|line| line.strip_prefix("piece ")?.strip_suffix(piece));
        let size = length(range.with_context(|| format!("no piece {piece}"))?.trim())?;
        ensure!(size <= *bound, "{piece} has {size} bytes, more than {bound}");
    }
    let pieces = plan().filter(|line| line.starts_with("piece ")).count();
    ensure!(pieces == PIECES.len(), "{pieces} pieces, not {}", PIECES.len());
    let frames =
        |rights: &str| plan().filter(|line| line.starts_with("frame ") && line.contains(rights)).count();
    ensure!(frames(" r-x ") == CODE_FRAMES, "{} code frames", frames(" r-x "));
    ensure!(frames(" rw- ") == DATA_FRAMES, "{} data frames", frames(" rw- "));
    let count = |name: &str| -> Result<u64> {
        let line = plan().find(|line| line.starts_with(name)).with_context(|| format!("no line {name}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let (list, tables) = (count("list ")?, count("tables ")?);
    ensure!(tables <= TABLES, "{tables} frames of tables, more than {TABLES}");
    // 511 entries a frame, and most pages are in place or in long runs.
    ensure!(list <= 2, "{list} frames of list");
    Ok(format!("{} control frames, {tables} of tables, {list} of list", CODE_FRAMES + DATA_FRAMES))
}

/// Of `0xstart..0xend`.
fn length(range: &str) -> Result<u64> {
    let (start, end) = range.split_once("..").context("no range")?;
    let number = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16);
    Ok(number(end)? - number(start)?)
}
