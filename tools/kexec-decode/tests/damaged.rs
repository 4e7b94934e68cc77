//! Never a panic, whatever the log holds.

mod common;

use common::{PLAN, Writer};
use kexec_decode::explain;
use proptest::prelude::*;

/// Every value of a dump is anything.
fn any_dump() -> impl Strategy<Value = String> {
    let names = [
        "error",
        "rip",
        "rsp",
        "rflags",
        "rax",
        "rsi",
        "rdi",
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "efer",
        "nmi",
        "phase",
        "entry",
        "entry_address",
        "code_frame",
        "stack0",
        "stack7",
        "pml5e",
        "pml4e",
        "pdpte",
        "pde",
        "pte",
    ];
    let edge = prop_oneof![
        any::<u64>(),
        prop::sample::select(vec![
            0,
            1,
            7,
            0xfff,
            0x1000,
            0x7f3_a000,
            0x7f3_0000,
            1 << 47,
            1 << 52,
            u64::MAX,
            u64::MAX - 7,
            !0xfff
        ]),
    ];
    let set = prop::collection::vec((prop::sample::select(names.to_vec()), edge), 0..24);
    (prop_oneof![Just(14_u64), 0..40_u64], set, prop::collection::vec(any::<u8>(), 16)).prop_map(
        |(vector, set, code)| {
            let bytes: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
            let writer = Writer::new(vector).text("bytes", &bytes);
            set.into_iter().fold(writer, |writer, (name, value)| writer.set(name, value)).print()
        },
    )
}

/// Lines of a plan with any numbers.
fn any_plan() -> impl Strategy<Value = String> {
    let number = prop_oneof![any::<u64>(), Just(0), Just(u64::MAX), Just(0x7f3_a000)];
    let line = (0..9_usize, number.clone(), number).prop_map(|(kind, a, b)| match kind {
        0 => format!("plan: segment {a:#x}..{b:#x} content {b:#x} bytes"),
        1 => format!("plan: frame {a:#x} r-x code"),
        2 => format!("plan: piece {a:#x}..{b:#x} ENGINE"),
        3 => format!("plan: label {a:#x}..{b:#x} ENGINE walk"),
        4 => format!("plan: map {a:#x}..{b:#x} rwx wb -> {a:#x}"),
        5 => format!("plan: alias {a:#x}..{b:#x} -> {b:#x} r-x wb"),
        6 => format!("plan: list head {a:#x} frames {b}"),
        7 => format!("plan: tables root {a:#x} frames {b}"),
        _ => format!("plan: {a} {b}"),
    });
    prop::collection::vec(line, 0..20).prop_map(|lines| format!("plan: version 1\n{}\n", lines.join("\n")))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_values_are_explained(plan in any_plan(), dump in any_dump()) {
        let reports = explain(format!("{plan}{dump}").as_bytes(), Vec::new(), None);
        prop_assert_eq!(reports.len(), 1);
        prop_assert!(reports[0].heading.ends_with("complete"));
        prop_assert!(!reports[0].to_string().is_empty());
    }

    #[test]
    fn a_damaged_log_is_explained_as_far_as_it_goes(
        dump in any_dump(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize), 0..3),
    ) {
        let mut log = format!("{PLAN}{dump}").into_bytes();
        for (at, byte) in changes {
            let at = at.index(log.len());
            log[at] = byte;
        }
        for (at, length) in cuts {
            let at = at.index(log.len());
            log.drain(at..(at + length).min(log.len()));
        }
        for report in explain(&log, Vec::new(), None) {
            prop_assert!(!report.to_string().is_empty());
        }
    }

    #[test]
    fn any_bytes_are_a_log(log in any::<Vec<u8>>(), front in any::<Vec<u8>>()) {
        let log = [&front[..], b"kexec-dump begin version=", &log, b"kexec-dump end crc32=", &front].concat();
        prop_assert!(!explain(&log, Vec::new(), Some(&log)).is_empty());
    }
}

/// This test's own file, as a kernel loaded just above 0.
#[cfg(target_os = "linux")]
#[test]
fn any_values_are_explained_with_a_kernel() {
    use kexec_decode::{Dump, Kernel, Plan, Report};
    use proptest::test_runner::TestRunner;

    let kernel = Kernel::open(std::env::current_exe().unwrap(), Some(0x1000)).unwrap();
    let kernels = [kernel];
    let address = prop_oneof![0..0x100_0000_u64, any::<u64>()];
    let values = (any_plan(), any_dump(), prop::collection::vec(address, 4));
    TestRunner::new(ProptestConfig::with_cases(200))
        .run(&values, |(plan, dump, at)| {
            let names = ["rip", "stack0", "stack1", "rax"];
            let lines: String =
                names.iter().zip(at).map(|(name, at)| format!("{name}={at:016x}\r\n")).collect();
            // The first line of a name counts.
            let dump = dump.replace("version=1\r\n", &format!("version=1\r\n{lines}"));
            let plan = Plan::find_all(plan.as_bytes()).pop();
            let found = Dump::find_all(dump.as_bytes()).remove(0);
            prop_assert!(Report::new(&found, &kernels, plan.as_ref()).section("Where").is_some());
            Ok(())
        })
        .unwrap();
}
