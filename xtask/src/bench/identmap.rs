//! The table of identmap's benchmarks.

use super::{Measured, time};

/// What the ratios refer to.
const OURS: &str = "identmap";

pub(super) fn print(measured: &[Measured]) {
    println!("{:<22} {:<30} {:>10} {:>14} {:>16}", "map", "way", "time", "table frames", "identmap takes");
    for case in measured.chunk_by(|a, b| a.case == b.case) {
        let ours = case.iter().find(|one| one.way == OURS);
        for one in case {
            // What only writes has no tables, but as many bytes as the tables of the first way.
            let frames = if one.way == "write" { String::new() } else { (one.bytes / 4096).to_string() };
            let ratio = match ours {
                Some(ours) if one.way != OURS => ratio(ours.nanoseconds, one.nanoseconds),
                _ => String::new(),
            };
            println!(
                "{:<22} {:<30} {:>10} {frames:>14} {ratio:>16}",
                one.case,
                one.way,
                time(one.nanoseconds)
            );
        }
    }
    println!("write: filling as many frames as identmap's tables take. Time is the median.");
}

/// How long we take beside another.
fn ratio(ours: f64, other: f64) -> String {
    if ours <= other {
        format!("1/{:.1} of it", other / ours)
    } else {
        format!("{:.1} times it", ours / other)
    }
}
