//! What is printed.

use kexec_abi::Progress;
use proptest::prelude::*;

use crate::expected::{Expected, walk};
use crate::machine::{Control, End, Event, Machine, PHYS, STACK, Setup, TEXT};

/// A machine with a value of its own in each register and in each place that a dump reads.
pub(crate) fn machine(setup: &Setup) -> Machine {
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
        code: 0x07f3_a000,
    });
    let text: Vec<u8> = (0x61..0x70).collect();
    machine.write(TEXT + 0x101, &text); // behind a HLT
    machine.registers.rip = machine.address(TEXT + 0x100);
    let stack: Vec<u8> = (0..64).map(|n| 0x90 + n).collect();
    machine.write(STACK + 0x800, &stack);
    machine
}

/// What the machine of [`machine`] prints for the event.
pub(crate) fn expected(machine: &Machine, event: Event) -> Expected {
    let rsp = (machine.registers.rsp - machine.address(0)) as usize;
    Expected {
        event,
        registers: machine.registers,
        control: machine.control,
        counters: [0; 3],
        progress: [3, 0x8000_1008, 0x7fff_0010, 0x07f3_a000],
        bytes: "f46162636465666768696a6b6c6d6e6f".into(),
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

#[test]
fn bytes_that_cannot_be_read_are_question_marks() {
    let end = TEXT + 0x1000;
    for before in [0, 1, 5, 15, 16] {
        let mut machine = machine(&Setup::default());
        let event = Event::raised(14, 0x10);
        machine.registers.rip = machine.address(end - before);
        let mut expected = expected(&machine, event);
        expected.bytes = "f4".repeat(before) + &"??".repeat(16 - before);
        machine.take(event);
        assert_eq!(machine.output(), expected.text(), "{before} bytes before the end");
    }
    // Null, not canonical, and the last bytes of all.
    for rip in [0, 0x1234_5678_9abc_def0, u64::MAX - 3] {
        let mut machine = machine(&Setup::default());
        machine.registers.rip = rip;
        let mut expected = expected(&machine, Event::raised(13, 0));
        expected.bytes = "??".repeat(16);
        machine.take(Event::raised(13, 0));
        assert_eq!(machine.output(), expected.text());
    }
}

#[test]
fn words_of_the_stack_that_cannot_be_read_say_so() {
    for before in 0..9 {
        for odd in 0..8 {
            let mut machine = machine(&Setup::default());
            let event = Event::raised(12, 0);
            let mut expected = expected(&machine, event);
            let rsp = STACK + 0x1000 - before * 8 - odd;
            machine.registers.rsp = machine.address(rsp);
            expected.registers.rsp = machine.registers.rsp;
            let readable = |n: usize| rsp + n * 8 + 8 <= STACK + 0x1000;
            expected.stack = (0..8).map(|n| readable(n).then(|| machine.word(rsp + n * 8))).collect();
            machine.take(event);
            assert_eq!(machine.output(), expected.text());
        }
    }
}

#[test]
fn progress_that_cannot_be_read_says_so() {
    let mut machine = machine(&Setup::default());
    // The word of the state: in a payload that has taken the map away, say.
    machine.lose_progress();
    machine.take(Event::raised(6, 0));
    let output = machine.output();
    for name in ["phase", "entry", "entry_address", "code_frame"] {
        assert!(output.contains(&format!("\r\n{name}=unreadable\r\n")), "{output}");
    }
    assert!(output.contains("\r\nkexec-dump end crc32="));
}

#[test]
fn the_walk_is_left_out_where_there_is_none() {
    let walks = |setup: &Setup, change: fn(&mut Control), vector: u8| {
        let mut machine = machine(setup);
        change(&mut machine.control);
        machine.take(Event::raised(vector, 0));
        ["pml5e=", "pml4e=", "pdpte=", "pde=", "pte="].iter().any(|name| machine.output().contains(name))
    };
    assert!(walks(&Setup::default(), |_| (), 14));
    assert!(!walks(&Setup { phys: false, ..Setup::default() }, |_| (), 14));
    assert!(!walks(&Setup::default(), |control| control.efer = 0x101, 14), "not in long mode");
    for vector in (0..32).filter(|vector| *vector != 14) {
        assert!(!walks(&Setup::default(), |_| (), vector), "{vector}");
    }
}

/// An entry of a table: mostly one that leads on to a table that exists.
fn entry() -> impl Strategy<Value = u64> {
    let flags = prop_oneof![5 => Just(0x27_u64), 1 => Just(0), 1 => Just(0xe7), 1 => Just(1)];
    let table = prop_oneof![8 => 0..16_u64, 1 => any::<u64>()];
    (flags, table, any::<u16>()).prop_map(|(flags, table, high)| {
        table << 12 & 0x000f_ffff_ffff_f000 | u64::from(high & 0xfff0) << 48 | flags
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_walk_prints_each_entry_down_to_the_one_that_ends_it(
        entries in prop::collection::vec(entry(), 64),
        cr2 in any::<u64>(),
        root in 0..16_u64,
        low in 0..4096_u64,
        la57 in any::<bool>(),
    ) {
        let mut machine = machine(&Setup::default());
        for (n, entry) in entries.iter().enumerate() {
            // 64 entries at the indices that the address selects, in tables all over the region.
            let index = [48, 39, 30, 21, 12].map(|bit| (cr2 >> bit) as usize % 512)[n % 5];
            machine.write(PHYS + n % 16 * 4096 + index * 8, &entry.to_le_bytes());
        }
        machine.control.cr2 = cr2;
        machine.control.cr3 = root << 12 | low;
        machine.control.cr4 = 0x20 | u64::from(la57) << 12;
        let expected = expected(&machine, Event::raised(14, 2));
        machine.take(Event::raised(14, 2));
        prop_assert_eq!(machine.output(), expected.text());
    }

    #[test]
    fn any_machine_prints_as_it_is(
        general in any::<[u64; 15]>(),
        control in any::<[u64; 6]>(),
        progress in any::<[u64; 4]>(),
        vector in 4..32_u8,
        error in any::<u32>(),
        text in any::<[u8; 16]>(),
        stack in any::<[u64; 8]>(),
        ist in any::<bool>(),
    ) {
        let mut machine = machine(&Setup { ist, phys: false, ..Setup::default() });
        machine.registers.general = general;
        let [cr0, cr2, cr3, cr4, cr8, efer] = control;
        machine.control = Control { cr0, cr2, cr3, cr4, cr8, efer };
        let [phase, entry, entry_address, code] = progress;
        machine.set_progress(Progress { phase, entry, entry_address, code });
        machine.write(TEXT + 0x100, &text);
        machine.write(STACK + 0x800, &stack.map(u64::to_le_bytes).concat());
        let event = Event::raised(vector, error);
        let mut expected = expected(&machine, event);
        expected.progress = progress;
        expected.bytes = text.iter().map(|byte| format!("{byte:02x}")).collect();
        expected.walk.clear();
        machine.take(event);
        prop_assert_eq!(machine.output(), expected.text());
    }
}

#[test]
fn the_longest_dump_is_plain_ascii_and_under_4_kib() {
    let mut machine = machine(&Setup::default());
    machine.control.cr4 |= 1 << 12;
    machine.control.cr3 = 0;
    machine.control.cr2 = 0;
    machine.write(PHYS, &7_u64.to_le_bytes()); // one table, of itself, at all five levels
    machine.take(Event::raised(14, 0));
    let output = machine.output();
    assert!(output.contains("pml5e=") && output.contains("\r\npte="));
    assert!(output.len() < 4096, "{}", output.len());
    let plain = |byte: u8| (0x20..0x7f).contains(&byte);
    let lines = output.strip_prefix("\r\n").and_then(|rest| rest.strip_suffix("\r\n")).unwrap();
    for line in lines.split("\r\n") {
        assert!(line.bytes().all(plain));
        assert!(line.starts_with("kexec-dump ") || line.split('=').count() == 2, "{line}");
    }
}

mod native {
    //! The printing part alone, called as the function that it is.

    use kexec_exception::page_code::{Captured, DUMP, DumpState};

    /// A console with a stack of the host's own, so it may be Rust.
    unsafe extern "sysv64" fn push(output: *mut Vec<u8>, byte: u8) {
        // SAFETY: the state names a vector.
        unsafe { (*output).push(byte) }
    }

    #[test]
    fn the_template_runs_where_it_was_linked() {
        let mut output = Vec::<u8>::new();
        let progress = [2_u64, 0, 0, 0x5000];
        let mut state = DumpState {
            put_byte: push as *const () as u64,
            console: &raw mut output as u64,
            progress: progress.as_ptr() as u64,
            phys_offset: DumpState::NO_PHYS,
            ..DumpState::default()
        };
        let stack = [0x1111_u64, 0x2222, 3, 4, 5, 6, 7, 8];
        let text = *b"0123456789abcdef";
        let captured = Captured {
            error: Captured::NO_ERROR_CODE,
            vector: 6,
            rip: text.as_ptr() as u64,
            rsp: stack.as_ptr() as u64,
            rax: 0xdead_beef,
            ..Captured::default()
        };
        let entry = |name: &str| &raw const DUMP.bytes()[DUMP.find(name).unwrap()];
        // SAFETY: the contracts of the two entries; the template lies in an executable section.
        unsafe {
            let dump: extern "sysv64" fn(*mut DumpState, *const Captured) =
                std::mem::transmute(entry("dump"));
            let mark: extern "sysv64" fn(*mut DumpState, u64, u64) = std::mem::transmute(entry("mark"));
            dump(&mut state, &captured);
            mark(&mut state, 0xd, 0x1234_5678_9abc_def0);
        }
        let output = String::from_utf8(output).unwrap();
        let (dump, mark) = output.split_once("\r\n\r\n").unwrap();
        assert!(dump.starts_with("\r\nkexec-dump begin version=1\r\nvector=0000000000000006\r\n"));
        assert!(dump.contains("\r\nrax=00000000deadbeef\r\n"));
        assert!(dump.contains("\r\nphase=0000000000000002\r\n"));
        assert!(dump.contains("\r\nbytes=30313233343536373839616263646566\r\nstack0=0000000000001111\r\n"));
        assert_eq!(mark, "kexec-dump fault in dumper vector=000000000000000d rip=123456789abcdef0\r\n");
        let body = dump.split_once("version=1\r\n").unwrap().1;
        let (body, crc) = body.split_once("kexec-dump end crc32=").unwrap();
        assert_eq!(crc, format!("{:08x}", crc32fast::hash(body.as_bytes())));
        assert_eq!(state.fixup, 0);
    }
}

#[test]
fn the_example_in_the_documentation_is_what_a_dump_looks_like() {
    let page = include_str!("../../../../docs/dump-format.md");
    let example = page.split("## An example").nth(1).unwrap().split("```text\n").nth(1).unwrap();
    let example = example.split("```").next().unwrap();
    let body = example.split_once('\n').unwrap().1;
    let (body, crc) = body.split_once("kexec-dump end crc32=").unwrap();
    let body = body.replace('\n', "\r\n");
    assert_eq!(crc.trim_end(), format!("{:08x}", crc32fast::hash(body.as_bytes())));
    // The names of a real one that walks as far.
    let mut machine = machine(&Setup::default());
    machine.write(PHYS + 0x1000 + 0x100 * 8, &0x2027_u64.to_le_bytes());
    machine.take(Event::raised(14, 2));
    let output = machine.output();
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with("kexec-dump"))
            .map(|line| line.split('=').next().unwrap().to_owned())
            .collect()
    };
    assert_eq!(names(&body), names(&output)[1..]);
}
