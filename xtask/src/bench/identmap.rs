//! The table of identmap's benchmarks.

use super::{Measured, time};

/// What the ratios refer to: the like of it, with the same sizes of leaves.
const OURS: &str = "identmap";
const OURS_GIANT: &str = "identmap, 1 GiB leaves";

pub(super) fn print(measured: &[Measured]) {
    println!("{:<20} {:<28} {:>9} {:>13}  beside it, identmap is", "map", "way", "time", "table frames");
    for case in measured.chunk_by(|a, b| a.case == b.case) {
        for one in case {
            // What only writes has no tables, but as many bytes as the tables of identmap.
            let frames = if one.way == "write" { String::new() } else { (one.bytes / 4096).to_string() };
            let like = if one.way.ends_with("1 GiB leaves") { OURS_GIANT } else { OURS };
            let ratio = match case.iter().find(|ours| ours.way == like) {
                Some(ours) if one.way != like => ratio(ours.nanoseconds, one.nanoseconds),
                _ => String::new(),
            };
            println!("{:<20} {:<28} {:>9} {frames:>13}  {ratio}", one.case, one.way, time(one.nanoseconds));
        }
    }
    println!(
        "Times are medians. x86_64's mapper and identmap build the same map, in the fewest tables; the usual"
    );
    println!(
        "algorithm rounds out to 2 MiB, so it maps the holes too; write fills as many frames as identmap's tables take."
    );
}

/// How fast we are beside another.
fn ratio(ours: f64, other: f64) -> String {
    if ours <= other {
        format!("{:.1} times as fast", other / ours)
    } else {
        format!("{:.1} times as slow", ours / other)
    }
}
