//! The plan that a transition printed before it began: what was to lie where, and mapped how.

use core::fmt;
use core::ops::Range;

/// The mark that each line of a plan begins with, after whatever a console puts in front.
const MARK: &str = "plan: ";

/// A printed plan, as far as it could be read. Lines that were lost leave their field empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Plan {
    /// Offset of the plan's first line in the text that it was read from, in bytes.
    pub offset: usize,
    /// The version of the printed form; 1 is known here.
    pub version: Option<u64>,
    /// `copy` or `swap`.
    pub mode: Option<String>,
    /// Paging depth of the transition map: 4 or 5.
    pub levels: Option<u64>,
    /// Where the new kernel is entered.
    pub entry: Option<u64>,
    /// The destinations, physical.
    pub segments: Vec<Segment>,
    /// The list's head: as it is printed, an entry or a frame.
    pub list_head: Option<u64>,
    /// The frame of the map's top-level table.
    pub tables_root: Option<u64>,
    /// The control frames.
    pub frames: Vec<ControlFrame>,
    /// The pieces of page code in the code frame.
    pub pieces: Vec<Piece>,
    /// The labels of the pieces.
    pub labels: Vec<Label>,
    /// The runs of leaves of the transition map, aliases among them.
    pub runs: Vec<Run>,
    /// What could not be printed, in the words of the plan.
    pub defects: Vec<String>,
    /// Whether the plan's last line was found.
    pub complete: bool,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Physical addresses.
    pub range: Range<u64>,
    /// Bytes from the start that come from the payload; zeros after them.
    pub content: u64,
}

/// A frame that the transition keeps for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlFrame {
    /// Physical address.
    pub start: u64,
    /// `r-x` or the like.
    pub rights: String,
    /// What it holds.
    pub name: String,
}

impl ControlFrame {
    /// The frame's bytes.
    #[must_use]
    pub fn range(&self) -> Range<u64> {
        self.start..self.start.saturating_add(4096)
    }
}

/// A piece of page code in the code frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Physical addresses.
    pub range: Range<u64>,
    /// The name of the static that declares it.
    pub name: String,
}

/// A label of a piece, with the bytes that it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label {
    /// Physical addresses.
    pub range: Range<u64>,
    /// The piece's name.
    pub piece: String,
    /// The label's name.
    pub name: String,
}

/// A run of leaves of the transition map with the same attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Virtual addresses.
    pub range: Range<u64>,
    /// The physical address of the first byte.
    pub physical: u64,
    /// `rwx` or the like.
    pub rights: String,
    /// The memory type, `wb` or `uc`, and `shared` where it is.
    pub memory_type: String,
    /// Whether it is the alias of something mapped elsewhere.
    pub alias: bool,
}

impl Run {
    /// Where the plan maps `address`, which lies in the run.
    #[must_use]
    pub fn translate(&self, address: u64) -> u64 {
        self.physical.wrapping_add(address.wrapping_sub(self.range.start))
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Range { start, end } = self.range;
        write!(f, "{start:#x}..{end:#x} {} {}", self.rights, self.memory_type)?;
        if self.physical == start { write!(f, ", identity") } else { write!(f, " -> {:#x}", self.physical) }
    }
}

impl Plan {
    /// All plans in `text`, in order. Anything may stand between their lines and in front of each.
    #[must_use]
    pub fn find_all(text: &[u8]) -> Vec<Plan> {
        let mut plans: Vec<Plan> = Vec::new();
        let mut offset = 0;
        for line in text.split_inclusive(|&byte| byte == b'\n') {
            let start = offset;
            offset += line.len();
            let line = String::from_utf8_lossy(line);
            let Some((_, rest)) = line.split_once(MARK) else { continue };
            let words: Vec<&str> = rest.split_whitespace().collect();
            let begins = words.first() == Some(&"version");
            match plans.last_mut() {
                Some(plan) if !begins && !plan.complete => plan.read(&words),
                _ => {
                    let mut plan = Plan { offset: start, ..Plan::default() };
                    plan.read(&words);
                    // A stray line is no plan.
                    if plan != (Plan { offset: start, ..Plan::default() }) {
                        plans.push(plan);
                    }
                }
            }
        }
        plans
    }

    /// The segment in which the physical `address` lies.
    #[must_use]
    pub fn segment(&self, address: u64) -> Option<(usize, &Segment)> {
        self.segments.iter().enumerate().find(|(_, segment)| segment.range.contains(&address))
    }

    /// The control frame in which the physical `address` lies.
    #[must_use]
    pub fn frame(&self, address: u64) -> Option<&ControlFrame> {
        self.frames.iter().find(|frame| frame.range().contains(&address))
    }

    /// The frame of the code frame's kind, where the pieces lie.
    #[must_use]
    pub fn code_frame(&self) -> Option<&ControlFrame> {
        self.frames.iter().find(|frame| frame.name == "code")
    }

    /// The piece in which the physical `address` lies.
    #[must_use]
    pub fn piece(&self, address: u64) -> Option<&Piece> {
        self.pieces.iter().find(|piece| piece.range.contains(&address))
    }

    /// The label in which the physical `address` lies.
    #[must_use]
    pub fn label(&self, address: u64) -> Option<&Label> {
        self.labels.iter().find(|label| label.range.contains(&address))
    }

    /// The run of the transition map in which the virtual `address` lies.
    #[must_use]
    pub fn run(&self, address: u64) -> Option<&Run> {
        self.runs.iter().find(|run| run.range.contains(&address))
    }

    /// The runs next below and next above `address`, which lies in none.
    #[must_use]
    pub fn neighbours(&self, address: u64) -> (Option<&Run>, Option<&Run>) {
        let below = self.runs.iter().filter(|run| run.range.end <= address).max_by_key(|run| run.range.end);
        let above =
            self.runs.iter().filter(|run| run.range.start > address).min_by_key(|run| run.range.start);
        (below, above)
    }

    fn read(&mut self, words: &[&str]) {
        // What does not fit is a damaged line: it says nothing.
        let _ = self.read_line(words);
    }

    fn read_line(&mut self, words: &[&str]) -> Option<()> {
        match *words.first()? {
            "version" => self.version = Some(number(words.get(1)?)?),
            "mode" => {
                self.mode = Some((*words.get(1)?).to_owned());
                self.levels = after(words, "levels").and_then(number);
                self.entry = after(words, "entry").and_then(number);
            }
            "segment" => {
                let range = range(words.get(1)?)?;
                let length = range.end - range.start;
                let content = after(words, "content").and_then(number).unwrap_or(length);
                self.segments.push(Segment { range, content });
            }
            "list" => self.list_head = after(words, "head").and_then(number),
            "tables" => self.tables_root = after(words, "root").and_then(number),
            "frame" => self.frames.push(ControlFrame {
                start: number(words.get(1)?)?,
                rights: (*words.get(2)?).to_owned(),
                name: words.get(3..)?.join(" "),
            }),
            "piece" => {
                self.pieces.push(Piece { range: range(words.get(1)?)?, name: (*words.get(2)?).to_owned() });
            }
            "label" => self.labels.push(Label {
                range: range(words.get(1)?)?,
                piece: (*words.get(2)?).to_owned(),
                name: words.get(3..)?.join(" "),
            }),
            kind @ ("map" | "alias") => {
                let range = range(words.get(1)?)?;
                let physical = match after(words, "->") {
                    Some(physical) => number(physical)?,
                    None => range.start,
                };
                let mut attributes = words.get(2..)?.iter();
                if words.get(2) == Some(&"->") {
                    attributes.nth(1)?;
                }
                self.runs.push(Run {
                    range,
                    physical,
                    rights: (*attributes.next()?).to_owned(),
                    memory_type: attributes.copied().collect::<Vec<_>>().join(" "),
                    alias: kind == "alias",
                });
            }
            "segments:" | "map:" => self.defects.push(words.join(" ")),
            "end" => self.complete = true,
            _ => return None,
        }
        Some(())
    }
}

/// The word after `name`.
fn after<'a>(words: &[&'a str], name: &str) -> Option<&'a str> {
    words.iter().position(|word| *word == name).and_then(|at| words.get(at + 1)).copied()
}

/// `0x` and hex digits, or decimal digits.
pub(crate) fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16).ok(),
        Some(_) => None,
        None => text.parse().ok(),
    }
}

/// `start..end`, with `start <= end`. An end of 0 is 2^64, which a `u64` cannot hold: the last byte is left out.
fn range(text: &str) -> Option<Range<u64>> {
    let (start, end) = text.split_once("..")?;
    let (start, end) = (number(start)?, number(end)?);
    let end = if end == 0 && start > 0 { u64::MAX } else { end };
    (start <= end).then_some(start..end)
}
