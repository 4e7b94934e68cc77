//! The host tests: `cargo test` as a child, its lines read.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write, pipe};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::{Count, Verdict};
use crate::{cargo, paths, ui};

/// What of the filter is for libtest; nothing if it can only mean scenarios.
pub(super) fn filter(filter: &str) -> Option<&str> {
    match filter.strip_prefix("host") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => Some(rest.trim_start_matches('/')),
        _ if filter.contains('/') => None,
        _ => Some(filter),
    }
}

/// Runs the tests of the root workspace, and of the tools that have a workspace of their own.
pub(super) fn run(filter: &str, count: &mut Count) -> Result<()> {
    let mut log = File::create(paths::folder("logs")?.join("host.log"))?;
    follow("workspace", cargo::test(paths::root(), None, filter), &mut log, count)?;
    for tool in tools(&paths::root().join("tools"))? {
        let name = tool.file_name().unwrap_or_default().to_string_lossy().into_owned();
        follow(&name, cargo::test(&tool, Some(&name), filter), &mut log, count)?;
    }
    Ok(())
}

/// The tools with a workspace of their own, but for disk-image: it is a few lines around `bootloader`, which a
/// test would build a second time, and every scenario tests it.
fn tools(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut tools = Vec::new();
    for entry in fs::read_dir(folder)? {
        let tool = entry?.path();
        let manifest = fs::read_to_string(tool.join("Cargo.toml")).unwrap_or_default();
        if manifest.lines().any(|line| line.trim() == "[workspace]") && !tool.ends_with("disk-image") {
            tools.push(tool);
        }
    }
    tools.sort();
    Ok(tools)
}

fn follow(name: &str, mut command: Command, log: &mut File, count: &mut Count) -> Result<()> {
    // Both streams through one pipe: the names of the test programs come on the one, their lines on the other.
    let (reader, writer) = pipe()?;
    let step = ui::Step::new(format!("host tests of {name}"));
    let spawned =
        command.stdin(std::process::Stdio::null()).stdout(writer.try_clone()?).stderr(writer).spawn();
    let mut child = spawned.context("cannot run cargo test")?;
    drop(command);
    let mut reading = Reading::default();
    for line in BufReader::new(reader).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        writeln!(log, "{line}")?;
        step.progress(&line);
        if let Some((name, verdict)) = reading.line(&line) {
            count.case(&name, &verdict);
        }
    }
    let status = child.wait()?;
    let failures = reading.failures.join("\n");
    if status.success() {
        step.done();
    } else {
        step.failed();
        println!("{failures}");
        if reading.failed == 0 {
            let why = format!("cargo test failed without a failed test ({status})\n{}", reading.tail());
            count.case(&format!("host/{name}"), &Verdict::Failed(why));
        }
    }
    Ok(())
}

/// What has been read of `cargo test`.
#[derive(Default)]
struct Reading {
    /// The test program, by its crate.
    program: String,
    /// What libtest shows of failed tests.
    failures: Vec<String>,
    in_failures: bool,
    failed: usize,
    last: Vec<String>,
}

impl Reading {
    /// Takes a line; gives the case that it tells of.
    fn line(&mut self, line: &str) -> Option<(String, Verdict)> {
        self.last.push(line.to_owned());
        if let Some(program) = program(line) {
            self.program = program.to_owned();
        }
        match line {
            "failures:" => self.in_failures = true,
            line if line.starts_with("test result:") => self.in_failures = false,
            _ => {}
        }
        if self.in_failures {
            self.failures.push(format!("    {line}"));
            return None;
        }
        let (name, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        let verdict = match result {
            "ok" => Verdict::Passed,
            "FAILED" => {
                self.failed += 1;
                Verdict::Failed("see below".to_owned())
            }
            // A doc example that is only compiled says so after its name, and is "ok".
            result => Verdict::Skipped(result.strip_prefix("ignored")?.trim_start_matches(", ").to_owned()),
        };
        Some((format!("host/{}/{name}", self.program), verdict))
    }

    fn tail(&self) -> String {
        self.last[self.last.len().saturating_sub(30)..].join("\n")
    }
}

/// The crate that cargo says it runs the tests of: `Running unittests src/lib.rs (target/…/deps/identmap-0123)`,
/// or `Doc-tests identmap`.
fn program(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if let Some(name) = line.strip_prefix("Doc-tests ") {
        return Some(name);
    }
    let path = line.strip_prefix("Running ")?.rsplit_once('(')?.1.trim_end_matches(')');
    Some(path.rsplit(['/', '\\']).next()?.rsplit_once('-')?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(lines: &[&str]) -> Vec<(String, &'static str)> {
        let mut reading = Reading::default();
        let cases = lines.iter().filter_map(|line| reading.line(line));
        let word = |verdict| match verdict {
            Verdict::Passed => "passed",
            Verdict::Failed(_) => "failed",
            Verdict::Skipped(_) => "skipped",
        };
        cases.map(|(name, verdict)| (name, word(verdict))).collect()
    }

    #[test]
    fn cases_are_named_by_crate_and_counted_by_result() {
        let cases = read(&[
            "     Running unittests src/lib.rs (target/debug/deps/kexec_abi-0123abcd)",
            "running 3 tests",
            "test a::b ... ok",
            "test a::c ... FAILED",
            "test d ... ignored, takes an hour",
            "failures:",
            "test e ... ok",
            "test result: FAILED. 1 passed; 1 failed; 1 ignored",
            "   Doc-tests identmap",
            "test crates/identmap/src/lib.rs - (line 7) ... ok",
        ]);
        let expected = [
            ("host/kexec_abi/a::b", "passed"),
            ("host/kexec_abi/a::c", "failed"),
            ("host/kexec_abi/d", "skipped"),
            ("host/identmap/crates/identmap/src/lib.rs - (line 7)", "passed"),
        ];
        assert_eq!(cases, expected.map(|(name, word)| (name.to_owned(), word)));
    }

    #[test]
    fn a_filter_with_a_slash_means_scenarios_unless_it_says_host() {
        assert_eq!(filter(""), Some(""));
        assert_eq!(filter("digest"), Some("digest"));
        assert_eq!(filter("linux/debian"), None);
        assert_eq!(filter("host"), Some(""));
        assert_eq!(filter("host/digest"), Some("digest"));
        assert_eq!(filter("hostile"), Some("hostile"));
    }
}
