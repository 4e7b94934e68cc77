//! Faults on the way: each exception by its real cause, at each place; what damage does; breakpoints; no console.
//!
//! docs/faults.md shows the table of [`CAUSES`].

use anyhow::{Context as _, Result, bail, ensure};
use kexec_decode::dump::State;
use kexec_decode::{Dump, Found};

use super::{Ends, Heard, Scenario, Step};
use crate::bundle::{Bundle, Content};
use crate::paths;

/// Where a fault happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Place {
    /// Under the running kernel's map, when the transition's descriptor tables have just been loaded
    Enter,
    /// At the instruction that moves pages
    Move,
    /// At the new kernel's first instruction
    Entry,
    /// In a new kernel with a GDT and a stack of its own
    OwnGdt,
    /// In the first lines of the second kernel, with its source
    Payload,
}

impl Place {
    const ALL: [Place; 5] = [Place::Enter, Place::Move, Place::Entry, Place::OwnGdt, Place::Payload];

    /// What the test kernel calls it.
    const fn name(self) -> &'static str {
        match self {
            Place::Enter => "enter",
            Place::Move => "move",
            Place::Entry => "entry",
            Place::OwnGdt => "own-gdt",
            Place::Payload => "payload",
        }
    }

    /// `kexec_abi::Phase`, as a dump has it.
    const fn phase(self) -> u64 {
        match self {
            Place::Enter => 1,
            Place::Move => 3,
            Place::Entry | Place::OwnGdt | Place::Payload => 4,
        }
    }
}

/// Why an exception is raised, and what comes of it.
#[derive(Debug)]
pub(crate) struct Cause {
    /// What the test kernel calls it.
    pub(crate) name: &'static str,
    pub(crate) vector: u64,
    error: Option<u64>,
    cr2: Option<u64>,
    /// In words, for the table.
    how: &'static str,
    /// Not RIP at the code that is at fault, but where it went.
    astray: bool,
    not_at: &'static [(Place, &'static str)],
}

/// Error codes that QEMU 7.2's TCG has other than the manual: 16 bytes a gate where the index counts, and P left out with RSVD.
const TCG: &[(&str, u64)] = &[("vector-above-31", 0x402), ("reserved-bit", 8)];

const UNMAPPED: u64 = 0x6eee_dead_b000;

/// Why `enter` lacks what needs a stack of its own.
const NO_STACKS: &[(Place, &str)] = &[(
    Place::Enter,
    "gates do not switch stacks while the running kernel's descriptor tables may be in force: RSP is the transition's own there",
)];

/// Besides, the fault needs the TSS's descriptor, which the new kernel's own GDT has not.
const NO_TSS: &[(Place, &str)] =
    &[NO_STACKS[0], (Place::OwnGdt, "the code loads TR anew, and the new kernel's GDT has no TSS")];

const fn cause(name: &'static str, vector: u64, error: Option<u64>, how: &'static str) -> Cause {
    Cause { name, vector, error, cr2: None, how, astray: false, not_at: &[] }
}

const fn at(cause: Cause, cr2: u64) -> Cause {
    Cause { cr2: Some(cr2), ..cause }
}

const fn astray(cause: Cause) -> Cause {
    Cause { astray: true, ..cause }
}

const fn without(cause: Cause, not_at: &'static [(Place, &'static str)]) -> Cause {
    Cause { not_at, ..cause }
}

/// The reasons why the rest of the vectors has no cause here.
const NOT_RAISED: &[(u64, &str)] = &[
    (17, "#AC: only at CPL 3"),
    (21, "#CP: TCG has no CET, and `int` pushes no error code"),
    (29, "#VC: of a guest with encrypted state; `int` pushes no error code"),
    (30, "#SX: SVM's; `int` pushes no error code"),
];

pub(crate) const CAUSES: &[Cause] = &[
    cause("divide", 0, None, "`div` by zero"),
    cause("debug", 1, None, "an instruction breakpoint in DR0; it goes on"),
    cause("nmi", 2, None, "an NMI from outside; it goes on, counted"),
    cause("breakpoint", 3, None, "`int3`; it goes on"),
    cause("int-4", 4, None, "`int 4` (`into` is no instruction in 64-bit mode)"),
    cause("int-5", 5, None, "`int 5` (`bound` is no instruction in 64-bit mode)"),
    cause("undefined", 6, None, "`ud2`"),
    cause("not-available", 7, None, "x87 with CR0.TS set"),
    cause("double-fault", 8, Some(0), "`div` by zero through a gate that is not present"),
    cause("int-9", 9, None, "`int 9` (no processor since the 386 raises it)"),
    without(
        cause("tss", 10, Some(0x70), "`int3` through a gate whose stack lies beyond the TSS's limit"),
        NO_TSS,
    ),
    cause("not-present", 11, Some(0x40), "`mov fs` of a segment that is not present"),
    cause("bad-ss", 12, Some(0x40), "`mov ss` of a segment that is not present"),
    cause("non-canonical", 13, Some(0), "a read at an address that is not canonical"),
    astray(cause("non-canonical-jump", 13, Some(0), "a jump to an address that is not canonical")),
    cause("bad-selector", 13, Some(0x28), "`mov ds` of an empty slot of the GDT"),
    cause("vector-above-31", 13, Some(0x202), "`int 0x40`, for which there is no gate"),
    at(cause("unmapped-read", 14, Some(0), "a read where nothing is mapped"), UNMAPPED),
    at(cause("unmapped-write", 14, Some(2), "a write where nothing is mapped"), UNMAPPED),
    cause("read-only", 14, Some(3), "a write to the page code"),
    astray(cause("no-execute", 14, Some(0x11), "a jump into the IDT")),
    at(
        cause("reserved-bit", 14, Some(9), "a read through an entry with a reserved bit set"),
        0x7f80_0000_0000,
    ),
    without(
        at(cause("bad-rsp", 14, Some(2), "a push with RSP where nothing is mapped"), UNMAPPED - 8),
        NO_STACKS,
    ),
    cause("int-15", 15, None, "`int 15` (reserved)"),
    cause("x87", 16, None, "the square root of -1, unmasked, CR0.NE set"),
    cause("machine-check", 18, None, "a machine check from outside"),
    cause("int-19", 19, None, "`int 19` (TCG does not raise SSE's exceptions)"),
    cause("int-20", 20, None, "`int 20` (#VE is VT-x's, which TCG lacks)"),
    cause("int-22", 22, None, "`int 22` (reserved)"),
    cause("int-23", 23, None, "`int 23` (reserved)"),
    cause("int-24", 24, None, "`int 24` (reserved)"),
    cause("int-25", 25, None, "`int 25` (reserved)"),
    cause("int-26", 26, None, "`int 26` (reserved)"),
    cause("int-27", 27, None, "`int 27` (reserved)"),
    cause("int-28", 28, None, "`int 28` (#HV comes from a hypervisor of SEV guests)"),
    cause("int-31", 31, None, "`int 31` (reserved)"),
];

impl Cause {
    /// Why there is no such cell, if there is none.
    fn missing(&self, place: Place) -> Option<&'static str> {
        let not_here = self.not_at.iter().find(|(other, _)| *other == place);
        not_here.map(|(_, why)| *why)
    }

    /// Not the fault itself, but the dump that ends the run.
    fn last_vector(&self) -> u64 {
        if matches!(self.vector, 1..=3) { UD } else { self.vector }
    }
}

/// What ends the code of a fault from which there is a return.
const UD: u64 = 6;

pub(super) fn scenarios() -> Vec<Scenario> {
    let cells = CAUSES.iter().flat_map(|cause| Place::ALL.map(|place| (cause, place)));
    let cells = cells.filter(|(cause, place)| cause.missing(*place).is_none());
    let mut scenarios: Vec<_> = cells.map(|(cause, place)| fault(cause, place)).collect();
    scenarios.extend(DAMAGE.iter().map(damage));
    scenarios.extend(breakpoints());
    scenarios.extend(without_a_dump());
    scenarios.push(exceptions());
    scenarios
}

/// The cause for a vector, or the reason why there is none.
pub(crate) fn cause_of(vector: u64, place: Place) -> Result<&'static Cause> {
    if let Some((_, why)) = NOT_RAISED.iter().find(|(other, _)| *other == vector) {
        bail!("vector {vector} cannot be raised here: {why}");
    }
    let cause = CAUSES.iter().find(|cause| cause.vector == vector).context("no exception has that vector")?;
    match cause.missing(place) {
        Some(why) => bail!("not there: {why}"),
        None => Ok(cause),
    }
}

/// A cell of the table.
pub(crate) fn fault(cause: &'static Cause, place: Place) -> Scenario {
    let name = format!("fault/{}-at-{}", cause.name, place.name());
    let mut scenario = lab(name, &format!("fault {} {}", place.name(), cause.name), place);
    // The dump of an int3 is the sign that the machine waits for what comes from outside.
    scenario = match cause.name {
        "nmi" => dumped(scenario).then(Step::Nmi),
        "machine-check" => {
            dumped(scenario).then(Step::Monitor("mce 0 0 0xb200000000000000 0 0 0".to_owned()))
        }
        "debug" | "breakpoint" => dumped(scenario),
        _ => scenario,
    };
    dumped(scenario).inspect(move |heard| Ok(format!("{}; {}", cause.how, cell(heard, cause, place)?)))
}

fn lab(name: String, command: &str, place: Place) -> Scenario {
    let bundle = match place {
        Place::Payload => Bundle::default().with("second", Content::Kernel("second".to_owned())),
        _ => Bundle::default(),
    };
    Scenario::lab(name, command)
        .with_bundle(bundle)
        .forbid("fault in dumper|^lab: error|^lab: no ")
        .ends(Ends::Halted)
        .limit(60)
}

/// One more dump, whole.
fn dumped(scenario: Scenario) -> Scenario {
    scenario.expect("^kexec-dump begin version=1$").expect("^kexec-dump end crc32=[0-9a-f]{8}$")
}

/// The dumps of a log, each with its checksum right.
fn dumps(heard: &Heard) -> Result<Vec<Dump>> {
    let log = heard.lines.iter().flat_map(|line| [line, "\r\n"]).collect::<String>();
    let found = Dump::find_all(log.as_bytes());
    found
        .into_iter()
        .map(|Found { state, dump, .. }| {
            ensure!(state == State::Complete, "a dump is {state:?}");
            Ok(dump)
        })
        .collect()
}

fn number(dump: &Dump, name: &str) -> Result<u64> {
    dump.number(name).with_context(|| format!("no {name} in the dump"))
}

/// Judges a cell by the raw dump, and by what the decoder makes of it.
fn cell(heard: &Heard, cause: &Cause, place: Place) -> Result<String> {
    let dumps = dumps(heard)?;
    let vectors = dumps.iter().map(|dump| number(dump, "vector")).collect::<Result<Vec<_>>>()?;
    let wanted = match cause.vector {
        // What is asked for is dumped, and then the ud2 behind it.
        1 | 3 => vec![cause.vector, UD],
        // An NMI is not dumped; an int3 comes before it.
        2 => vec![3, UD],
        18 => vec![3, 18],
        vector => vec![vector],
    };
    ensure!(vectors == wanted, "dumps of the vectors {vectors:x?}, not {wanted:x?}");
    let (dump, report) = dumps.iter().zip(heard.dumps).next_back().context("no dump")?;
    ensure!(number(dump, "phase")? == place.phase(), "phase {}", number(dump, "phase")?);
    let error = dump.number("error");
    if cause.vector == cause.last_vector() {
        ensure!(
            error == cause.error || error.is_some_and(|error| TCG.contains(&(cause.name, error))),
            "error code {error:x?}, not {:x?}",
            cause.error
        );
    }
    if let Some(cr2) = cause.cr2 {
        ensure!(number(dump, "cr2")? == cr2, "CR2 {:#x}, not {cr2:#x}", number(dump, "cr2")?);
    }
    for (name, vector) in [("debug", 1), ("nmi", 2)] {
        let count = u64::from(cause.vector == vector);
        ensure!(number(dump, name)? == count, "{} of {name}, not {count}", number(dump, name)?);
    }
    if cause.vector == 14 {
        ensure!(dump.get("pml4e").is_some(), "no walk of CR2");
    }
    let report = report.to_string();
    if place == Place::Move {
        ensure!(report.contains("SOURCE: "), "the entry at hand is not told");
    }
    if cause.astray {
        return Ok("RIP is where it went".to_owned());
    }
    let rip = number(dump, "rip")?;
    match place {
        Place::Enter => says(&report, "label `enter`"),
        Place::Move => says(&report, "label `walk`"),
        Place::Entry | Place::OwnGdt => {
            ensure!(rip >> 12 == 0x400, "RIP {rip:#x} is not in the new kernel");
            says(&report, "segment 0")
        }
        Place::Payload => source_line(&report, cause.name),
    }
}

fn says(report: &str, sentence: &str) -> Result<String> {
    ensure!(report.contains(sentence), "the decoder does not say: {sentence}");
    Ok(sentence.to_owned())
}

/// That the line named is the one of the second kernel which has that fault.
fn source_line(report: &str, cause: &str) -> Result<String> {
    const FILE: &str = "examples/second/src/fault.rs";
    let place = format!("{}:", FILE.trim_start_matches("examples/"));
    let line = report.split(&place).nth(1).context("the decoder names no line of the second kernel")?;
    let line: usize = line.chars().take_while(char::is_ascii_digit).collect::<String>().parse()?;
    let source = std::fs::read_to_string(paths::root().join(FILE))?;
    let text = source.lines().nth(line - 1).unwrap_or_default();
    ensure!(text.contains(&format!("b\"{cause}\"")), "{FILE}:{line} is `{}`", text.trim());
    Ok(format!("{FILE}:{line}"))
}

/// Something bad in what was prepared, and what it comes to: name, vector, error code, CR2, phase, what the decoder says.
type Damage = (&'static str, u64, Option<u64>, Option<u64>, u64, &'static str);

/// Where there is no memory, as the test kernel has it.
const NOWHERE: u64 = 1 << 42;

const DAMAGE: &[Damage] = &[
    ("list-source", 14, Some(0), Some(NOWHERE), 3, "SOURCE: "),
    ("list-destination", 14, Some(2), Some(NOWHERE), 3, "SOURCE: "),
    ("list-over-code", 14, Some(3), None, 3, "the PTE is read-only"),
    ("list-link", 14, Some(0), Some(NOWHERE), 3, "INDIRECTION: the list goes on at 0x40000000000"),
    ("entry-unmapped", 14, Some(0x10), Some(NOWHERE), 4, "CR2 is RIP"),
    ("entry-non-canonical", 13, Some(0), None, 4, "phase leave"),
];

fn damage(damage: &'static Damage) -> Scenario {
    let (name, vector, error, cr2, phase, sentence) = damage;
    let scenario = lab(format!("fault/damage-{name}"), &format!("damage {name}"), Place::Move);
    dumped(scenario).inspect(move |heard| {
        let dumps = dumps(heard)?;
        let [dump] = &dumps[..] else { bail!("{} dumps", dumps.len()) };
        let found = [number(dump, "vector")?, number(dump, "error")?, number(dump, "phase")?];
        let wanted = [*vector, error.unwrap_or_default(), *phase];
        ensure!(found == wanted, "vector, error code, phase {found:x?}, not {wanted:x?}");
        ensure!(cr2.is_none() || dump.number("cr2") == *cr2, "CR2 {:x?}", dump.number("cr2"));
        says(&heard.dumps[0].to_string(), sentence)
    })
}

/// Point by point, without compiling anything anew.
fn breakpoints() -> Vec<Scenario> {
    let phases = [("enter", 1_u64), ("identity", 2), ("move", 3), ("leave", 4)];
    let there = |name: &str, wanted: Vec<u64>| {
        let scenario =
            lab(format!("fault/breakpoint-at-{name}"), &format!("breakpoints {name}"), Place::Move);
        let scenario = wanted.iter().fold(scenario, |scenario, _| dumped(scenario));
        scenario.ends(Ends::Exit(0x10)).inspect(move |heard| stops(heard, &wanted))
    };
    let mut scenarios: Vec<_> = phases.iter().map(|(name, phase)| there(name, vec![*phase])).collect();
    scenarios.push(there("all", vec![1, 2, 3, 4]));
    let back = lab("fault/breakpoints-there-and-back".to_owned(), "breakpoints-and-back", Place::Move);
    let back = (1..=7).fold(back, |scenario, _| dumped(scenario));
    scenarios.push(
        back.expect("^lab: back, .* 6 breakpoints in the transition's map, 1 in this kernel's$")
            .ends(Ends::Ready)
            .inspect(|heard| stops(heard, &[1, 2, 3, 4, 5, 6, 7])),
    );
    let stepped = lab("fault/a-dump-at-each-instruction".to_owned(), "single-step", Place::Move);
    scenarios.push(stepped.ends(Ends::Exit(0x10)).inspect(|heard| {
        let dumps = dumps(heard)?;
        for (dump, count) in dumps.iter().zip(1..) {
            ensure!(number(dump, "vector")? == 1, "vector {}", number(dump, "vector")?);
            ensure!(number(dump, "debug")? <= count, "dump {count} has {} of debug", number(dump, "debug")?);
        }
        for phase in 1..=4 {
            ensure!(dumps.iter().any(|dump| dump.number("phase") == Some(phase)), "none in phase {phase}");
        }
        Ok(format!("{} boundaries", dumps.len()))
    }));
    scenarios
}

/// A breakpoint's dump in each of the phases, and nothing else.
fn stops(heard: &Heard, phases: &[u64]) -> Result<String> {
    let dumps = dumps(heard)?;
    let found = dumps.iter().map(|dump| Ok((number(dump, "vector")?, number(dump, "phase")?)));
    let wanted: Vec<_> = phases.iter().map(|phase| (3, *phase)).collect();
    let found = found.collect::<Result<Vec<_>>>()?;
    ensure!(found == wanted, "vectors and phases {found:?}, not {wanted:?}");
    Ok(String::new())
}

/// Where nothing is printed, or not all, the end is orderly all the same.
fn without_a_dump() -> Vec<Scenario> {
    let silent = |name: &str, command: &str, place| {
        lab(format!("fault/{name}"), command, place).forbid("^kexec-dump").expect("^lab: plan: end$")
    };
    let mut scenarios: Vec<_> = Place::ALL
        .into_iter()
        .filter(|place| *place != Place::OwnGdt)
        .map(|place| {
            let command = format!("fault {} unmapped-read silent", place.name());
            silent(&format!("no-console-at-{}", place.name()), &command, place)
        })
        .collect();
    scenarios.push(
        silent("breakpoints-without-a-console", "breakpoints all silent", Place::Move).ends(Ends::Exit(0x10)),
    );
    let mut marked = lab("fault/in-the-dumper".to_owned(), "fault move unmapped-read loud-once", Place::Move);
    marked.forbidden.retain(|pattern| !pattern.is_match("fault in dumper"));
    scenarios.push(
        marked
            .forbid("^kexec-dump end")
            .expect("^kexec-dump begin version=1$")
            .expect("^kexec-dump fault in dumper vector=0{15}6 rip=[0-9a-f]{16}$")
            .inspect(|heard| says(&heard.dumps[0].to_string(), "the dumper itself was stopped by #UD")),
    );
    // A reset never passes but here, where it was asked for and comes after a whole dump.
    let reset =
        lab("fault/a-reset-where-it-was-asked-for".to_owned(), "fault move divide reset", Place::Move);
    scenarios.push(dumped(reset).fails("^it was reset .* but a halt"));
    scenarios
}

/// `kexec-exception` alone, in a kernel without kexec.
fn exceptions() -> Scenario {
    let bundle = Bundle::default().with("append", Content::Bytes(Vec::new()));
    Scenario::boot("exceptions/looks-at-its-faults-and-goes-on", "exceptions", bundle)
        .expect("r12 was 0x0123456789abcdef$")
        .expect("skipped after #UD")
        .expect("r12 was 0x0123456789abcdef$")
        .expect("continued after #BP")
        .expect("r12 was 0x0123456789abcdef$")
        .expect("redirected after #PF")
        .expect("r12 was 0x0123456789abcdef$")
        .expect("back on the stack after #DF")
        .expect("all four survived$")
        .ends(Ends::Exit(0x10))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(cause: &Cause) -> String {
        cause.error.map_or("none".to_owned(), |error| format!("{error:#x}"))
    }

    #[test]
    fn the_table_in_the_documentation_is_this_one() {
        let file = std::fs::read_to_string(paths::root().join("docs/faults.md")).unwrap();
        let cell = |cause: &Cause, place| if cause.missing(place).is_some() { "n/a" } else { "yes" };
        let rows = CAUSES.iter().map(|cause| {
            let places = Place::ALL.map(|place| cell(cause, place)).join(" | ");
            format!("| {} | `{}` | {} | {} | {places} |", cause.vector, cause.name, cause.how, error(cause))
        });
        let missing = NOT_RAISED.iter().map(|(vector, why)| format!("| {vector} | n/a | {why} |"));
        let lost: Vec<_> = rows.chain(missing).filter(|row| !file.contains(row.as_str())).collect();
        assert!(lost.is_empty(), "docs/faults.md lacks\n{}", lost.join("\n"));
    }

    #[test]
    fn each_exception_vector_has_a_cause_or_a_reason() {
        for vector in 0..32 {
            let raised = CAUSES.iter().any(|cause| cause.vector == vector);
            assert_ne!(raised, NOT_RAISED.iter().any(|(other, _)| *other == vector), "vector {vector}");
        }
    }
}
