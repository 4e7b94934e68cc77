//! Go there and come back: `Prepared::jump`, and a peer that returns.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Ends, Heard, Scenario, Step};
use crate::bundle::{Bundle, Content};
use crate::qemu::Machine;

/// Callees that return in bad shape: labels of examples/peers' `HOSTILE`.
const SHAPES: &[&str] = &[
    "direction",
    "interrupts",
    "flags",
    "selectors",
    "tables",
    "map",
    "cr4",
    "efer",
    "cr0",
    "bases",
    "registers",
    "all",
];

/// Instruction boundaries of a round without a debug exception: docs/transition.md has the table.
const UNTRAPPED: u64 = 5 + 1 + 33 + 10 + 4;

/// Instructions of the callee in it: ENDBR64, STD, RET.
const CALLEE: u64 = 3;

/// How often the test kernel asks for NMIs, how many it gets each time, and those that the transition has to handle: some come in
/// the kernel, and pending ones coalesce.
const NMI_REQUESTS: usize = 1200;
const NMIS: usize = 4;
const NMIS_HANDLED: u64 = 1000;

pub(super) fn scenarios() -> Vec<Scenario> {
    let five = || Machine::default().cpu("max,la57=on");
    let mut all = vec![
        rounds("return/three-rounds", 3, None),
        rounds("return/a-thousand-rounds", 1000, None),
        rounds("return/three-rounds-with-five-levels", 3, Some(5)),
        rounds("return/a-hundred-rounds-with-five-levels", 100, Some(5)),
        rounds("return/three-rounds-without-giant-pages", 3, None)
            .on(Machine::default().cpu("max,pdpe1gb=off")),
        detour(),
        self_test(),
        called("return/the-entry-state-of-a-callee", "return called"),
        called("return/the-entry-state-of-a-callee-with-five-levels", "return levels=5 called").on(five()),
        entered("return/the-entry-state-of-a-new-kernel", "return entered"),
        entered("return/the-entry-state-of-a-new-kernel-with-five-levels", "return levels=5 entered")
            .on(five()),
        frames("return/control-frames-in-the-live-tables", "return frames"),
        frames("return/control-frames-in-the-live-tables-with-five-levels", "return levels=5 frames")
            .on(five()),
        stepped("return/single-stepped", 1),
        stepped("return/single-stepped-over-many-pages", 20),
        nmi(),
        machine_check(),
    ];
    all.extend(SHAPES.iter().map(|shape| {
        lab(format!("return/hostile-{shape}"), &format!("return hostile {shape}"))
            .expect("^lab: returned, next entry 0x400")
            .expect("^lab: returned, next entry 0x400")
            .expect("^lab: done$")
    }));
    all.push(
        lab("return/hostile-all-with-five-levels", "return levels=5 hostile all")
            .on(five())
            .expect("^lab: returned, next entry 0x400")
            .expect("^lab: done$"),
    );
    all
}

/// A command of the test kernel that returns, with the peer in its bundle.
fn lab(name: impl Into<String>, command: &str) -> Scenario {
    let bundle = Bundle::default().with("peer", Content::Kernel("peer".to_owned()));
    Scenario::lab(name, command).with_bundle(bundle).forbid("^lab: (wrong|error): ")
}

/// The demo: there and back, `count` times; memory, the peer's data and the processor's state are as they were. The peer has
/// that many levels of paging, if not those of the test kernel, which has 4.
pub(crate) fn rounds(name: &str, count: u32, levels: Option<u8>) -> Scenario {
    let checked = count.min(10) + if count > 10 { count / 100 } else { 0 };
    let levels = levels.map(|levels| format!("levels={levels} ")).unwrap_or_default();
    lab(name, &format!("return {levels}rounds {count}"))
        .on(Machine::default().cpu("max,la57=on"))
        .expect("^peer: called at entry 1$")
        .expect(&format!("^lab: {count} rounds$"))
        .expect("^lab: done$")
        .limit(120 + u64::from(count) / 5)
        .inspect(move |heard| {
            let memory = |line: &String| {
                let digest = line.strip_prefix("lab: ")?.split_once(": memory ")?.1.get(..16)?;
                Some(digest.to_owned())
            };
            let digests: Vec<String> = heard.lines.iter().filter_map(memory).collect();
            ensure!(digests.len() as u32 == 1 + checked, "{} digests", digests.len());
            ensure!(digests.iter().all(|digest| *digest == digests[0]), "digests differ: {digests:?}");
            Ok(format!("memory {} {} times", digests[0], digests.len()))
        })
}

fn self_test() -> Scenario {
    let scenario = lab("return/the-self-test-of-linux", "return self-test");
    (0..4)
        .fold(scenario, |scenario, _| scenario.expect("^lab: returned, next entry 0x400"))
        .expect("^lab: 4 breakpoints$")
        .expect("^lab: done$")
        .inspect(|heard| {
            let count = |start: &str| heard.lines.iter().filter(|line| line.starts_with(start)).count();
            ensure!(heard.dumps.len() == 4, "{} dumps", heard.dumps.len());
            ensure!(count("vector=0000000000000003") == 4, "other vectors than 3");
            ensure!(count("phase=0000000000000004") == 4, "other phases than leave");
            Ok(String::new())
        })
}

fn frames(name: &str, command: &str) -> Scenario {
    lab(name, command)
        .expect("leaves over control frames, none writable and executable$")
        .expect("leaves of the transition map, all asked for$")
        .expect("^lab: code frame [0-9a-f]{16}, after three calls [0-9a-f]{16}$")
        .expect("^lab: done$")
}

fn stepped(name: &str, pages: u32) -> Scenario {
    lab(name, &format!("return stepped {pages}"))
        .on(Machine::default().with(["-icount", "shift=6"]))
        .expect("^lab: [0-9]+ instructions, [0-9]+ debug exceptions, [0-9]+ boundaries without$")
        .expect("^lab: done$")
        .limit(120)
        .inspect(|heard| {
            let line = heard.lines.iter().find(|line| line.contains("debug exceptions"));
            let line = line.context("no counts")?;
            let numbers = line.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
            let [instructions, exceptions, without] = numbers.collect::<Vec<u64>>()[..] else {
                bail!("not three numbers: {line}");
            };
            ensure!(
                without == UNTRAPPED + CALLEE,
                "{without} boundaries without, not {UNTRAPPED} + {CALLEE}"
            );
            Ok(format!("{exceptions} debug exceptions in {instructions} instructions"))
        })
}

fn nmi() -> Scenario {
    let scenario = lab("return/a-thousand-nmis", &format!("return nmi {NMI_REQUESTS}")).limit(240);
    let request = |scenario: Scenario, _| {
        (0..NMIS).fold(scenario.expect("^lab: nmi$"), |scenario, _| scenario.then(Step::Nmi))
    };
    (0..NMI_REQUESTS).fold(scenario, request).expect("^lab: [0-9]+ jumps: ").expect("^lab: done$").inspect(
        |heard| {
            let line = heard.lines.iter().find_map(|line| line.split_once(" jumps: "));
            let (_, counts) = line.context("no counts")?;
            let numbers = counts.split(|c: char| !c.is_ascii_digit()).filter_map(|word| word.parse().ok());
            let numbers: Vec<u64> = numbers.collect();
            let transition: u64 = numbers.iter().take(2).sum();
            ensure!(transition >= NMIS_HANDLED, "{counts}");
            Ok(counts.to_owned())
        },
    )
}

fn machine_check() -> Scenario {
    lab("return/a-machine-check-dumps", "return mce")
        .expect("^peer: waiting$")
        .then(Step::Monitor("mce 0 9 0xbd80000000100134 4 0x12340000 0x8c".to_owned()))
        .expect("^vector=0000000000000012$")
        .expect("^phase=0000000000000004$")
        .expect("^kexec-dump end ")
        .ends(Ends::Halted)
}

/// A fault in the detour between paging depths, while paging is off.
fn detour() -> Scenario {
    lab("return/a-fault-without-paging-dumps", "return levels=5 detour")
        .on(Machine::default().cpu("max,la57=on"))
        .expect("^vector=0000000000000006$")
        .expect("^cs=0000000000000068$")
        .expect("^phase=0000000000000004$")
        .expect("^kexec-dump end ")
        .ends(Ends::Halted)
}

fn called(name: &str, command: &str) -> Scenario {
    lab(name, command)
        .expect("^peer: called at entry 1$")
        .expect("^lab: done$")
        .inspect(|heard| Entry::of(heard)?.check(true))
}

fn entered(name: &str, command: &str) -> Scenario {
    lab(name, command)
        .expect("^peer: entered at entry 1$")
        .ends(Ends::Exit(0x10))
        .inspect(|heard| Entry::of(heard)?.check(false))
}

/// What a peer said of its entry, and the plan that led to it.
struct Entry<'a> {
    lines: &'a [String],
    registers: HashMap<&'a str, u64>,
}

impl<'a> Entry<'a> {
    fn of(heard: &Heard<'a>) -> Result<Self> {
        let mut registers = HashMap::new();
        for line in heard.lines.iter().filter_map(|line| line.strip_prefix("peer: ")) {
            if let Some((name, value)) = line.split_once('=') {
                registers.insert(name, number(value)?);
            }
        }
        Ok(Self { lines: heard.lines, registers })
    }

    /// The first number of the plan's line that begins and ends so.
    fn plan(&self, start: &str, end: &str) -> Result<u64> {
        let plan = |line: &'a String| line.strip_prefix("lab: ")?.strip_prefix(start)?.strip_suffix(end);
        let rest = self.lines.iter().find_map(plan).with_context(|| format!("no line {start} … {end}"))?;
        number(rest.trim().split([' ', '.']).next().unwrap_or_default())
    }

    /// Each cell of docs/entry-state.md.
    fn check(mut self, called: bool) -> Result<String> {
        let stack = self.plan("plan: frame ", " rw- stack")?;
        let debug = self.plan("plan: frame ", " rw- debug")?;
        // By a detour the new kernel gets a top-level table of its own.
        let root = match self.plan("plan: frame ", " rw- root-5-levels") {
            Ok(root) => root,
            Err(_) => {
                let root = self.lines.iter().find_map(|line| line.strip_prefix("lab: plan: tables root "));
                number(root.context("no root")?.split(' ').next().unwrap_or_default())?
            }
        };
        let five = self.lines.iter().any(|line| line.contains("levels 5"));
        let entry = self.lines.iter().find_map(|line| line.split_once("  entry ")).context("no entry")?.1;
        let entry = number(entry)?;

        let mut expected: Vec<(&str, u64)> = vec![("rip", entry)];
        let zero =
            ["rax", "rbx", "rcx", "rdx", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];
        expected.extend(zero.map(|name| (name, 0)));
        if called {
            let reenter = self.plan("plan: label ", " ENGINE reenter")?;
            let report = self.plan("report at ", "")?;
            // The return address, the entry point, and below the top of the page the zero.
            expected.extend([
                ("rsp", stack + 0x1000 - 24),
                ("[rsp]", reenter),
                ("[rsp+8]", entry),
                ("rsi", report),
            ]);
        } else {
            expected.extend([("rsp", stack + 0x1000 - 8), ("[rsp]", 0), ("rsi", 0)]);
        }
        expected.extend([("rflags", 2), ("cr3", root), ("cs", 0x10)]);
        expected.extend(["ss", "ds", "es", "fs", "gs"].map(|name| (name, 0x18)));
        expected.extend([("tr", 0x70), ("ldtr", 0), ("dr7", 0x400), ("fs.base", 0), ("gs.base", 0)]);
        expected.extend([("gdt.limit", 16 * 8 - 1), ("idt.limit", 32 * 16 - 1)]);
        for (name, value) in expected {
            let found = self.registers.remove(name).with_context(|| format!("no {name}"))?;
            ensure!(found == value, "{name} is {found:#x}, not {value:#x}");
        }
        for name in ["gdt.base", "idt.base"] {
            let base = self.registers.remove(name).with_context(|| format!("no {name}"))?;
            ensure!((debug..debug + 0x1000).contains(&base), "{name} is {base:#x}, not in {debug:#x}");
        }
        let mut take = |name| self.registers.remove(name).with_context(|| format!("no {name}"));
        let (cr0, cr4, efer) = (take("cr0")?, take("cr4")?, take("efer")?);
        // PE, WP and PG set; EM, TS and AM clear.
        ensure!(cr0 & 0x8005_000d == 0x8001_0001, "cr0 is {cr0:#x}");
        // PAE, LA57 as it was, MCE as it was, and nothing else.
        ensure!(cr4 & !0x40 == 0x20 | u64::from(five) << 12, "cr4 is {cr4:#x}");
        // LME and LMA.
        ensure!(efer & 0x500 == 0x500, "efer is {efer:#x}");
        ensure!(self.registers.is_empty(), "nothing is known of {:?}", self.registers);
        Ok(String::new())
    }
}

fn number(text: &str) -> Result<u64> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u64::from_str_radix(digits, 16).with_context(|| format!("{text:?} is no number"))
}
