//! Dumps in a log: found among whatever else was printed, and read as far as they go. The format: docs/dump-format.md.

use core::ops::Range;

use kexec_abi::Phase;
use kexec_exception::Vector;

/// In the first line of a dump.
const BEGIN: &str = "kexec-dump begin version=";
/// In the last line.
const END: &str = "kexec-dump end crc32=";
/// In the mark that ends a dump whose dumper faulted.
const FAULT: &str = "kexec-dump fault in dumper";
/// A dump is under 4 KiB. This leaves room for what others print in between; what comes later is none of it.
const LONGEST: usize = 64 * 1024;

/// A dump in a log, with how much of it there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it lies in the log, in bytes: from its first line to its last, or as far as it was looked for.
    pub range: Range<usize>,
    /// The line of the log that it begins in; the first is 1.
    pub line: usize,
    /// How much of it there is.
    pub state: State,
    /// Lines in between that are no line of a dump: of others, or spoilt.
    pub foreign_lines: usize,
    /// What it says.
    pub dump: Dump,
}

/// How much of a dump there is.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum State {
    /// First line, last line, and the checksum is right.
    Complete,
    /// First and last line are there, the checksum is not that of what lies between.
    Damaged {
        /// What the last line says; `None` where that is no number.
        printed: Option<u32>,
        /// What is right for the lines found.
        computed: u32,
    },
    /// The last line is missing.
    Truncated,
    /// The dumper faulted, and said so.
    DumperFault {
        /// The vector of that fault.
        vector: Option<u64>,
        /// And where.
        rip: Option<u64>,
    },
}

/// What a line of a dump says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number.
    Number(u64),
    /// Bytes of memory; `None` where one could not be read.
    Bytes(Vec<Option<u8>>),
    /// Memory that could not be read.
    Unreadable,
}

/// What a dump says, as far as it goes: names and values, each name once, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dump {
    version: Option<u64>,
    values: Vec<(String, Value)>,
}

impl Dump {
    /// All dumps in a log, in order, whole or not. Any bytes may stand around them, between their lines, and in front of
    /// each line (a time stamp, a console's name).
    #[must_use]
    pub fn find_all(log: &[u8]) -> Vec<Found> {
        let mut found = Vec::new();
        let mut open: Option<Open> = None;
        let mut offset = 0;
        for (number, raw) in log.split_inclusive(|&byte| byte == b'\n').enumerate() {
            let start = offset;
            offset += raw.len();
            let line = String::from_utf8_lossy(raw);
            if let Some((_, version)) = line.split_once(BEGIN) {
                found.extend(open.take().map(|open| open.close(start, State::Truncated)));
                open = Some(Open::new(start, offset, number + 1, version));
                continue;
            }
            let Some(dump) = &mut open else { continue };
            if start - dump.start > LONGEST {
                found.extend(open.take().map(|open| open.close(start, State::Truncated)));
            } else if let Some((_, rest)) = line.split_once(FAULT) {
                let of = |name| rest.split_whitespace().find_map(|word| hex16(word.strip_prefix(name)?));
                let state = State::DumperFault { vector: of("vector="), rip: of("rip=") };
                found.extend(open.take().map(|open| open.close(offset, state)));
            } else if let Some((_, rest)) = line.split_once(END) {
                // The marker is ASCII: it lies at the same place in the raw bytes, unless those before it are not UTF-8.
                let marker = raw.windows(END.len()).position(|window| window == END.as_bytes()).unwrap_or(0);
                let between = &log[dump.body..start + marker];
                let printed = rest.get(..8).and_then(|digits| u32::from_str_radix(digits, 16).ok());
                let state = dump.check(between, printed);
                found.extend(open.take().map(|open| open.close(offset, state)));
            } else {
                dump.read(&line);
            }
        }
        found.extend(open.take().map(|open| open.close(offset, State::Truncated)));
        found
    }

    /// The version of the format that the first line names; 1 is known here.
    #[must_use]
    pub const fn version(&self) -> Option<u64> {
        self.version
    }

    /// What the dump says under `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The number that the dump has under `name`.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name) {
            Some(Value::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The bytes at RIP, up to the first that could not be read.
    #[must_use]
    pub fn code(&self) -> Vec<u8> {
        match self.get("bytes") {
            Some(Value::Bytes(bytes)) => bytes.iter().map_while(|byte| *byte).collect(),
            _ => Vec::new(),
        }
    }

    /// The exception's vector; `None` where it is missing or past 255.
    #[must_use]
    pub fn vector(&self) -> Option<Vector> {
        self.number("vector").and_then(|vector| u8::try_from(vector).ok()).map(Vector)
    }

    /// The engine's phase; `None` where it is missing, 0 or unknown.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.number("phase").and_then(Phase::from_u64)
    }

    /// The words at RSP, each with its address; `None` for one that is missing or could not be read.
    pub fn stack(&self) -> impl Iterator<Item = (usize, Option<u64>)> + '_ {
        (0..8).map(|index| (index, self.number(&format!("stack{index}"))))
    }

    /// Names and values in the order of the log.
    pub fn values(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// A dump whose last line has not come yet.
struct Open {
    start: usize,
    body: usize,
    line: usize,
    foreign_lines: usize,
    /// The lines taken for the dump's own, as the dumper printed them.
    own: String,
    dump: Dump,
}

impl Open {
    fn new(start: usize, body: usize, line: usize, version: &str) -> Self {
        let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
        let dump = Dump { version: version[..digits].parse().ok(), values: Vec::new() };
        Open { start, body, line, foreign_lines: 0, own: String::new(), dump }
    }

    fn read(&mut self, line: &str) {
        // Whatever a collector puts in front ends with a space; the dumper prints none in these lines.
        let Some((name, value)) = line.split_whitespace().last().and_then(|word| word.split_once('=')) else {
            self.foreign_lines += usize::from(!line.trim().is_empty());
            return;
        };
        let value = match value {
            "unreadable" => Some(Value::Unreadable),
            _ if name == "bytes" => bytes(value),
            _ => hex16(value).map(Value::Number),
        };
        match value {
            Some(value) if is_name(name) && self.dump.get(name).is_none() => {
                let printed = line.split_whitespace().last().unwrap_or_default();
                self.own.extend([printed, "\r\n"]);
                self.dump.values.push((name.to_owned(), value));
            }
            _ => self.foreign_lines += 1,
        }
    }

    /// Right is the checksum of the bytes as they are, or of the dump's own lines without what others put between.
    fn check(&self, between: &[u8], printed: Option<u32>) -> State {
        let own = crc32fast::hash(self.own.as_bytes());
        if printed == Some(crc32fast::hash(between)) || printed == Some(own) {
            State::Complete
        } else {
            State::Damaged { printed, computed: own }
        }
    }

    fn close(self, end: usize, state: State) -> Found {
        let Open { start, line, foreign_lines, dump, .. } = self;
        Found { range: start..end, line, state, foreign_lines, dump }
    }
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}

/// Exactly 16 digits: a number cut short is another number.
fn hex16(digits: &str) -> Option<u64> {
    let all = digits.len() == 16 && digits.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    all.then(|| u64::from_str_radix(digits, 16).ok())?
}

/// Two digits a byte, or `??`.
fn bytes(digits: &str) -> Option<Value> {
    let pairs = digits.as_bytes().chunks(2);
    let byte = |pair: &[u8]| match pair {
        b"??" => Some(None),
        [b'0'..=b'9' | b'a'..=b'f', b'0'..=b'9' | b'a'..=b'f'] => {
            u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok().map(Some)
        }
        _ => None,
    };
    (!digits.is_empty()).then(|| pairs.map(byte).collect::<Option<Vec<_>>>().map(Value::Bytes))?
}
