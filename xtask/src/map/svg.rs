//! A map as a picture: the physical addresses from top to bottom, and side by side what they are, what comes to stand there,
//! what lies there before, and the leaves that map them. Not to scale: twice as much memory is a little higher, so that a
//! frame can be seen beside a gigabyte.

use std::collections::BTreeMap;
use std::fmt::{Display, Write};
use std::ops::Range;

use super::Map;

const WIDTH: f64 = 1040.0;
/// Where the columns begin, below their titles.
const TOP: f64 = 108.0;
/// The height of a page, and what each doubling adds to it.
const PAGE: f64 = 15.0;
const DOUBLING: f64 = 1.4;

/// A column: where it is, how wide, and its title.
struct Column(f64, f64, &'static str);

const MEMORY: Column = Column(130.0, 160.0, "memory map");
const DESTINATIONS: Column = Column(300.0, 240.0, "destinations");
const BEFORE: Column = Column(550.0, 180.0, "before the move");
const LEAVES: [(&str, Column); 3] = [
    ("1 GiB", Column(740.0, 90.0, "1 GiB leaves")),
    ("2 MiB", Column(838.0, 90.0, "2 MiB leaves")),
    ("4 KiB", Column(936.0, 90.0, "4 KiB leaves")),
];

/// Colours by meaning, with what the legend says of them.
const RIGHTS: [(&str, &str); 4] =
    [("rwx", "#f6c89f"), ("r-x", "#c5e3a3"), ("rw-", "#c8dcf3"), ("r--", "#e4e4e4")];
const USABLE: &str = "#eef3ea";
const OTHER: &str = "#dddddd";
const DESTINATION: &str = "#f6c89f";
const SOURCE: &str = "#d9cdee";
const CONTROL: &str = "#f3e6a2";

/// The picture of a map.
pub(crate) fn draw(map: &Map) -> String {
    let scale = Scale::new(map);
    let mut picture = Picture { scale, body: String::new() };
    picture.ruler();
    for (range, kind) in &map.memory {
        let colour = if kind == "Usable" { USABLE } else { OTHER };
        picture.block(&MEMORY, range, colour, format!("{kind}, {}", Bytes(range)));
    }
    for segment in &map.plan.segments {
        let content = Bytes(&(0..segment.content));
        picture.block(
            &DESTINATIONS,
            &segment.range,
            DESTINATION,
            format!("{}, content {content}", Bytes(&segment.range)),
        );
    }
    for (ranges, what, colour) in [
        (&map.sources, "source", SOURCE),
        (&map.in_place, "in place already", SOURCE),
        (&map.list, "list", CONTROL),
        (&map.tables, "tables", CONTROL),
    ] {
        for range in ranges {
            picture.block(&BEFORE, range, colour, format!("{what}, {}", Bytes(range)));
        }
    }
    for frame in &map.plan.frames {
        picture.block(&BEFORE, &frame.range(), CONTROL, format!("{} {}", frame.name, frame.rights));
    }
    for leaves in &map.leaves {
        let colour =
            RIGHTS.iter().find(|(rights, _)| *rights == leaves.rights).map_or(OTHER, |(_, colour)| colour);
        for (_, column) in LEAVES.iter().filter(|(size, _)| *size == leaves.size) {
            picture.block(column, &leaves.range, colour, format!("{} {}", leaves.count(), leaves.rights));
        }
    }
    picture.finish(map)
}

/// From an address to a height.
struct Scale {
    /// The height at which each address of interest stands.
    at: BTreeMap<u64, f64>,
    bottom: f64,
}

impl Scale {
    fn new(map: &Map) -> Self {
        let frames: Vec<Range<u64>> = map.plan.frames.iter().map(|frame| frame.range()).collect();
        let ranges = (map.memory.iter().map(|(range, _)| range))
            .chain(map.plan.segments.iter().map(|segment| &segment.range))
            .chain([&map.sources, &map.in_place, &map.list, &map.tables].into_iter().flatten())
            .chain(&frames)
            .chain(map.leaves.iter().map(|leaves| &leaves.range));
        let mut at: BTreeMap<u64, f64> =
            ranges.flat_map(|range| [range.start, range.end]).map(|end| (end, 0.0)).collect();
        let (mut y, mut before) = (TOP, None);
        for (&address, height) in &mut at {
            if let Some(before) = before {
                let pages = ((address - before) as f64 / 4096.0).max(1.0);
                y += PAGE + DOUBLING * pages.log2();
            }
            *height = y;
            before = Some(address);
        }
        Scale { at, bottom: y }
    }

    fn y(&self, address: u64) -> f64 {
        self.at.get(&address).copied().unwrap_or(self.bottom)
    }
}

struct Picture {
    scale: Scale,
    body: String,
}

impl Picture {
    fn line(&mut self, line: impl Display) {
        // A string takes all that is written to it.
        let _ = writeln!(self.body, "{line}");
    }

    fn text(&mut self, x: f64, y: f64, class: &str, text: impl Display) {
        self.line(format_args!(r#"<text x="{x:.0}" y="{y:.1}" class="{class}">{text}</text>"#));
    }

    /// The addresses at which something begins or ends.
    fn ruler(&mut self) {
        let at = self.scale.at.clone();
        for (address, y) in at {
            self.line(format_args!(r#"<path d="M118 {y:.1}H{:.0}" class="rule"/>"#, WIDTH - 14.0));
            self.text(112.0, y + 4.0, "end", format_args!("{address:#x}"));
        }
    }

    fn block(&mut self, column: &Column, range: &Range<u64>, colour: &str, label: impl Display) {
        let Column(x, width, _) = column;
        let (top, bottom) = (self.scale.y(range.start), self.scale.y(range.end));
        self.line(format_args!(
            r#"<rect x="{x:.0}" y="{top:.1}" width="{width:.0}" height="{:.1}" fill="{colour}"/>"#,
            bottom - top
        ));
        self.text(x + width / 2.0, f64::midpoint(top, bottom) + 4.0, "middle", label);
    }

    fn finish(mut self, map: &Map) -> String {
        let (levels, tables) = (map.plan.levels.unwrap_or(4), map.table_frames());
        self.text(14.0, 26.0, "title", "The map of a transition to Linux");
        let root = map.plan.tables_root.unwrap_or(0);
        self.text(
            14.0,
            46.0,
            "start",
            format_args!(
                "{levels} levels of paging from {root:#x}, {tables} table frames. Physical addresses, each mapped at itself; not to scale."
            ),
        );
        let mut x = 14.0;
        for (rights, colour) in RIGHTS {
            self.line(format_args!(r#"<rect x="{x:.0}" y="58" width="14" height="14" fill="{colour}"/>"#));
            self.text(x + 20.0, 69.0, "start", rights);
            x += 60.0;
        }
        self.text(112.0, TOP - 12.0, "end", "from");
        let leaves = LEAVES.iter().map(|(_, column)| column);
        for Column(x, width, title) in [&MEMORY, &DESTINATIONS, &BEFORE].into_iter().chain(leaves) {
            self.text(x + width / 2.0, TOP - 12.0, "head", title);
        }
        let mut y = self.scale.bottom + 34.0;
        self.text(
            14.0,
            y,
            "head-start",
            "aliases: what is in use while the running kernel's map is exchanged for this one",
        );
        for run in map.plan.runs.iter().filter(|run| run.alias) {
            y += 17.0;
            let Range { start, end } = run.range;
            let line =
                format!("{start:#x}..{end:#x} → {:#x} {} {}", run.physical, run.rights, run.memory_type);
            self.text(14.0, y, "start", line);
        }
        let height = y + 18.0;
        format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH:.0} {height:.0}" width="{WIDTH:.0}" height="{height:.0}">
<style>
text {{ font: 11px monospace; fill: #222 }}
rect {{ stroke: #777; stroke-width: 0.7 }}
.title {{ font: bold 18px sans-serif }}
.head, .head-start {{ font: bold 12px sans-serif }}
.middle, .head {{ text-anchor: middle }}
.end {{ text-anchor: end }}
.rule {{ stroke: #ddd; stroke-width: 0.5 }}
</style>
<rect width="100%" height="100%" fill="#fff" stroke="none"/>
{}</svg>
"##,
            self.body
        )
    }
}

/// A length, in the largest unit of which it is at least one.
struct Bytes<'a>(&'a Range<u64>);

impl Display for Bytes<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes = self.0.end - self.0.start;
        let units = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("bytes", 0)];
        let (unit, shift) = units.into_iter().find(|(_, shift)| bytes >> shift != 0).unwrap_or(("bytes", 0));
        let tenths = (u128::from(bytes) * 10) >> shift;
        match tenths % 10 {
            0 => write!(f, "{} {unit}", tenths / 10),
            tenth => write!(f, "{}.{tenth} {unit}", tenths / 10),
        }
    }
}
