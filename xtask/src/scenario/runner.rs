//! The runner itself: what it expects of a machine is tried on a machine, in each of the ways that one can end.

use super::{Ends, Scenario, Step};
use crate::qemu::Machine;

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::lab("runner/a-command-returns-to-the-prompt", "echo hello").expect("^lab: hello$"),
        Scenario::lab("runner/an-exit-code-arrives", "exit 42").ends(Ends::Exit(42)),
        Scenario::lab("runner/a-power-off-is-seen", "poweroff").ends(Ends::PowerOff),
        Scenario::lab("runner/a-halt-is-seen", "halt").ends(Ends::Halted),
        Scenario::lab("runner/two-commands-in-one-machine", "echo one")
            .expect("^lab: one$")
            .expect("^lab: ready$")
            .then(Step::Type("echo two".to_owned()))
            .expect("^lab: two$"),
        Scenario::lab("runner/two-processors-and-five-levels", "echo hello")
            .on(Machine::default().cpu("max,la57=on").processors(2))
            .expect("^lab: hello$"),
    ]
}
