//! `cargo xtask bench NAME`: runs a crate's benchmarks and prints them side by side, with the ratios that matter.
//!
//! Criterion measures, and leaves two files a benchmark: its identity with the bytes it writes, and its estimates.

mod identmap;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;
use std::{env, fs};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::{cargo, paths, ui};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Whose benchmarks
    name: Name,
    /// Only those whose name contains this, such as "64 GiB"
    filter: Option<String>,
    /// Also write the results to this file
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Name {
    /// Page tables: time and frames, beside x86_64's mapper and the usual algorithm of kernels
    Identmap,
}

/// One way to do one thing, measured.
struct Measured {
    /// The thing: criterion's group.
    case: String,
    /// The way: criterion's parameter.
    way: String,
    /// The median of the time that it takes, in nanoseconds.
    nanoseconds: f64,
    /// The number of bytes that it writes.
    bytes: u64,
    finished: SystemTime,
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let (package, print): (_, fn(&[Measured])) = match args.name {
        Name::Identmap => ("identmap", identmap::print),
    };
    let results = paths::target().join("bench").join(package);
    if results.exists() {
        fs::remove_dir_all(&results).with_context(|| format!("cannot empty {}", results.display()))?;
    }
    let mut command = cargo::bench(package, args.filter.as_deref().unwrap_or(""));
    ui::run(format!("measuring {package}"), command.env("CRITERION_HOME", &results))?;
    let mut measured = Vec::new();
    collect(&results, &mut measured)?;
    ensure!(!measured.is_empty(), "no benchmark has such a name");
    measured.sort_by_key(|one| one.finished);
    print(&measured);
    if let Some(file) = args.json {
        let rows: Vec<Value> = measured.iter().map(Measured::json).collect();
        let text = serde_json::to_string_pretty(
            &json!({ "benchmark": package, "machine": machine(), "results": rows }),
        )?;
        fs::write(&file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
        ui::say(format!("written to {}", file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

impl Measured {
    fn json(&self) -> Value {
        json!({ "case": self.case, "way": self.way, "nanoseconds": self.nanoseconds, "bytes": self.bytes })
    }
}

/// What it was measured on, in words.
fn machine() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, name)| name);
    format!("{} ({})", model.unwrap_or("unknown processor"), env::consts::OS)
}

/// Reads all results below a folder.
fn collect(folder: &Path, measured: &mut Vec<Measured>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("no results in {}", folder.display()))? {
        let path = entry?.path();
        if path.is_dir() && path.ends_with("new") {
            measured.push(read(&path)?);
        } else if path.is_dir() {
            collect(&path, measured)?;
        }
    }
    Ok(())
}

fn read(folder: &Path) -> Result<Measured> {
    let load = |name: &str| -> Result<Value> {
        let file = folder.join(name);
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        serde_json::from_str(&text)
            .with_context(|| format!("{} is not what criterion writes", file.display()))
    };
    let (identity, estimates) = (load("benchmark.json")?, load("estimates.json")?);
    let text = |key: &str| identity[key].as_str().unwrap_or_default().to_owned();
    Ok(Measured {
        case: text("group_id"),
        way: text("value_str"),
        nanoseconds: estimates["median"]["point_estimate"]
            .as_f64()
            .context("an estimate without a median")?,
        bytes: identity["throughput"]["Bytes"].as_u64().unwrap_or(0),
        finished: fs::metadata(folder.join("estimates.json"))?.modified()?,
    })
}

/// A time in the unit that leaves at most three digits before the point.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}
