//! A scenario: a machine, what it starts from, a script of what to expect and what to do, and how it must end.
//!
//! One file a family, below; each gives its scenarios from a function that [`all`] names.

mod bad_input;
mod chain;
mod fault;
mod identmap;
mod judge;
mod linux;
mod plan;
mod return_;
mod runner;
mod serial;

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use kexec_decode::Report;
use regex::Regex;

use crate::bundle::Bundle;
use crate::context::{Context, READY, Snapshot};
use crate::dump;
use crate::log::{Live, Log};
use crate::paths;
use crate::qemu::{End, Event, Machine, Start, Vm};
use judge::{Action, Judge};

pub(crate) use chain::chain;
pub(crate) use fault::{Place, cause_of, fault};
pub(crate) use identmap::transition_map;
pub(crate) use linux::{Linux, linux};
pub(crate) use return_::rounds;
pub(crate) use serial::mmio;

/// Every scenario of the test command.
pub(crate) fn all() -> Vec<Scenario> {
    [
        runner::scenarios(),
        chain::scenarios(),
        linux::scenarios(),
        bad_input::scenarios(),
        plan::scenarios(),
        return_::scenarios(),
        fault::scenarios(),
        identmap::scenarios(),
        serial::scenarios(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// What is expected of one machine.
pub(crate) struct Scenario {
    /// `family/case`, in words joined by hyphens.
    pub(crate) name: String,
    pub(crate) machine: Machine,
    pub(crate) from: From,
    pub(crate) script: Vec<Step>,
    /// A line that matches one of these fails the scenario at once.
    pub(crate) forbidden: Vec<Regex>,
    pub(crate) ends: Ends,
    /// From the start to the end, under TCG.
    pub(crate) limit: Duration,
    /// Set for a scenario that must fail, with a reason that matches: the runner's own tests.
    fails: Option<Regex>,
    /// Looks at the whole log after all else has passed. What it returns is shown beside the verdict.
    pub(crate) inspect: Option<Inspect>,
}

/// All that was heard of a machine.
pub(crate) struct Heard<'a> {
    pub(crate) lines: &'a [String],
    /// The dumps among them, explained.
    pub(crate) dumps: &'a [Report],
}

pub(crate) type Inspect = Box<dyn Fn(&Heard) -> Result<String> + Send + Sync>;

/// What a machine starts from.
#[derive(Clone, Debug)]
pub(crate) enum From {
    /// Power on, with a kernel of examples/ and its bundle.
    Boot { kernel: &'static str, bundle: Bundle },
    /// Power on, and the firmware starts the bundle's Linux: what it says without us.
    Firmware { bundle: Bundle },
    /// The test kernel's prompt, restored from a snapshot that scenarios with the same machine and bundle share.
    Lab { bundle: Bundle },
}

/// A step of a script. Steps that do something are done as soon as the line before them has come.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Wait for a line that matches.
    Expect(Regex),
    /// Type a line on the serial port.
    Type(String),
    /// An NMI on every processor.
    Nmi,
    /// A line for QEMU's monitor, such as `mce 0 0 0xb200000000000000 0 0 0` or `system_powerdown`.
    Monitor(String),
}

/// How a machine must end. A reset is never right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// Through isa-debug-exit with this code.
    Exit(u8),
    PowerOff,
    /// Halted with interrupts off, after the last step.
    Halted,
    /// At the test kernel's prompt again, after the last step.
    Ready,
}

/// `Expect`, with a pattern that is in the source and therefore valid.
pub(crate) fn expect(pattern: &str) -> Step {
    Step::Expect(regex(pattern))
}

/// A pattern that is in the source. A wrong one is a mistake in the scenario, found by any test run.
pub(crate) fn regex(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap_or_else(|error| panic!("{error}"))
}

impl Scenario {
    /// From power on, with a kernel of examples/.
    pub(crate) fn boot(name: impl Into<String>, kernel: &'static str, bundle: Bundle) -> Self {
        Scenario::new(name, From::Boot { kernel, bundle })
    }

    /// A command of the test kernel, from its prompt back to it unless another end is asked for.
    pub(crate) fn lab(name: impl Into<String>, command: &str) -> Self {
        let mut scenario = Scenario::new(name, From::Lab { bundle: Bundle::default() });
        scenario.script.push(Step::Type(command.to_owned()));
        scenario.ends(Ends::Ready)
    }

    /// The same with a bundle in the test kernel's ramdisk.
    pub(crate) fn with_bundle(self, bundle: Bundle) -> Self {
        Scenario { from: From::Lab { bundle }, ..self }
    }

    /// From power on, the bundle's Linux by the firmware alone.
    pub(crate) fn firmware(name: impl Into<String>, bundle: Bundle) -> Self {
        Scenario::new(name, From::Firmware { bundle })
    }

    fn new(name: impl Into<String>, from: From) -> Self {
        Scenario {
            name: name.into(),
            machine: Machine::default(),
            from,
            script: Vec::new(),
            forbidden: vec![regex(r"panicked at|Kernel panic - not syncing")],
            ends: Ends::PowerOff,
            limit: Duration::from_secs(60),
            fails: None,
            inspect: None,
        }
    }

    pub(crate) fn on(self, machine: Machine) -> Self {
        Scenario { machine, ..self }
    }

    /// Adds a step.
    pub(crate) fn then(mut self, step: Step) -> Self {
        self.script.push(step);
        self
    }

    /// Adds a step that waits for a line.
    pub(crate) fn expect(self, pattern: &str) -> Self {
        self.then(expect(pattern))
    }

    pub(crate) fn forbid(mut self, pattern: &str) -> Self {
        self.forbidden.push(regex(pattern));
        self
    }

    pub(crate) fn ends(self, ends: Ends) -> Self {
        Scenario { ends, ..self }
    }

    /// Turns the scenario round: it passes only if it fails, for this reason.
    fn fails(self, reason: &str) -> Self {
        Scenario { fails: Some(regex(reason)), ..self }
    }

    pub(crate) fn limit(self, seconds: u64) -> Self {
        Scenario { limit: Duration::from_secs(seconds), ..self }
    }

    pub(crate) fn inspect(self, inspect: impl Fn(&Heard) -> Result<String> + Send + Sync + 'static) -> Self {
        Scenario { inspect: Some(Box::new(inspect)), ..self }
    }
}

/// What became of a scenario.
pub(crate) struct Outcome {
    pub(crate) log: Log,
    pub(crate) dumps: Vec<Report>,
    /// What [`Scenario::inspect`] had to say, or why it failed.
    pub(crate) verdict: Result<String, String>,
    pub(crate) elapsed: Duration,
}

/// Runs a scenario. An error is one of ours or of the set-up; what the guest does is in the outcome.
pub(crate) fn run(scenario: &Scenario, context: &Context, mut live: Option<Live>) -> Result<Outcome> {
    let name = format!("{}.log", scenario.name.replace('/', "-"));
    let mut log = Log::create(&paths::folder("logs")?.join(name))?;
    let machine = &scenario.machine;
    let (qemu, mut card) = context.equip(machine, &log.path)?;
    let mut vm;
    let started;
    match &scenario.from {
        From::Boot { kernel, bundle } => {
            let image = context.image(kernel, bundle)?;
            started = Instant::now();
            vm = Vm::start(&qemu, machine, &Start::Boot { image: &image }, card.as_mut())?;
        }
        From::Lab { bundle } => {
            let Snapshot { image, state } = context.snapshot(machine, bundle)?;
            started = Instant::now();
            let start = Start::Restore { image: &image, snapshot: &state };
            vm = Vm::start(&qemu, machine, &start, card.as_mut())?;
        }
        From::Firmware { bundle } => {
            let folder = tempfile::tempdir()?;
            let (kernel, initrd) = (folder.path().join("vmlinuz"), folder.path().join("initrd"));
            fs::write(&kernel, bundle.file("vmlinuz", context)?)?;
            fs::write(&initrd, bundle.file("initrd", context)?)?;
            let append = String::from_utf8(bundle.file("append", context)?)?;
            started = Instant::now();
            let start = Start::Linux { kernel: &kernel, initrd: &initrd, append: &append };
            // Both files have been read when this returns.
            vm = Vm::start(&qemu, machine, &start, card.as_mut())?;
        }
    }
    let mut judge = Judge::new(scenario);
    let mut verdict = drive(&mut vm, judge.begin())?;
    while verdict.is_none() {
        let event = vm.next(Duration::from_millis(200))?;
        let lines: Vec<String> = match &event {
            Event::Serial(bytes) => log.receive(bytes)?.to_vec(),
            Event::Ended(_) => log.end().to_vec(),
            Event::Quiet => Vec::new(),
        };
        for line in &lines {
            if let Some(live) = &mut live {
                live.show(line);
            }
            if verdict.is_none() {
                verdict = drive(&mut vm, judge.line(line))?;
            }
        }
        if verdict.is_some() {
            break;
        }
        match event {
            Event::Ended(end) => verdict = Some(judge.end(&end)),
            Event::Quiet if judge.may_halt() && vm.halted()? => verdict = Some(judge.halted()),
            _ if started.elapsed() > scenario.limit => verdict = Some(Err(judge.overdue(scenario.limit))),
            _ => {}
        }
    }
    // It writes no more; and others wait for a processor.
    drop(vm);
    let dumps = dump::explain(&log.path, &context.kernels_of(&scenario.from)?)?;
    let verdict = turned(verdict.unwrap_or(Ok(())), scenario.fails.as_ref())
        .and_then(|()| match &scenario.inspect {
            Some(inspect) => {
                inspect(&Heard { lines: &log.lines, dumps: &dumps }).map_err(|error| format!("{error:#}"))
            }
            None => Ok(String::new()),
        })
        .and_then(|said| match card {
            Some(card) => card.finish().map(|counted| said + &counted),
            None => Ok(said),
        });
    Ok(Outcome { log, dumps, verdict, elapsed: started.elapsed() })
}

/// The verdict of a scenario that may be one that must fail.
fn turned(verdict: Result<(), String>, fails: Option<&Regex>) -> Result<(), String> {
    match (fails, verdict) {
        (None, verdict) => verdict,
        (Some(reason), Err(why)) if reason.is_match(&why) => Ok(()),
        (Some(reason), verdict) => Err(format!("it was to fail with /{reason}/, but: {verdict:?}")),
    }
}

/// Does what the script says until it waits again.
fn drive(vm: &mut Vm, actions: Vec<Action>) -> Result<Option<Result<(), String>>> {
    for action in actions {
        match action {
            Action::Do(Step::Expect(_)) => {}
            Action::Do(Step::Type(line)) => vm.type_text(&format!("{line}\n")).context("cannot type")?,
            Action::Do(Step::Nmi) => vm.nmi()?,
            Action::Do(Step::Monitor(line)) => drop(vm.monitor(&line)?),
            Action::Verdict(verdict) => return Ok(Some(verdict)),
        }
    }
    Ok(None)
}

/// The scenario's end, in words.
fn describe(end: &End) -> String {
    match end {
        End::Exit(code) => format!("it left through isa-debug-exit with code {code:#x}"),
        End::PowerOff => "it powered off".to_owned(),
        End::Reset => "it was reset (a triple fault, or a panic that reboots)".to_owned(),
        End::Qemu(why) => format!("QEMU ended ({why})"),
    }
}

/// The line that the test kernel prints at its prompt.
fn is_ready(line: &str) -> bool {
    line == READY
}
