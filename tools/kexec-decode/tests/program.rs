//! The program as a person runs it.

mod common;

use std::path::Path;
use std::process::{Command, Output};

use common::{PLAN, Writer, assert_says};

fn run(arguments: &[&str], colours: bool) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kexec-decode"));
    command.args(arguments).env_remove("CLICOLOR_FORCE").env_remove("NO_COLOR");
    if colours {
        command.env("CLICOLOR_FORCE", "1");
    }
    command.output().unwrap()
}

fn saved(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs").join(name).display().to_string()
}

#[test]
fn a_saved_log_is_explained_in_plain_text_where_no_terminal_reads_it() {
    let output = run(&[&saved("write-past-the-map.log")], false);
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_says(
        &text,
        &["Dump at line 23 of the log, complete", "label `walk` + 0x44", "the walk ends at the PDPTE"],
    );
}

#[track_caller]
fn assert_told(name: &str, sentences: &[&str]) {
    let output = run(&[&saved(name)], false);
    assert!(output.status.success(), "{name}");
    assert_says(&String::from_utf8(output.stdout).unwrap(), sentences);
}

#[test]
fn a_saved_log_with_a_breakpoint_and_a_fault_tells_of_both() {
    assert_told(
        "two-dumps.log",
        &[
            "Dump at line 23 of the log, complete",
            "#BP breakpoint, vector 3",
            "phase identity",
            "label `walk` + 0x1",
            "Dump at line 73 of the log, complete",
            "#PF page fault, vector 14",
        ],
    );
}

#[test]
fn a_saved_log_that_was_cut_off_tells_what_came_before() {
    assert_told(
        "truncated.log",
        &[
            "Dump at line 23 of the log, truncated",
            "error code 0x2: write by the supervisor",
            "label `walk` + 0x44",
            "CR2 0x100000000",
            "the bytes at RIP are not in what is left of the dump",
            "the phase is not in the dump",
            "the dump is truncated: its last line is missing",
            "the dump has no walk of CR2",
        ],
    );
}

#[test]
fn a_saved_log_with_spoilt_lines_tells_the_rest() {
    assert_told(
        "damaged.log",
        &[
            "line 23 of the log, damaged",
            "label `walk` + 0x44",
            "SOURCE: one page from 0x7f52000",
            "operand [rdi] is at 0x100000000",
            "CR2 is not in what is left of the dump",
            "2 lines in it spoilt or of others, left out",
            "the dump is damaged: its checksum is f27511d0",
        ],
    );
}

#[test]
fn a_saved_log_whose_dumper_faulted_tells_of_both_faults() {
    assert_told(
        "fault-in-the-dumper.log",
        &[
            "ended by a fault of the dumper",
            "CR2 0x100000000",
            "the dumper itself was stopped by #PF page fault at 0x7f3a412: piece EXCEPTION + 0x12",
        ],
    );
}

#[test]
fn colours_are_there_where_they_are_asked_for() {
    let output = run(&[&saved("write-past-the-map.log")], true);
    assert!(String::from_utf8(output.stdout).unwrap().contains("\u{1b}["));
}

#[test]
fn the_plan_comes_from_a_file_if_one_is_named() {
    let folder = tempfile::TempDir::new().unwrap();
    let (log, plan) = (folder.path().join("log"), folder.path().join("plan"));
    std::fs::write(&log, Writer::new(6).print()).unwrap();
    std::fs::write(&plan, PLAN.replace("walk", "elsewhere")).unwrap();
    let output = run(&[log.to_str().unwrap(), "--plan", plan.to_str().unwrap()], false);
    assert_says(&String::from_utf8(output.stdout).unwrap(), &["label `elsewhere` + 0x44"]);
}

#[test]
fn a_log_without_a_dump_and_a_file_that_is_missing_are_failures_that_say_so() {
    let folder = tempfile::TempDir::new().unwrap();
    let log = folder.path().join("quiet.log");
    std::fs::write(&log, PLAN).unwrap();
    let output = run(&[log.to_str().unwrap()], false);
    assert!(!output.status.success());
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["no dump in", "quiet.log"]);
    let output = run(&["no-such.log"], false);
    assert!(!output.status.success());
    assert_says(&String::from_utf8(output.stderr).unwrap(), &["cannot read no-such.log"]);
}
