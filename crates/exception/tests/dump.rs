//! A frame in print: complete, each value under its name, in columns.

use std::collections::BTreeMap;

use kexec_exception::{Cr0, Cr4, Dump, Efer, RFlags, SystemRegisters, TrapFrame, Vector};
use proptest::prelude::*;

fn frame() -> impl Strategy<Value = TrapFrame> {
    (any::<[u64; 22]>(), any::<u8>()).prop_map(|(v, vector)| {
        let mut frame = TrapFrame::default();
        [frame.rax, frame.rbx, frame.rcx, frame.rdx, frame.rsi, frame.rdi, frame.rbp] =
            [v[0], v[1], v[2], v[3], v[4], v[5], v[6]];
        [frame.r8, frame.r9, frame.r10, frame.r11, frame.r12] = [v[7], v[8], v[9], v[10], v[11]];
        [frame.r13, frame.r14, frame.r15] = [v[12], v[13], v[14]];
        [frame.rip, frame.rsp, frame.cs, frame.ss] = [v[15], v[16], v[17] & 0xffff, v[18] & 0xffff];
        frame.rflags = RFlags::from_bits_retain(v[19]);
        frame.error_code = v[20];
        frame.vector = Vector(if vector < 128 { vector % 32 } else { vector });
        frame
    })
}

fn system() -> impl Strategy<Value = SystemRegisters> {
    (any::<[u16; 4]>(), any::<[u64; 5]>()).prop_map(|([ds, es, fs, gs], [cr0, cr2, cr3, cr4, efer])| {
        SystemRegisters {
            ds,
            es,
            fs,
            gs,
            cr0: Cr0::from_bits_retain(cr0),
            cr2,
            cr3,
            cr4: Cr4::from_bits_retain(cr4),
            efer: Efer::from_bits_retain(efer),
        }
    })
}

/// Every `name 0xvalue` of a dump; a name twice is an error.
fn values(dump: &str) -> BTreeMap<String, u64> {
    let mut values = BTreeMap::new();
    for line in dump.lines().skip(1) {
        let words: Vec<_> = line.split_whitespace().collect();
        for pair in words.windows(2) {
            if let Some(digits) = pair[1].strip_prefix("0x")
                && pair[0].bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
                && pair[0].len() <= 6
                && pair[0] != "code"
                && pair[0] != "event"
            {
                let value = u64::from_str_radix(digits, 16).unwrap();
                assert_eq!(values.insert(pair[0].to_owned(), value), None, "{} twice in\n{dump}", pair[0]);
            }
        }
    }
    values
}

proptest! {
    #[test]
    fn a_dump_has_every_register_once(frame in frame(), system in system()) {
        let dump = Dump { frame: &frame, system: Some(system) }.to_string();
        let mut expected: BTreeMap<String, u64> = [
            ("rax", frame.rax), ("rbx", frame.rbx), ("rcx", frame.rcx), ("rdx", frame.rdx), ("rsi", frame.rsi),
            ("rdi", frame.rdi), ("rbp", frame.rbp), ("rsp", frame.rsp), ("r8", frame.r8), ("r9", frame.r9),
            ("r10", frame.r10), ("r11", frame.r11), ("r12", frame.r12), ("r13", frame.r13), ("r14", frame.r14),
            ("r15", frame.r15), ("rip", frame.rip), ("rflags", frame.rflags.bits()), ("cs", frame.cs), ("ss", frame.ss),
            ("ds", system.ds.into()), ("es", system.es.into()), ("fs", system.fs.into()), ("gs", system.gs.into()),
            ("cr0", system.cr0.bits()), ("cr2", frame.page_fault_address().unwrap_or(system.cr2)), ("cr3", system.cr3),
            ("cr4", system.cr4.bits()), ("efer", system.efer.bits()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        if matches!(frame.vector.0, 8 | 10..=14 | 17 | 21 | 29 | 30) {
            expected.insert("error".to_owned(), frame.error_code);
        }
        prop_assert_eq!(values(&dump), expected, "{}", dump);
        prop_assert!(dump.ends_with('\n') && dump.is_ascii());
        prop_assert!(dump.lines().all(|line| line == line.trim_end()), "no blanks at an end: {:?}", dump);
    }

    #[test]
    fn values_stand_below_each_other(frame in frame(), system in system()) {
        let dump = Dump { frame: &frame, system: Some(system) }.to_string();
        for line in dump.lines().skip(1) {
            prop_assert_eq!(line.find("0x"), Some(7), "{}", line);
            prop_assert_eq!(line.as_bytes()[6], b' ');
        }
        let columns: Vec<_> = dump.lines().filter(|line| line.contains(" r8 ") || line.contains("  r1")).collect();
        prop_assert!(!columns.is_empty());
        for line in columns {
            prop_assert_eq!(line.rfind("0x"), Some(7 + 18 + 2 + 7), "{}", line);
        }
    }
}

#[test]
fn a_page_fault_reads_like_this() {
    let mut frame = TrapFrame::default();
    frame.vector = Vector::PAGE_FAULT;
    frame.error_code = 2;
    frame.rip = 0xffff_8000_0010_2030;
    frame.rflags = RFlags::RF | RFlags::ZF | RFlags::PF | RFlags::from_bits_retain(2);
    frame.rax = 0xdead_beef;
    frame.r15 = 15;
    frame.rsp = 0x7000;
    (frame.cs, frame.ss) = (8, 0x10);
    let system = SystemRegisters {
        ds: 0x10,
        es: 0x10,
        fs: 0,
        gs: 0,
        cr0: Cr0::PG | Cr0::WP | Cr0::PE,
        cr2: 0x1234,
        cr3: 0x1000,
        cr4: Cr4::PAE | Cr4::LA57,
        efer: Efer::LMA | Efer::LME,
    };
    let dump = Dump { frame: &frame, system: Some(system) }.to_string();
    let expected = "\
#PF page fault (vector 14)
error  0x0000000000000002  write by the supervisor, page not present
rip    0xffff800000102030
rflags 0x0000000000010046  PF ZF RF
rax    0x00000000deadbeef  r8     0x0000000000000000
rbx    0x0000000000000000  r9     0x0000000000000000
rcx    0x0000000000000000  r10    0x0000000000000000
rdx    0x0000000000000000  r11    0x0000000000000000
rsi    0x0000000000000000  r12    0x0000000000000000
rdi    0x0000000000000000  r13    0x0000000000000000
rbp    0x0000000000000000  r14    0x0000000000000000
rsp    0x0000000000007000  r15    0x000000000000000f
cs     0x0008  ss 0x0010  ds 0x0010  es 0x0010  fs 0x0000  gs 0x0000
cr2    0x0000000000000000
cr3    0x0000000000001000
cr0    0x0000000080010001  PE WP PG
cr4    0x0000000000001020  PAE LA57
efer   0x0000000000000500  LME LMA
";
    assert_eq!(dump, expected, "the CR2 of a page fault is that of its entry");
}

#[test]
fn at_cpl_3_a_frame_prints_without_the_registers_that_cannot_be_read() {
    assert_eq!(SystemRegisters::read(), None);
    let frame = TrapFrame::default();
    assert_eq!(frame.to_string(), Dump { frame: &frame, system: None }.to_string());
    let values = values(&frame.to_string());
    assert!(values.contains_key("rsp") && values.contains_key("cs") && !values.contains_key("cr3"));
}
