//! `cargo xtask test [FILTER]`: all host tests, then all scenarios; a line a case, and the count on the last line.

mod host;

use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Result, bail};
use console::style;

use crate::context::Context;
use crate::qemu::Options;
use crate::scenario::{self, Scenario};
use crate::setup::Unavailable;
use crate::{dump, log};

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    qemu: Options,
    /// Only cases whose name contains this: `host/…` for host tests, `family/…` for scenarios
    filter: Option<String>,
    /// Scenarios run at a time
    #[arg(long, default_value_t = thread::available_parallelism().map_or(1, usize::from))]
    jobs: usize,
    /// Count a case that cannot run here as failed, as CI does
    #[arg(long)]
    no_skips: bool,
    /// Print the names of the scenarios, and run nothing
    #[arg(long)]
    list: bool,
}

/// How a case went.
enum Verdict {
    Passed,
    Failed(String),
    Skipped(String),
}

#[derive(Default)]
struct Count {
    passed: usize,
    failed: usize,
    skipped: usize,
    no_skips: bool,
}

impl Count {
    /// Counts a case and prints its line.
    fn case(&mut self, name: &str, verdict: &Verdict) {
        match verdict {
            Verdict::Passed => {
                self.passed += 1;
                println!("{} {name}", style("passed ").green());
            }
            Verdict::Skipped(why) if !self.no_skips => {
                self.skipped += 1;
                println!("{} {name}: {why}", style("skipped").yellow());
            }
            Verdict::Skipped(why) | Verdict::Failed(why) => {
                self.failed += 1;
                println!("{} {name}: {why}", style("FAILED ").red().bold());
            }
        }
    }
}

pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let filter = args.filter.as_deref().unwrap_or("");
    let scenarios: Vec<_> =
        scenario::all().into_iter().filter(|scenario| scenario.name.contains(filter)).collect();
    if args.list {
        scenarios.iter().for_each(|scenario| println!("{}", scenario.name));
        return Ok(ExitCode::SUCCESS);
    }

    let mut count = Count { no_skips: args.no_skips, ..Count::default() };
    // Set-up first: what is missing is said before minutes are spent on anything else.
    let context = if scenarios.is_empty() { None } else { Some(Context::new(&args.qemu)?) };
    // A filter that names scenarios means them: no one waits for the workspace to build to see one machine.
    if let Some(filter) = host::filter(filter).filter(|filter| filter.is_empty() || scenarios.is_empty()) {
        host::run(filter, &mut count)?;
    }
    if let Some(context) = &context {
        run_scenarios(&scenarios, context, args.jobs, &mut count);
    }

    let Count { passed, failed, skipped, .. } = count;
    if passed + failed + skipped == 0 {
        bail!("no case's name contains {filter}");
    }
    println!("\n{passed} passed, {failed} failed, {skipped} skipped");
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_scenarios(scenarios: &[Scenario], context: &Context, jobs: usize, count: &mut Count) {
    let waiting = Mutex::new(scenarios.iter());
    thread::scope(|scope| {
        let (sender, results) = channel();
        for _ in 0..jobs.max(1) {
            let (sender, waiting) = (sender.clone(), &waiting);
            scope.spawn(move || {
                loop {
                    let next = waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(scenario) = next else { break };
                    if sender.send((scenario, scenario::run(scenario, context, None))).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        for (scenario, result) in results {
            report(scenario, result, count);
        }
    });
}

fn report(scenario: &Scenario, result: Result<scenario::Outcome>, count: &mut Count) {
    let outcome = match result {
        Ok(outcome) => outcome,
        Err(error) => {
            let verdict = match error.downcast_ref::<Unavailable>() {
                Some(why) => Verdict::Skipped(why.to_string()),
                None => Verdict::Failed(format!("{error:#}")),
            };
            return count.case(&scenario.name, &verdict);
        }
    };
    let seconds = format!("{:.1} s", outcome.elapsed.as_secs_f32());
    match outcome.verdict {
        Ok(said) => {
            let said = if said.is_empty() { said } else { format!(": {said}") };
            count.case(&format!("{} ({seconds}){said}", scenario.name), &Verdict::Passed);
        }
        Err(why) => {
            count.case(&format!("{} ({seconds})", scenario.name), &Verdict::Failed(why));
            log::show_tail(&outcome.log);
            dump::show(&outcome.dumps);
        }
    }
}
