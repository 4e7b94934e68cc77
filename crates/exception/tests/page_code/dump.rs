//! What is printed.

use kexec_abi::Progress;
use proptest::prelude::*;

use crate::expected::{Expected, walk};
use crate::machine::{Control, End, Event, Machine, PHYS, PHYS_SIZE, STACK, Setup, TEXT};

/// A machine with a value of its own in each register and in each place that a dump reads.
pub fn machine(setup: &Setup) -> Machine {
    let mut machine = Machine::new(setup);
    for (n, register) in (1..).zip(&mut machine.registers.general) {
        *register = 0x0123_4567_89ab_0000 * n + n;
    }
    machine.control = Control {
        cr0: 0x8005_0033,
        cr2: 0xffff_8000_0012_3456,
        cr3: 0x1018,
        cr4: 0x6a0,
        cr8: 5,
        efer: 0xd01,
    };
    machine.set_progress(Progress {
        phase: 3,
        entry: 0x8000_1008,
        entry_address: 0x7fff_0010,
        code: 0x7f3a_000,
    });
    let text: Vec<u8> = (0x60..0x70).collect();
    machine.write(TEXT + 0x100, &text);
    machine.registers.rip = machine.address(TEXT + 0x100);
    let stack: Vec<u8> = (0..64).map(|n| 0x90 + n).collect();
    machine.write(STACK + 0x800, &stack);
    machine
}

/// What the machine of [`machine`] prints for the event.
pub fn expected(machine: &Machine, event: Event) -> Expected {
    let rsp = (machine.registers.rsp - machine.address(0)) as usize;
    Expected {
        event,
        registers: machine.registers,
        control: machine.control,
        counters: [0; 3],
        progress: [3, 0x8000_1008, 0x7fff_0010, 0x7f3a_000],
        bytes: "606162636465666768696a6b6c6d6e6f".into(),
        stack: (0..8).map(|n| Some(machine.word(rsp + n * 8))).collect(),
        walk: if event.vector == 14 { walk(machine, machine.control) } else { Vec::new() },
    }
}

#[test]
fn a_dump_names_every_register_and_where_the_transition_is() {
    let mut machine = machine(&Setup::default());
    let event = Event::raised(13, 0xfff8);
    let expected = expected(&machine, event).text();
    assert_eq!(machine.take(event), End::Halted);
    assert_eq!(machine.output(), expected);
}
