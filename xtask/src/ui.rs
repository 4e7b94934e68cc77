//! What a person sees: steps with their progress, verdicts, errors. Colours and spinners only on a terminal.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use console::style;
use indicatif::{ProgressBar, ProgressStyle};

/// A line that stays.
pub(crate) fn say(text: impl Display) {
    eprintln!("{text}");
}

/// The one clear line of a failure, causes after it.
pub(crate) fn error(error: &anyhow::Error) {
    eprintln!("{} {error:#}", style("error:").red().bold().for_stderr());
}

/// The line of verdict.
pub(crate) fn verdict(passed: bool, text: impl Display) {
    let word = if passed { style("passed").green().bold() } else { style("FAILED").red().bold() };
    println!("{word} {text}");
}

/// A long step under way: a spinner on a terminal, otherwise a line at its start and one at its end.
pub(crate) struct Step {
    bar: ProgressBar,
    title: String,
    started: Instant,
}

impl Step {
    pub(crate) fn new(title: impl Into<String>) -> Self {
        let title = title.into();
        let bar = if console::user_attended_stderr() {
            let template = "{spinner:.cyan} {prefix} {elapsed:.dim} {wide_msg:.dim}";
            let bar = ProgressBar::new_spinner().with_prefix(title.clone());
            bar.set_style(ProgressStyle::with_template(template).unwrap_or(ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        } else {
            say(format!("{title} …"));
            ProgressBar::hidden()
        };
        Step { bar, title, started: Instant::now() }
    }

    /// What is being done at the moment.
    pub(crate) fn progress(&self, message: &str) {
        self.bar.set_message(console::strip_ansi_codes(message).trim().to_owned());
    }

    pub(crate) fn done(self) {
        self.bar.finish_and_clear();
        let seconds = self.started.elapsed().as_secs_f32();
        say(format!("{} {} ({seconds:.1} s)", style("✓").green().for_stderr(), self.title));
    }

    pub(crate) fn failed(self) {
        self.bar.finish_and_clear();
        say(format!("{} {}", style("✗").red().for_stderr(), self.title));
    }
}

/// Runs a command as a step, and gives what it wrote to its standard output. Its standard error is its progress;
/// the end of it is shown if the command fails.
pub(crate) fn run(title: impl Into<String>, command: &mut Command) -> Result<String> {
    run_within(title, command, Duration::from_secs(1800))
}

/// [`run`] with a limit after which the command is ended.
pub(crate) fn run_within(title: impl Into<String>, command: &mut Command, limit: Duration) -> Result<String> {
    let step = Step::new(title);
    let result = follow(command, limit, &step);
    match result {
        Ok(_) => step.done(),
        Err(_) => step.failed(),
    }
    result
}

fn follow(command: &mut Command, limit: Duration, step: &Step) -> Result<String> {
    const TAIL: usize = 30;
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let (Some(mut stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        bail!("{name} has no output");
    };
    let started = Instant::now();
    thread::scope(|scope| {
        let output = scope.spawn(move || {
            let mut text = Vec::new();
            stdout.read_to_end(&mut text).map(|_| String::from_utf8_lossy(&text).into_owned())
        });
        let errors = scope.spawn(move || {
            let mut lines = Vec::new();
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).into_owned();
                step.progress(&line);
                lines.push(line);
            }
            lines
        });
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break Some(status);
            }
            if started.elapsed() > limit {
                child.kill()?;
                child.wait()?;
                break None;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let Some(status) = status else {
            bail!("{name} took more than {} s and was ended", limit.as_secs());
        };
        let errors = errors.join().unwrap_or_default();
        let output = output.join().ok().context("output lost")??;
        if !status.success() {
            let tail = errors[errors.len().saturating_sub(TAIL)..].join("\n");
            bail!("{name} failed ({status}):\n{tail}");
        }
        Ok(output)
    })
}
