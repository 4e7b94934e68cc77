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
        Scenario::lab("runner/little-memory-and-another-port", "echo hello")
            .on(Machine::default().memory(256).with(["-device", "pci-serial"]))
            .expect("^lab: hello$"),
        // The test kernel shows a fault of its own and leaves with code 0x11.
        Scenario::lab("runner/an-nmi-arrives", "spin")
            .then(Step::Nmi)
            .expect("^lab: NMI .*vector 2")
            .ends(Ends::Exit(0x11)),
        Scenario::lab("runner/a-machine-check-arrives", "spin")
            .then(Step::Monitor("mce 0 0 0xb200000000000000 0 0 0".to_owned()))
            .expect("^lab: #MC .*vector 18")
            .ends(Ends::Exit(0x11)),
        // What must not pass:
        Scenario::lab("runner/a-reset-fails", "reset").ends(Ends::PowerOff).fails("^it was reset"),
        Scenario::lab("runner/a-reset-fails-where-a-prompt-was-to-come", "reset").fails("^it was reset"),
        Scenario::lab("runner/a-machine-that-hangs-fails", "spin")
            .limit(2)
            .fails("^2 s have passed without the prompt"),
        Scenario::lab("runner/a-halt-fails-where-a-power-off-was-to-come", "halt")
            .ends(Ends::PowerOff)
            .limit(2)
            .fails("^2 s have passed without a power off"),
        Scenario::lab("runner/another-exit-code-fails", "exit 17")
            .ends(Ends::Exit(16))
            .fails("code 0x11, but"),
        Scenario::lab("runner/a-line-that-does-not-come-fails", "echo one")
            .expect("two")
            .fails("the prompt came before"),
        Scenario::lab("runner/a-forbidden-line-fails", "echo oops").forbid("oops").fails("^a forbidden line"),
    ]
}
