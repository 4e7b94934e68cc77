//! Dumps are found in whatever a console carried, and no more is taken for said than was.

mod common;

use std::path::Path;

use common::Writer;
use kexec_decode::Dump;
use kexec_decode::dump::{Found, State, Value};

fn find_one(log: &str) -> Found {
    let mut found = Dump::find_all(log.as_bytes());
    assert_eq!(found.len(), 1);
    found.remove(0)
}

#[test]
fn the_example_of_the_documentation_is_a_complete_dump() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/dump-format.md");
    let document = std::fs::read_to_string(document).unwrap();
    let start = document.find("```text\nkexec-dump begin version=1\nerror=").unwrap() + "```text\n".len();
    let example = &document[start..];
    let example = &example[..example.find("```").unwrap()];
    let found = find_one(&example.replace('\n', "\r\n"));
    assert_eq!(found.state, State::Complete);
    assert_eq!(found.foreign_lines, 0);
    assert_eq!(found.dump.number("cr2"), Some(0x1_0000_0000));
    assert_eq!(found.dump.values().count(), example.lines().count() - 2);
}

#[test]
fn a_whole_dump_in_noise_is_complete() {
    let log = format!("\u{1b}[2J\u{fffd}BdsDxe: starting\r\n{}more\r\n", Writer::new(6).print());
    let found = find_one(&log);
    assert_eq!(found.state, State::Complete);
    assert_eq!(found.line, 3);
    assert!(log[found.range.clone()].starts_with("kexec-dump begin"));
    assert!(log[found.range].ends_with("\r\n"));
}

#[test]
fn bytes_that_are_no_text_around_a_dump_do_no_harm() {
    let mut log = vec![0xff, 0, 0xfe, b'\n', 0xc3];
    log.extend(Writer::new(6).print().bytes());
    log.extend([0xff; 9]);
    assert_eq!(Dump::find_all(&log)[0].state, State::Complete);
}

#[test]
fn the_first_line_may_follow_unfinished_output() {
    let log = format!("unfinished {}", Writer::new(6).print().trim_start());
    assert_eq!(find_one(&log).state, State::Complete);
}

#[test]
fn lines_of_others_between_its_own_are_left_out_and_the_checksum_still_holds() {
    let log = Writer::new(6).print().replace("rbx=", "qemu: warning: guest is odd\nrbx=");
    let found = find_one(&log);
    assert_eq!(found.state, State::Complete);
    assert_eq!(found.foreign_lines, 1);
}

#[test]
fn time_stamps_in_front_and_changed_line_ends_do_not_break_the_checksum() {
    let stamped: String =
        Writer::new(6).print().lines().map(|line| format!("[   12.345] serial0: {line}\n")).collect();
    assert_eq!(find_one(&stamped).state, State::Complete);
}

#[test]
fn a_changed_digit_is_noticed() {
    let log =
        Writer::new(6).set("rax", 0x1234).print().replace("rax=0000000000001234", "rax=0000000000001235");
    assert!(matches!(find_one(&log).state, State::Damaged { printed: Some(_), .. }));
}

#[test]
fn a_number_cut_short_is_not_taken_for_a_number() {
    let whole = Writer::new(6).set("rbx", 0xabcd_ef01_2345_6789).print();
    let at = whole.find("rbx=").unwrap();
    let found = find_one(&whole[..at + "rbx=".len() + 9]);
    assert_eq!(found.state, State::Truncated);
    assert_eq!(found.dump.number("rbx"), None);
    assert_eq!(found.dump.number("rax"), Some(0));
}

#[test]
fn a_dump_cut_off_anywhere_gives_every_line_before_the_cut() {
    let whole = Writer::page_fault(2, 0x1_0000_0000).set("pml4e", 0).print();
    let end = whole.find("kexec-dump end").unwrap();
    let begin = whole.find("version=").unwrap() + "version=".len();
    for cut in begin..end {
        let found = find_one(&whole[..cut]);
        assert_eq!(found.state, State::Truncated);
        // A line is whole with its last digit; the line end says nothing more.
        let lines =
            whole[..cut].lines().filter(|line| line.split_once('=').is_some_and(|(_, v)| v.len() >= 16));
        let bytes_cut =
            whole[..cut].lines().last().is_some_and(|line| line.starts_with("bytes=") && line.len() > 6);
        let read = found.dump.values().filter(|(name, _)| *name != "bytes" || !bytes_cut).count();
        let lines = lines.filter(|line| !line.starts_with("bytes=") || !bytes_cut).count();
        assert_eq!(read, lines, "cut at {cut}");
    }
}

#[test]
fn two_dumps_are_told_apart() {
    let log = format!("{}between\r\n{}", Writer::new(3).print(), Writer::new(6).print());
    let found = Dump::find_all(log.as_bytes());
    let vectors: Vec<_> = found.iter().map(|found| found.dump.number("vector")).collect();
    assert_eq!(vectors, [Some(3), Some(6)]);
    assert!(found.iter().all(|found| found.state == State::Complete));
}

#[test]
fn a_dump_that_another_cuts_off_is_truncated_and_the_other_is_complete() {
    let first = Writer::new(3).print();
    let log = format!("{}{}", &first[..first.len() / 2], Writer::new(6).print());
    let states: Vec<_> = Dump::find_all(log.as_bytes()).into_iter().map(|found| found.state).collect();
    assert_eq!(states, [State::Truncated, State::Complete]);
}

#[test]
fn the_mark_of_a_fault_in_the_dumper_ends_the_dump() {
    let whole = Writer::new(6).print();
    let cut = whole.find("rbp=").unwrap() + 7;
    let log = format!(
        "{}\r\nkexec-dump fault in dumper vector=0000000000000012 rip=0000000007f3a412\r\nrbp=0000000000000001\r\n",
        &whole[..cut]
    );
    let found = find_one(&log);
    assert_eq!(found.state, State::DumperFault { vector: Some(0x12), rip: Some(0x7f3_a412) });
    assert_eq!(found.dump.number("rbp"), None);
}

#[test]
fn a_name_counts_once() {
    let whole = Writer::new(6).set("rax", 7).print();
    let log = whole.replace("rbx=", "rax=0000000000000008\r\nrbx=");
    let found = find_one(&log);
    assert_eq!(found.dump.number("rax"), Some(7));
    assert_eq!((found.state, found.foreign_lines), (State::Complete, 1));
}

#[test]
fn names_that_are_not_known_are_kept_and_do_not_hurt() {
    // A reader skips a name that it does not know; the checksum covers its line all the same.
    let body = "vector=0000000000000006\r\nxcr0=0000000000000007\r\n";
    let crc = common::crc32(body.as_bytes());
    let log = format!("kexec-dump begin version=1\r\n{body}kexec-dump end crc32={crc:08x}\r\n");
    let found = find_one(&log);
    assert_eq!(found.state, State::Complete);
    assert_eq!(found.dump.number("xcr0"), Some(7));
}

#[test]
fn memory_that_could_not_be_read_is_no_number() {
    let log =
        Writer::new(6).text("stack2", "unreadable").text("bytes", "0f0b????????????????????????????").print();
    let found = find_one(&log);
    assert_eq!(found.state, State::Complete);
    assert_eq!(found.dump.get("stack2"), Some(&Value::Unreadable));
    assert_eq!(found.dump.code(), [0x0f, 0x0b]);
}

#[test]
fn a_log_without_a_dump_has_none() {
    assert_eq!(Dump::find_all(b"plan: version 1\r\nkexec-dump\r\nrip=0000000000000000\r\n"), []);
    assert_eq!(Dump::find_all(b""), []);
}
