//! What a machine said on its serial port: bytes into lines, and who spoke each of them.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context, Result};
use console::{Style, style};
use regex::Regex;

use crate::scenario::regex;

/// The serial log of one run: raw bytes on disk as they come, lines in memory.
pub(crate) struct Log {
    pub(crate) path: PathBuf,
    file: File,
    splitter: Splitter,
    pub(crate) lines: Vec<String>,
}

impl Log {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Log { path: path.to_owned(), file, splitter: Splitter::default(), lines: Vec::new() })
    }

    /// Takes what was received; gives the lines that this completed.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> io::Result<&[String]> {
        self.file.write_all(bytes)?;
        let old = self.lines.len();
        self.lines.extend(self.splitter.split(bytes));
        Ok(&self.lines[old..])
    }

    /// The machine has ended: what came after the last newline is a line too.
    pub(crate) fn end(&mut self) -> &[String] {
        let old = self.lines.len();
        self.lines.extend(self.splitter.rest());
        &self.lines[old..]
    }

    /// The last lines, for a failure report.
    pub(crate) fn tail(&self, count: usize) -> &[String] {
        &self.lines[self.lines.len().saturating_sub(count)..]
    }
}

/// Splits bytes into lines; escape sequences (the firmware's, with which it sets up a terminal) and control
/// characters are dropped.
#[derive(Default)]
struct Splitter {
    pending: Vec<u8>,
}

impl Splitter {
    fn split(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            match byte {
                b'\n' => lines.push(clean(&std::mem::take(&mut self.pending))),
                byte => self.pending.push(byte),
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        let rest = clean(&std::mem::take(&mut self.pending));
        (!rest.is_empty()).then_some(rest)
    }
}

fn clean(line: &[u8]) -> String {
    // ECMA-48, control sequences: parameters, intermediates, one final byte.
    static ESCAPE: LazyLock<Regex> = LazyLock::new(|| regex(r"\x1b(\[[0-?]*[ -/]*[@-~]|[@-Z\\-_])?"));
    let line = String::from_utf8_lossy(line);
    ESCAPE
        .replace_all(&line, "")
        .chars()
        .filter(|character| *character == '\t' || !character.is_control())
        .collect()
}

/// Shows lines as they come. On a terminal each has its speaker before it; elsewhere the lines are as they were.
pub(crate) struct Live {
    speaker: String,
}

impl Live {
    pub(crate) fn new() -> Self {
        Live { speaker: "firmware".to_owned() }
    }

    pub(crate) fn show(&mut self, line: &str) {
        if let Some(speaker) = speaker(line) {
            self.speaker = speaker.to_owned();
        }
        if console::user_attended() {
            println!("{} {line}", style(format!("{:>8} │", self.speaker)).fg(colour(&self.speaker)));
        } else {
            println!("{line}");
        }
    }
}

/// Who a line says that it comes from: a kernel's name before a colon, or Linux's time stamp.
fn speaker(line: &str) -> Option<&str> {
    if line.starts_with('[') && line.get(1..14).is_some_and(is_time_stamp) {
        return Some("linux");
    }
    let (name, _) = line.split_once(": ")?;
    let known =
        matches!(name, "first" | "second" | "lab" | "init" | "peer" | "exceptions" | "serial" | "console");
    known.then_some(name)
}

/// `    0.000000]`, as printk has it.
fn is_time_stamp(text: &str) -> bool {
    text.ends_with(']') && text[..12].trim_start().parse::<f32>().is_ok()
}

fn colour(speaker: &str) -> console::Color {
    match speaker {
        "first" => console::Color::Cyan,
        "second" => console::Color::Magenta,
        "linux" => console::Color::Yellow,
        "init" => console::Color::Green,
        "lab" | "peer" | "console" => console::Color::Blue,
        _ => console::Color::Color256(8),
    }
}

/// The end of a log, set off from the report around it.
pub(crate) fn show_tail(log: &Log) {
    let dim = Style::new().dim();
    for line in log.tail(25) {
        println!("    {} {line}", dim.apply_to("│"));
    }
    println!("    {} {}", dim.apply_to("└"), log.path.display());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_whole_however_the_bytes_came_in() {
        let text = b"\x1b[2J\x1b[=3h\x1b[01;01Hfirst: hello\r\nsecond: h\xc3\xa9\r\n\nrest";
        for size in 1..text.len() {
            let mut splitter = Splitter::default();
            let mut lines: Vec<_> = text.chunks(size).flat_map(|chunk| splitter.split(chunk)).collect();
            lines.extend(splitter.rest());
            assert_eq!(lines, ["first: hello", "second: hé", "", "rest"], "in chunks of {size}");
        }
    }

    #[test]
    fn a_speaker_is_known_by_name_or_by_time_stamp() {
        assert_eq!(speaker("first: hello"), Some("first"));
        assert_eq!(speaker("init: release 6.1"), Some("init"));
        assert_eq!(speaker("[    0.000000] Command line: a"), Some("linux"));
        assert_eq!(speaker("[  115.123456] x"), Some("linux"));
        assert_eq!(speaker("BdsDxe: starting"), None);
        assert_eq!(speaker("[short"), None);
        assert_eq!(speaker("[ ééééééééé ] multi-byte"), None);
    }
}
