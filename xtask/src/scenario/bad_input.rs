//! Bad input: the test kernel makes a bad file of each good one, prints what a user would see, has lost no frame, and goes on.

use super::{Linux, Scenario, Step};
use crate::bundle::Content;

/// The test kernel's cases, and what each error has to name.
const CASES: &[(&str, &str)] = &[
    ("elf-empty", r"not an ELF file: it begins with \[00, 00, 00, 00\]"),
    ("elf-truncated", "segment [0-9]+ is truncated: the file has 0x2000 bytes of at least 0x[0-9a-f]+"),
    ("elf-corrupt", r"not an ELF file: it begins with \[7f, 45, 58, 45\]"),
    ("elf-of-another-machine", "not an ELF file for x86-64: e_machine is 183"),
    (
        "elf-overlap",
        r"segment [0-9]+ \(0x0\.\.0x[0-9a-f]+\) and segment [0-9]+ \(0x0\.\.0x[0-9a-f]+\) overlap",
    ),
    ("bzimage-truncated", "the bzImage is truncated: [0-9]+ bytes of at least [0-9]+"),
    ("bzimage-short", "the bzImage is truncated: 512 bytes of at least 612"),
    ("bzimage-corrupt", r#"not a bzImage: header is 0x58726448, not "HdrS""#),
    ("bzimage-old", "boot protocol 2.11 is older than 2.12"),
    (
        "bzimage-too-big",
        "no usable memory for the kernel: 0xf0000000 bytes .* between 0x[0-9a-f]+ and 0x[0-9a-f]+",
    ),
    ("command-line-too-long", "the command line has 4096 bytes, the kernel takes at most 2047"),
    (
        "segment-reserved",
        r"segment 0x([0-9a-f]+)\.\.0x[0-9a-f]+ lies over memory that is not usable: 0x[0-9a-f]+ is Reserved",
    ),
    ("segments-overlap", r"segment 0x2003000\.\.0x2007000 overlaps segment 0x2000000\.\.0x2004000"),
    ("too-many-segments", "more segments than the 4 slots given"),
    ("no-file", "the bundle has no file no-such-file"),
    ("no-memory-to-load", "out of memory: no frame left for the content of 0x[0-9a-f]+"),
    (
        "no-memory-to-prepare",
        "out of memory: no frame left for the image, its list, its tables or the control frames",
    ),
];

pub(super) fn scenarios() -> Vec<Scenario> {
    let linux = Linux::default();
    let bundle = linux.bundle().with("second", Content::Kernel("second".to_owned()));
    let cases = CASES.iter().map(|(case, error)| {
        Scenario::lab(format!("bad-input/{case}"), &format!("bad {case}"))
            .with_bundle(bundle.clone())
            .expect(&format!("^lab: error: {error}$"))
            .expect("^lab: [0-9]+ frames free, before and after$")
    });
    // After all of that the same kernel still does its job.
    let all = Scenario::lab("bad-input/the-kernel-goes-on-to-linux", &format!("bad {}", CASES[0].0));
    let mut all = all.with_bundle(bundle.clone()).limit(120).expect("^lab: ready$");
    for (case, _) in &CASES[1..] {
        all = all.then(Step::Type(format!("bad {case}"))).expect("^lab: ready$");
    }
    let all = all.then(Step::Type(format!("linux {}", linux.command_line())));
    cases.chain([linux.judge(all)]).collect()
}
