//! What the handlers do with each vector, and what may come while they do it.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use kexec_exception::page_code::{After, Captured, Counters, DebugFrame, EXCEPTION, OnDebug};

use crate::dump::{expected, machine};
use crate::machine::{Boundary, End, Event, Machine, PHYS_SIZE, Policy, STACK, Setup};

const BOTH: [bool; 2] = [true, false];
const DEBUG: u8 = 1;
const NMI: u8 = 2;
const BREAKPOINT: u8 = 3;
const MACHINE_CHECK: u8 = 18;

fn event(vector: u8) -> Event {
    Event { vector, error: None }
}

/// The offset in EXCEPTION from which on a region's instructions lie.
fn label(name: &str) -> u64 {
    EXCEPTION.find(name).unwrap() as u64
}

#[test]
fn every_vector_but_the_nmi_ends_in_a_complete_dump() {
    for ist in BOTH {
        for vector in (0..32).filter(|vector| *vector != NMI) {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            let event = Event::raised(vector, 0x8000_0000 | u32::from(vector) << 8);
            let mut expected = expected(&machine, event);
            let returns = [DEBUG, BREAKPOINT].contains(&vector);
            expected.counters = [u64::from(vector == DEBUG), 0, u64::from(vector == BREAKPOINT)];
            let end = machine.take(event);
            assert_eq!(machine.output(), expected.text(), "vector {vector}, ist {ist}");
            assert_eq!(end, if returns { End::Returned } else { End::Halted }, "vector {vector}, ist {ist}");
        }
    }
}

#[test]
fn int_n_pushes_no_error_code_and_the_dump_has_none() {
    for ist in BOTH {
        for vector in [8, 10, 13, 14, 30] {
            let mut machine = machine(&Setup { ist, phys: false, ..Setup::default() });
            let event = event(vector);
            let mut expected = expected(&machine, event);
            expected.walk.clear();
            assert_eq!(machine.take(event), End::Halted);
            assert_eq!(machine.output(), expected.text(), "vector {vector}, ist {ist}");
            assert!(!machine.output().contains("error="));
        }
    }
}

#[test]
fn a_stack_at_any_alignment_makes_no_difference() {
    for below in 1..=16 {
        for with_error in BOTH {
            let mut machine = machine(&Setup { ist: false, ..Setup::default() });
            machine.registers.rsp -= below;
            let event = if with_error { Event::raised(13, 0x18) } else { event(6) };
            let expected = expected(&machine, event);
            assert_eq!(machine.take(event), End::Halted);
            assert_eq!(machine.output(), expected.text(), "{below} below");
        }
    }
}

#[test]
fn after_a_breakpoint_or_a_debug_exception_the_interrupted_code_goes_on_with_all_it_had() {
    for ist in BOTH {
        for vector in [DEBUG, BREAKPOINT] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            machine.registers.rflags = 0x202 | 0xcd5; // the arithmetic flags, and DF
            let before = machine.registers;
            for round in 1..=3 {
                assert_eq!(machine.take(event(vector)), End::Returned);
                assert_eq!(machine.registers, before);
                assert_eq!(machine.output().matches("kexec-dump end").count(), round);
            }
        }
    }
}

#[test]
fn debug_exceptions_are_only_counted_where_the_setup_says_so() {
    for ist in BOTH {
        let mut machine = machine(&Setup { ist, on_debug: OnDebug::Count, ..Setup::default() });
        let before = machine.registers;
        for _ in 0..5 {
            assert_eq!(machine.take(event(DEBUG)), End::Returned);
            assert_eq!(machine.registers, before);
        }
        assert_eq!(machine.counters(), Counters { debug: 5, nmi: 0, breakpoint: 0 });
        assert_eq!(machine.output(), "");
        assert_eq!(machine.take(event(BREAKPOINT)), End::Returned);
        assert!(machine.output().contains("debug=0000000000000005\r\n"));
    }
}

#[test]
fn an_instruction_breakpoint_is_not_taken_again_by_the_instruction_that_goes_on() {
    const RF: u64 = 1 << 16;
    for on_debug in [OnDebug::Dump, OnDebug::Count] {
        let mut machine = machine(&Setup { on_debug, ..Setup::default() });
        assert_eq!(machine.take(event(DEBUG)), End::Returned);
        assert!(!machine.output().contains("rflags=0000000000010"), "the dump shows what was pushed");
        // What IRETQ has popped, where it lay: RFLAGS is the third word of five.
        let end = match on_debug {
            OnDebug::Dump => 4096,
            OnDebug::Count => machine.ist_top(DEBUG) as usize,
        };
        assert_eq!(machine.frame_word(end - 24), machine.registers.rflags | RF, "{on_debug:?}");
    }
}

/// NMIs, back to back with one instruction in between: at each boundary of EXCEPTION, also while it serves a guarded read, and
/// of the dumper's end; and before each byte is printed, where the dumper's stack is deepest. Counts them.
fn nmis(count: &Rc<Cell<u64>>) -> Policy {
    let count = Rc::clone(count);
    Box::new(move |machine, boundary| {
        machine.stepping = boundary.in_exception.is_some() || machine.dump_is_over();
        (!boundary.nmi_blocked && !boundary.after_iret).then(|| {
            count.set(count.get() + 1);
            event(NMI)
        })
    })
}

#[test]
fn an_nmi_is_counted_and_survived_at_every_boundary() {
    for ist in BOTH {
        for first in [event(BREAKPOINT), event(DEBUG), Event::raised(14, 2)] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            machine.control.cr3 = PHYS_SIZE as u64; // the walk's first entry cannot be read
            let before = machine.registers;
            let mut expected = expected(&machine, first);
            let taken = Rc::default();
            machine.policy = Some(nmis(&taken));
            let end = machine.take(first);
            assert_eq!(machine.counters().nmi, taken.get());
            // As many as had come when that line was printed.
            let output = machine.output();
            let printed =
                output.split("nmi=").nth(1).and_then(|rest| u64::from_str_radix(rest.get(..16)?, 16).ok());
            let printed = printed.expect("a line nmi=");
            assert!(printed > 600 && printed + 400 < taken.get(), "{printed} of {}", taken.get());
            expected.counters = [u64::from(first.vector == 1), printed, u64::from(first.vector == 3)];
            assert_eq!(output, expected.text());
            if first.vector == 14 {
                assert_eq!(end, End::Halted);
            } else {
                assert_eq!((end, machine.registers), (End::Returned, before));
            }
        }
    }
}

#[test]
fn an_nmi_alone_prints_nothing() {
    for ist in BOTH {
        let mut machine = machine(&Setup { ist, ..Setup::default() });
        let before = machine.registers;
        for _ in 0..3 {
            assert_eq!(machine.take(event(NMI)), End::Returned);
            assert_eq!(machine.registers, before);
        }
        assert_eq!((machine.counters().nmi, machine.output()), (3, String::new()));
    }
}

/// The event once, before the byte of that number is printed.
fn at_byte(number: u64, event: Event) -> Policy {
    let mut bytes = 0;
    Box::new(move |_, boundary| {
        bytes += u64::from(boundary.in_exception.is_none());
        (boundary.in_exception.is_none() && bytes == number).then_some(event)
    })
}

#[test]
fn a_debug_exception_in_the_dumper_is_counted_and_returned_from() {
    for ist in BOTH {
        let mut machine = machine(&Setup { ist, ..Setup::default() });
        let before = machine.registers;
        let mut expected = expected(&machine, event(BREAKPOINT));
        machine.policy = Some(at_byte(100, event(DEBUG)));
        assert_eq!(machine.take(event(BREAKPOINT)), End::Returned);
        expected.counters = [1, 0, 1];
        assert_eq!(machine.output(), expected.text());
        assert_eq!(machine.registers, before);
        assert_eq!(machine.counters(), Counters { debug: 1, nmi: 0, breakpoint: 1 });
    }
}

/// The dump up to the mark, and the mark's vector and RIP.
fn split_mark(output: &str) -> Option<(&str, u64, u64)> {
    let (dump, mark) = output.split_once("\r\nkexec-dump fault in dumper vector=")?;
    let (vector, rip) = mark.strip_suffix("\r\n")?.split_once(" rip=")?;
    let number = |digits: &str| (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok()).flatten();
    Some((dump, number(vector)?, number(rip)?))
}

#[test]
fn a_machine_check_at_any_boundary_of_the_handlers_is_dumped_or_marked_and_never_runs_on() {
    for ist in BOTH {
        let (mut dumped, mut marked) = (0, 0);
        for nth in 0.. {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            let interrupted = machine.registers;
            let text = interrupted.rip;
            let at = Rc::new(RefCell::new(None));
            let here = Rc::clone(&at);
            let mut countdown = nth;
            machine.stepping = true;
            machine.skip_dumps(true); // that of the breakpoint: what happens in the dumper is another test's
            machine.policy = Some(Box::new(move |machine: &mut Machine, boundary: Boundary| {
                countdown -= 1;
                (countdown == -1).then(|| {
                    *here.borrow_mut() = Some(boundary);
                    machine.skip_dumps(false);
                    machine.stepping = false;
                    event(MACHINE_CHECK)
                })
            }));
            let end = machine.take(event(BREAKPOINT));
            let Some(boundary) = *at.borrow() else {
                assert_eq!(end, End::Returned); // past the last boundary: the breakpoint alone
                break;
            };
            assert_eq!(end, End::Halted, "{boundary:?}");
            let output = machine.output();
            let rip = boundary.in_exception.map_or(text, |offset| machine.address(0) + offset);
            if let Some((before, vector, at)) = split_mark(&output) {
                assert_eq!((before, vector, at), ("", 18, rip), "{boundary:?}");
                marked += 1;
            } else {
                let line =
                    |name: &str, value: u64| assert!(output.contains(&format!("{name}={value:016x}\r\n")));
                line("vector", 18);
                line("rip", rip);
                if boundary.after_iret {
                    line("rax", interrupted.general[0]);
                    line("rbx", interrupted.general[1]);
                    line("rsp", interrupted.rsp);
                }
                assert!(output.contains("kexec-dump end"), "{boundary:?}");
                dumped += 1;
            }
        }
        // Before the handler has noted that it is at work, and after.
        assert!(dumped > 20 && marked > 50, "{dumped} {marked}");
    }
}

#[test]
fn without_ist_a_machine_check_at_the_returning_iretq_still_has_every_register() {
    let mut machine = machine(&Setup { ist: false, ..Setup::default() });
    let before = machine.registers;
    let iretq =
        EXCEPTION.bytes()[..label("return") as usize].windows(2).rposition(|bytes| bytes == [0x48, 0xcf]);
    let iretq = iretq.expect("the way back from a dump ends right before") as u64;
    machine.skip_dumps(true);
    machine.stepping = true;
    machine.policy = Some(Box::new(move |machine: &mut Machine, boundary: Boundary| {
        (boundary.in_exception == Some(iretq)).then(|| {
            machine.skip_dumps(false);
            machine.stepping = false;
            event(MACHINE_CHECK)
        })
    }));
    assert_eq!(machine.take(event(BREAKPOINT)), End::Halted);
    let dump = machine.output();
    for (name, value) in ["rax", "rbx", "rcx"].into_iter().zip(before.general) {
        assert!(dump.contains(&format!("{name}={value:016x}\r\n")), "{name}");
    }
    assert!(dump.contains("vector=0000000000000012\r\n"));
}

#[test]
fn a_fault_in_the_dumper_ends_the_dump_with_a_mark() {
    for ist in BOTH {
        for vector in [0, 3, 6, 8, 11, 13, 14, 18, 31] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            machine.policy = Some(at_byte(500, Event::raised(vector, 0)));
            assert_eq!(machine.take(event(6)), End::Halted);
            let output = machine.output();
            let (dump, marked, _) = split_mark(&output).expect("a mark at the end");
            assert_eq!(marked, vector.into());
            assert!(dump.starts_with("\r\nkexec-dump begin version=1\r\nvector="));
            assert!(dump.len() > 450 && !dump.contains("kexec-dump end"));
        }
    }
}

#[test]
fn a_fault_in_the_mark_halts_without_a_word() {
    for ist in BOTH {
        let mut machine = machine(&Setup { ist, ..Setup::default() });
        let mut bytes = 0;
        machine.policy = Some(Box::new(move |_, boundary| {
            bytes += u64::from(boundary.in_exception.is_none());
            (boundary.in_exception.is_none() && [500, 530].contains(&bytes)).then_some(Event::raised(13, 0))
        }));
        assert_eq!(machine.take(event(6)), End::Halted);
        let output = machine.output();
        let (_, mark) = output.split_once("\r\nkexec-dump fault").expect("the start of a mark");
        assert!(mark.starts_with(" in dumper") && !mark.contains("rip="), "{mark}");
    }
}

#[test]
fn a_machine_check_in_a_guarded_read_is_not_taken_for_its_fault() {
    for ist in BOTH {
        // Then a #GP while the mark is printed: the guard still stands, and must not be taken for it either.
        for second in [None, Some(Event::raised(13, 0))] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            let mut marked = 0;
            machine.policy = Some(Box::new(move |machine: &mut Machine, boundary: Boundary| {
                if marked == 0 {
                    machine.stepping = machine.output().ends_with("version=1\r") || machine.stepping;
                    let guarded = machine.fixup() != 0 && boundary.in_exception.is_none();
                    machine.stepping &= !guarded;
                    marked += u64::from(guarded);
                    return guarded.then(|| event(MACHINE_CHECK));
                }
                marked += u64::from(boundary.in_exception.is_none());
                second.filter(|_| marked == 20 && boundary.in_exception.is_none())
            }));
            assert_eq!(machine.take(event(6)), End::Halted);
            let output = machine.output();
            assert!(output.starts_with("\r\nkexec-dump begin version=1\r\n"), "{output}");
            match second {
                None => assert_eq!(split_mark(&output).expect("a mark").1, 18),
                Some(_) => {
                    assert!(output.contains("\r\nkexec-dump fault") && !output.contains("rip"), "{output}")
                }
            }
        }
    }
}

#[test]
fn a_console_that_faults_silences_all_and_nothing_loops() {
    for ist in BOTH {
        let mut whole = machine(&Setup { ist, ..Setup::default() });
        whole.take(event(6));
        let len = whole.output().len() as u64;
        for bytes in [0, 1, 30, 500, len - 1] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            machine.break_console_after(bytes); // for good: the mark fails, too
            assert_eq!(machine.take(event(6)), End::Halted);
            assert_eq!(machine.output().len() as u64, bytes);
        }
    }
}

#[test]
fn without_a_console_the_handlers_do_all_else() {
    for ist in BOTH {
        let mut machine = machine(&Setup { ist, console: false, ..Setup::default() });
        let before = machine.registers;
        for vector in [BREAKPOINT, DEBUG, NMI] {
            assert_eq!(machine.take(event(vector)), End::Returned);
            assert_eq!(machine.registers, before);
        }
        assert_eq!(machine.counters(), Counters { debug: 1, nmi: 1, breakpoint: 1 });
        assert_eq!(machine.take(Event::raised(14, 0)), End::Halted);
        assert_eq!(machine.output(), "");
    }
}

#[test]
fn a_reset_is_tried_three_ways_after_a_bounded_wait() {
    for ist in BOTH {
        let after = After::Reset { wait: 1000 };
        let mut machine = machine(&Setup { ist, after, ..Setup::default() });
        assert_eq!(machine.take(event(BREAKPOINT)), End::Returned);
        assert_eq!(machine.writes, []);
        assert_eq!(machine.take(event(6)), End::Shutdown);
        assert_eq!(machine.writes, [(0xcf9, 2), (0xcf9, 6), (0x64, 0xfe)]);
        assert_eq!(machine.reads, [1001, 0, 0x10000, 0x10000]);
        assert_eq!(machine.output().matches("kexec-dump end").count(), 2);
    }
}

#[test]
fn a_bad_stack_pointer_dumps_where_gates_switch_stacks() {
    for rsp in [0, 0x8000_0000_0000_0000, machine(&Setup::default()).address(STACK + 0x1000), 7] {
        let mut machine = machine(&Setup::default());
        let mut expected_rsp = machine.registers.rsp;
        std::mem::swap(&mut machine.registers.rsp, &mut expected_rsp);
        let mut expected = expected(&machine, Event::raised(12, 0));
        machine.registers.rsp = rsp;
        expected.registers.rsp = rsp;
        expected.stack = vec![None; 8];
        // The model runs in a process that has nothing there either, and another machine's region is not this one's.
        assert_eq!(machine.take(Event::raised(12, 0)), End::Halted);
        assert_eq!(machine.output(), expected.text(), "{rsp:#x}");
    }
}

#[test]
fn a_machine_captured_elsewhere_is_dumped_and_never_returned_to() {
    let mut machine = machine(&Setup::default());
    let mut captured =
        Captured { vector: 3, error: Captured::NO_ERROR_CODE, r15: 0x15, cr8: 7, ..Captured::default() };
    captured.rip = machine.registers.rip;
    captured.rsp = 0x10_0000_0000_0000; // not canonical
    assert_eq!(machine.enter_fatal(&captured), End::Halted);
    let output = machine.output();
    assert!(output.starts_with("\r\nkexec-dump begin version=1\r\nvector=0000000000000003\r\nrip="));
    assert!(output.contains("r15=0000000000000015\r\n"));
    assert!(output.contains("cr8=0000000000000007\r\n"));
    assert!(output.contains("bytes=f46162636465666768696a6b6c6d6e6f\r\n"));
    assert!(output.contains("stack7=unreadable\r\nkexec-dump end crc32="));
}

const PAINT: u8 = 0x99;

/// Of each stack for gates, and of the dumper's, the lowest 16 bytes still have the paint.
fn no_stack_is_used_up(machine: &Machine) {
    let frame = machine.frame_bytes();
    for stack in 0..7 {
        let lowest = DebugFrame::STACK_TOP + stack * 128;
        assert_eq!(frame[lowest..lowest + 16], [PAINT; 16], "the stack from {lowest:#x}");
    }
}

#[test]
fn a_mark_does_not_overrun_the_stack_that_its_exception_came_on() {
    for ist in BOTH {
        for vector in [3, 8, 13, 18] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            machine.paint_frame(DebugFrame::STACK_TOP..DebugFrame::CAPTURED, PAINT);
            machine.policy = Some(at_byte(500, Event::raised(vector, 0)));
            assert_eq!(machine.take(event(6)), End::Halted);
            assert!(split_mark(&machine.output()).is_some());
            no_stack_is_used_up(&machine);
        }
    }
}

#[test]
fn no_stack_in_the_frame_is_overrun() {
    for ist in BOTH {
        for first in [event(BREAKPOINT), event(DEBUG), Event::raised(14, 0)] {
            let mut machine = machine(&Setup { ist, ..Setup::default() });
            let stacks = DebugFrame::STACK_TOP - 1024..DebugFrame::CAPTURED;
            machine.paint_frame(stacks, PAINT);
            machine.control.cr3 = PHYS_SIZE as u64;
            if ist {
                machine.registers.rsp = machine.address(STACK + 0x1000); // words that cannot be read
            }
            let taken = Rc::default();
            machine.policy = Some(nmis(&taken));
            machine.take(first);
            assert!(taken.get() > 1000);
            assert!(machine.output().contains("kexec-dump end"));
            let frame = machine.frame_bytes();
            let untouched = |start: usize, end: usize| frame[start..end].iter().all(|byte| *byte == PAINT);
            no_stack_is_used_up(&machine);
            if ist {
                // What DUMP's contract says: nothing of the handlers' is on its stack.
                assert!(untouched(DebugFrame::CAPTURED - 512, DebugFrame::CAPTURED - 8 - 256));
            } else {
                // What the handlers take of the stack that they find.
                assert!(untouched(DebugFrame::STACK_TOP - 1024, DebugFrame::STACK_TOP - 256));
            }
        }
    }
}
