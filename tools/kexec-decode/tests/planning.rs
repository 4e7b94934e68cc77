//! A plan is read as a kernel prints it.

use std::path::Path;

use kexec_decode::Plan;

/// The log of the example `first` in QEMU, up to its jump.
fn saved() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs/plan-of-the-first-kernel.log");
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

#[test]
fn every_line_of_a_printed_plan_is_read() {
    let log = saved();
    let [plan] = &Plan::find_all(log.as_bytes())[..] else { panic!("one plan in the log") };
    let printed = |kind: &str| log.matches(&format!("plan: {kind} ")).count();
    assert_eq!(plan.segments.len(), printed("segment"));
    assert_eq!(plan.frames.len(), printed("frame"));
    assert_eq!(plan.pieces.len(), printed("piece"));
    assert_eq!(plan.labels.len(), printed("label"));
    assert_eq!(plan.runs.len(), printed("map") + printed("alias"));
    assert_eq!(plan.runs.iter().filter(|run| run.alias).count(), printed("alias"));
    assert!(plan.complete);
    assert_eq!(plan.defects, [""; 0]);
    assert_eq!((plan.version, plan.levels, plan.mode.as_deref()), (Some(1), Some(4), Some("copy")));
    assert_eq!(plan.entry, Some(0x801_c9c4));
    assert_eq!((plan.list_head, plan.tables_root), (Some(0x1b_a002), Some(0x1b_8000)));
}

#[test]
fn what_a_printed_plan_says_of_an_address_is_found() {
    let log = saved();
    let plan = Plan::find_all(log.as_bytes()).remove(0);
    assert_eq!(plan.label(0x1a_3150).map(|label| label.name.as_str()), Some("walk"));
    assert_eq!(plan.piece(0x1a_33f0).map(|piece| &piece.name), None);
    assert_eq!(plan.frame(0x1a_6fff).map(|frame| frame.name.as_str()), Some("debug-outgoing"));
    assert_eq!(plan.segment(0x8ff_ffff).map(|(index, _)| index), None);
    assert_eq!(plan.segment(0x24e_efff).map(|(index, _)| index), Some(1));
    assert_eq!(plan.run(0x80_0002_9000).map(|run| run.translate(0x80_0002_9abc)), Some(0x1d5f_3abc));
    let (below, above) = plan.neighbours(0x1eb0_0000);
    assert_eq!(below.map(|run| run.range.end), Some(0x1eaa_0000));
    assert_eq!(above.map(|run| run.range.start), Some(0x1eba_2000));
}

#[test]
fn a_plan_that_is_cut_off_is_read_as_far_as_it_goes() {
    let log = saved();
    let cut = log.find("plan: label").unwrap() + 14;
    let plan = Plan::find_all(&log.as_bytes()[..cut]).remove(0);
    assert!(!plan.complete);
    assert_eq!((plan.pieces.len(), plan.labels.len()), (1, 0));
}
