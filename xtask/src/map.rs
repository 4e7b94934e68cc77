//! The map of a transition, as the test kernel's command `map` prints it: the plan, and lines that begin with `map: `.

pub(crate) mod svg;

use std::fmt;
use std::ops::Range;

use anyhow::{Context as _, Result, ensure};
use kexec_decode::Plan;

/// A map and all that lies in it. Addresses are physical.
pub(crate) struct Map {
    pub(crate) plan: Plan,
    /// The memory map, with the kind of each region.
    pub(crate) memory: Vec<(Range<u64>, String)>,
    /// Where the content of the destinations lies before it is moved.
    pub(crate) sources: Vec<Range<u64>>,
    /// Content that lies where it is wanted.
    pub(crate) in_place: Vec<Range<u64>>,
    pub(crate) list: Vec<Range<u64>>,
    pub(crate) tables: Vec<Range<u64>>,
    pub(crate) leaves: Vec<Leaves>,
}

/// Leaves of one size and of the same rights, in a row, where virtual and physical addresses are equal.
pub(crate) struct Leaves {
    pub(crate) range: Range<u64>,
    /// `4 KiB` or the like.
    pub(crate) size: String,
    /// `rwx` or the like.
    pub(crate) rights: String,
}

impl Leaves {
    /// How many.
    pub(crate) fn count(&self) -> u64 {
        let bytes = match self.size.as_str() {
            "1 GiB" => 1 << 30,
            "2 MiB" => 1 << 21,
            _ => 1 << 12,
        };
        (self.range.end - self.range.start) / bytes
    }
}

impl Map {
    /// Reads the first map of a log.
    pub(crate) fn read(lines: &[String]) -> Result<Self> {
        let plan = Plan::find_all(lines.join("\n").as_bytes()).into_iter().next().context("no plan")?;
        let mut map = Map {
            plan,
            memory: Vec::new(),
            sources: Vec::new(),
            in_place: Vec::new(),
            list: Vec::new(),
            tables: Vec::new(),
            leaves: Vec::new(),
        };
        for line in lines
            .iter()
            .filter_map(|line| line.split_once("map: ").filter(|(who, _)| !who.contains("plan: ")))
        {
            let words: Vec<&str> = line.1.split_whitespace().collect();
            map.line(&words).with_context(|| format!("not a line of a map: {}", line.1))?;
        }
        Ok(map)
    }

    fn line(&mut self, words: &[&str]) -> Option<()> {
        match *words {
            ["memory", range, kind] => self.memory.push((self::range(range)?, kind.to_owned())),
            ["source", range] => self.sources.push(self::range(range)?),
            ["in-place", range] => self.in_place.push(self::range(range)?),
            ["list", range] => self.list.push(self::range(range)?),
            ["table", range] => self.tables.push(self::range(range)?),
            ["leaves", number, unit, rights, .., range] => self.leaves.push(Leaves {
                range: self::range(range)?,
                size: format!("{number} {unit}"),
                rights: rights.to_owned(),
            }),
            _ => return None,
        }
        Some(())
    }

    /// What holds for every transition: the leaves are those of the plan's map; nothing that the move reads or walks lies in a
    /// destination, or can be executed; each destination can be.
    pub(crate) fn check(&self) -> Result<()> {
        ensure!(self.plan.complete && self.plan.defects.is_empty(), "the plan is not whole");
        ensure!(!self.memory.is_empty() && !self.leaves.is_empty(), "nothing is mapped");
        let planned: u64 =
            self.plan.runs.iter().filter(|run| !run.alias).map(|run| run.range.end - run.range.start).sum();
        let mapped: u64 = self.leaves.iter().map(|leaves| leaves.range.end - leaves.range.start).sum();
        ensure!(planned == mapped, "the leaves map {mapped:#x} bytes, the plan {planned:#x}");
        for leaves in &self.leaves {
            let run = self.plan.runs.iter().find(|run| {
                run.range.start <= leaves.range.start
                    && leaves.range.end <= run.range.end
                    && run.rights == leaves.rights
            });
            ensure!(run.is_some(), "leaves at {:#x} are not the plan's", leaves.range.start);
        }
        for (what, ranges) in [("source", &self.sources), ("list", &self.list), ("table", &self.tables)] {
            for range in ranges {
                let inside = self.plan.segments.iter().any(|segment| overlap(&segment.range, range));
                ensure!(!inside, "the {what} {range:#x?} lies in a destination");
                let executable = self
                    .leaves
                    .iter()
                    .any(|leaves| overlap(&leaves.range, range) && leaves.rights.ends_with('x'));
                ensure!(!executable, "the {what} {range:#x?} can be executed");
            }
        }
        for segment in &self.plan.segments {
            let mapped = self
                .plan
                .runs
                .iter()
                .filter(|run| run.rights == "rwx" && overlap(&run.range, &segment.range));
            let bytes: u64 = mapped
                .map(|run| run.range.end.min(segment.range.end) - run.range.start.max(segment.range.start))
                .sum();
            ensure!(
                bytes == segment.range.end - segment.range.start,
                "the segment {:#x?} is not rwx",
                segment.range
            );
        }
        Ok(())
    }

    /// How many leaves there are of a size.
    pub(crate) fn count(&self, size: &str) -> u64 {
        self.leaves.iter().filter(|leaves| leaves.size == size).map(Leaves::count).sum()
    }

    /// How many frames the tables take.
    pub(crate) fn table_frames(&self) -> u64 {
        self.tables.iter().map(|range| (range.end - range.start) >> 12).sum()
    }
}

impl fmt::Display for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} tables, leaves", self.table_frames())?;
        for (size, separator) in [("1 GiB", ":"), ("2 MiB", ","), ("4 KiB", ",")] {
            write!(f, "{separator} {} of {size}", self.count(size))?;
        }
        Ok(())
    }
}

pub(crate) fn overlap(a: &Range<u64>, b: &Range<u64>) -> bool {
    a.start < b.end && b.start < a.end
}

/// Of `0xstart..0xend`.
fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once("..")?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x")?, 16).ok();
    Some(number(start)?..number(end)?)
}
