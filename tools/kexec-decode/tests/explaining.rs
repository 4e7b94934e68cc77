//! What is said about dumps, with and without a plan.

mod common;

use common::{PLAN, Writer, assert_says, explain, explain_one};

/// A write to 4 GiB, which nothing maps, while the list was walked.
fn write_past_the_map() -> Writer {
    Writer::page_fault(2, 0x1_0000_0000)
        .set("rsi", 0x7f5_2000)
        .set("rdi", 0x1_0000_0000)
        .set("rcx", 0x200)
        .set("rbp", 0x7f3_b000)
        .set("r13", 0x7f4_0ff8)
        .set("entry", 0x7f5_2008)
        .set("entry_address", 0x7f4_0ff0)
        .set("stack0", 0x7f3_a0d2)
        .set("pml4e", 0x7f3_1027)
        .set("pdpte", 0)
}

#[test]
fn a_page_fault_is_explained_with_piece_label_walk_list_entry_and_plan() {
    let report = explain_one(&format!("{PLAN}{}", write_past_the_map().print()));
    assert_says(
        &report,
        &[
            "#PF page fault, vector 14",
            "error code 0x2: write by the supervisor, page not present",
            "phase move: while the list was walked",
            "RIP 0x7f3a1c4: piece ENGINE + 0x1c4, label `walk` + 0x44 (in the code frame, + 0x1c4)",
            "=> 0x7f3a1c4: rep movsq [rdi], [rsi]",
            "CR2 0x100000000: in no segment, source or control frame of the plan",
            "the plan maps nothing there; next below: 0x100000..0x8000000 rwx wb, identity; next above: 0xffff800000200000..",
            "operand [rsi] is at 0x7f52000: page 1 of 1 of the source at hand",
            "PML4E   0 of the table at 0x7f30000: 0x0000000007f31027  table at 0x7f31000, writable, user, accessed",
            "PDPTE   4 of the table at 0x7f31000: 0x0000000000000000  not present, empty",
            "the walk ends at the PDPTE, which is not present: nothing is mapped in 0x100000000..0x140000000",
            "as the plan intended: it maps nothing there",
            "SOURCE: one page from 0x7f52000..0x7f53000 to the cursor",
            "entry 0x7f52008, at 0x7f40ff0, entry 510 of its frame",
            "rbp 0x7f3b000: control frame `control` + 0x0",
            "r13 0x7f40ff8: list frame, entry 511",
            "cr3 0x7f30000: the transition map",
            "0x7f3bf40: 0x7f3a0d2 returns to piece ENGINE + 0xd2, label `enter` + 0xc2",
            "cr4    0x60: PAE MCE",
        ],
    );
    assert!(!report.contains("With reservations"), "{report}");
}

#[test]
fn code_of_the_detour_through_32_bit_mode_is_disassembled_as_such() {
    // inc eax, a REX prefix in 64-bit mode; push eax; hlt
    let detour = Writer::new(13)
        .set("error", 0)
        .set("cs", 0x68)
        .text("bytes", "4050f4cccccccccccccccccccccccccc")
        .print();
    assert_says(&explain_one(&detour), &["=> 0x7f3a1c4: inc eax", ": push eax"]);
}

#[test]
fn a_run_at_the_top_of_the_address_space_and_defects_of_the_plan_are_read() {
    let plan = PLAN.replace(
        "0xffff800000200000..0xffff800000201000 -> 0x5200000",
        "0xfffffffffffff000..0x0 -> 0x7f3b000",
    );
    let plan = plan.replace(
        "first: plan: end",
        "first: plan: map: table at 0x7f31000 cannot be read\r\nfirst: plan: end",
    );
    let dump = Writer::new(6).set("rax", 0xffff_ffff_ffff_fff0).print();
    assert_says(
        &explain_one(&format!("{plan}{dump}")),
        &[
            "rax 0xfffffffffffffff0: control frame `control` + 0xff0",
            "the plan says of itself: map: table at 0x7f31000 cannot be read",
        ],
    );
}

#[test]
fn without_a_plan_the_code_frame_is_still_named() {
    let report = explain_one(&write_past_the_map().print());
    assert_says(
        &report,
        &["RIP 0x7f3a1c4: the code frame + 0x1c4", "no plan was given", "SOURCE: one page from 0x7f52000"],
    );
}

#[test]
fn a_map_that_is_not_what_the_plan_intended_is_said() {
    let dump = Writer::page_fault(2, 0x12_3456).set("pml4e", 0x7f3_1027).set("pdpte", 0).print();
    assert_says(
        &explain_one(&format!("{PLAN}{dump}")),
        &[
            "CR2 0x123456: destination, segment 0 (0x100000..0x200000) + 0x23456, content",
            "the plan maps it, in the run 0x100000..0x8000000 rwx wb, identity",
            "the plan intended 0x100000..0x8000000 rwx wb, identity: the tables were changed or overwritten",
        ],
    );
}

#[test]
fn tables_that_are_not_the_transitions_are_said_to_be_in_force() {
    let dump = Writer::page_fault(0, 0x12_3456).set("cr3", 0x8_8000).set("pml4e", 0).print();
    assert_says(
        &explain_one(&format!("{PLAN}{dump}")),
        &[
            "CR3 is not the root of that map: other tables are in force",
            "cr3 0x88000: not the transition map",
        ],
    );
}

#[test]
fn a_write_to_a_read_only_leaf_names_the_level_that_forbids_it() {
    let dump = Writer::page_fault(3, 0x10_0123)
        .set("pml4e", 0x7f3_1027)
        .set("pdpte", 0x7f3_2025)
        .set("pde", 0x7f3_3027)
        .set("pte", 0x10_0063)
        .print();
    let report = explain_one(&format!("{PLAN}{dump}"));
    assert_says(
        &report,
        &[
            "error code 0x3: write by the supervisor, not permitted",
            "PTE   256 of the table at 0x7f33000: 0x0000000000100063  4 KiB page at 0x100000, writable, accessed, dirty",
            "the walk reaches physical 0x100123 through a 4 KiB leaf (PTE), and the PDPTE is read-only",
            "the plan intended the rights rwx, the tables have r-x, supervisor",
        ],
    );
}

#[test]
fn a_fetch_from_a_no_execute_large_page_names_the_level() {
    let dump = Writer::page_fault(0x11, 0x2345_6789)
        .set("rip", 0x2345_6789)
        .text("bytes", "9090909090909090909090909090????")
        .set("pml4e", 0x7f3_1027)
        .set("pdpte", 0x7f3_2027)
        .set("pde", 0x8000_0000_2340_00e3)
        .print();
    assert_says(
        &explain_one(&dump),
        &[
            "fetch by the supervisor, not permitted",
            "CR2 is RIP: the code itself could not be fetched",
            "2 MiB page at 0x23400000, writable, no-execute, accessed, dirty",
            "the walk reaches physical 0x23456789 through a 2 MiB leaf (PDE), and the PDE is no-execute",
        ],
    );
}

#[test]
fn a_walk_that_permits_the_access_points_to_a_stale_entry() {
    // Linux d144d8a65286: a global entry outlived the CR3 switch and kept the page read-only.
    let dump = Writer::page_fault(3, 0x20_0000)
        .set("pml4e", 0x7f3_1027)
        .set("pdpte", 0x7f3_2027)
        .set("pde", 0x20_00e7)
        .print();
    assert_says(
        &explain_one(&dump),
        &["which permit this access", "a stale one in the TLB (a global one outlives a CR3 write)"],
    );
}

#[test]
fn a_reserved_bit_is_found() {
    let large_at_the_top = Writer::page_fault(9, 0x1000).set("pml4e", 0x7f3_10a7).set("pdpte", 0).print();
    // The dumper takes bit 7 for a large page in PDPTE and PDE only, and goes on.
    assert!(
        explain_one(&large_at_the_top)
            .contains("error code 0x9: read by the supervisor, not permitted, reserved bit set")
    );
    let base = || Writer::page_fault(9, 0x1000).set("pml4e", 0x7f3_1027).set("pdpte", 0x7f3_2027);
    let misaligned = base().set("pde", 0x10_00e7).print();
    assert_says(
        &explain_one(&misaligned),
        &["the PDE maps a large page whose address is not aligned to 2 MiB"],
    );
    let no_nxe = base().set("efer", 0x500).set("pde", 0x8000_0000_0000_00e7).print();
    assert_says(&explain_one(&no_nxe), &["the PDE has bit 63 (no-execute) set while EFER.NXE is clear"]);
}

#[test]
fn five_levels_are_walked_with_la57() {
    let dump = Writer::page_fault(0, 0x00ab_cdef_0123_4567)
        .set("cr4", 0x1060)
        .set("pml5e", 0x7f3_1027)
        .set("pml4e", 0x7f3_2027)
        .text("pdpte", "unreadable")
        .print();
    // Bits 56:48, 47:39 and 38:30 of the address.
    assert_says(
        &explain_one(&dump),
        &[
            "PML5E 171 of the table at 0x7f30000",
            "PML4E 411 of the table at 0x7f31000",
            "PDPTE 444 of the table at 0x7f32000: unreadable",
            "the walk ends at the PDPTE, which could not be read",
        ],
    );
}

#[test]
fn list_entries_are_decoded_with_their_runs() {
    let with = |entry: u64| Writer::new(6).set("entry", entry).set("entry_address", 0x7f4_0008).print();
    let say = |entry: u64, sentence: &str| {
        assert_says(&explain_one(&format!("{PLAN}{}", with(entry))), &[sentence])
    };
    say(0x0010_1001, "DESTINATION: the next pages go to 0x101000");
    say(0x0900_0001, "no segment of the plan has that destination");
    say(0x07f4_1002, "INDIRECTION: the list goes on at 0x7f41000");
    say(4, "DONE: the list ends");
    say(0x00f0_0000_0600_0008, "SOURCE: 16 pages from 0x6000000..0x6010000 to the cursor");
    say(0x0010_0000_0000_0010, "ZERO: 2 pages at the cursor become zero");
    say(0xff_0000_3008, "the plan does not map 0xff00003000");
    say(0x07f3_a008, "that is the control frame `code`, which is no source");
    say(0x0010_1009, "more than one flag is set");
    say(0x0010_1fe1, "bits 11:5 are set");
}

#[test]
fn a_selector_error_code_names_the_descriptor_or_the_gate() {
    let gp = |error: u64| explain_one(&Writer::new(13).set("error", error).print());
    assert_says(&gp(0x28), &["#GP general protection, vector 13", "error code 0x28: GDT selector 0x0028"]);
    assert_says(&gp(0x20 << 3 | 2), &["IDT gate 32"]);
    assert_says(&gp(0), &["no selector"]);
}

#[test]
fn an_operand_that_is_not_canonical_is_found() {
    // mov rax, [rbx + 8]
    let dump = Writer::new(13)
        .set("error", 0)
        .set("rbx", 0x8000_0000_0000_0000)
        .text("bytes", "488b4308cccccccccccccccccccccccc");
    assert_says(
        &explain_one(&dump.print()),
        &["operand [rbx+8] is at 0x8000000000000008: not a canonical address"],
    );
    let jump = Writer::new(13)
        .set("error", 0)
        .set("rax", 0x1234_0000_0000_0000)
        .text("bytes", "ffe0cccccccccccccccccccccccccccc");
    assert_says(
        &explain_one(&jump.print()),
        &["=> 0x7f3a1c4: jmp rax", "it goes to rax, 0x1234000000000000: not a canonical address"],
    );
}

#[test]
fn the_zeros_of_a_segment_are_told_from_its_content() {
    let dump = Writer::new(6).set("rdi", 0x1f_f000).print();
    assert_says(
        &explain_one(&format!("{PLAN}{dump}")),
        &["rdi 0x1ff000: destination, segment 0 (0x100000..0x200000) + 0xff000, the zeros after its content"],
    );
}

#[test]
fn an_alias_is_followed_to_the_physical_address() {
    let dump = Writer::new(6).set("phase", 1).set("rax", 0xffff_8000_0020_0010).print();
    let plan = PLAN.replace("-> 0x5200000", "-> 0x7f3b000");
    assert_says(
        &explain_one(&format!("{plan}{dump}")),
        &["rax 0xffff800000200010: control frame `control` + 0x10"],
    );
}

#[test]
fn counts_of_nmis_and_breakpoints_are_told() {
    let report = explain_one(&Writer::new(3).set("nmi", 2).set("breakpoint", 1).print());
    assert_says(
        &report,
        &["#BP breakpoint", "2 NMIs so far in this view", "1 breakpoint so far in this view"],
    );
}

#[test]
fn each_dump_is_explained_with_the_plan_before_it() {
    let other = PLAN.replace("ENGINE", "OTHER");
    let dump = Writer::new(3).print();
    let reports = explain(&format!("{dump}{PLAN}{dump}{other}{dump}"));
    assert_says(&reports[0], &["the code frame + 0x1c4"]);
    assert_says(&reports[1], &["piece ENGINE + 0x1c4"]);
    assert_says(&reports[2], &["piece OTHER + 0x1c4"]);
}

#[test]
fn the_plan_of_another_transition_is_noticed() {
    let dump = Writer::new(6).set("code_frame", 0x6f3_a000).set("rip", 0x6f3_a1c4).print();
    assert_says(
        &explain_one(&format!("{PLAN}{dump}")),
        &["the plan's code frame is 0x7f3a000, the dump's 0x6f3a000: the plan is another transition's"],
    );
}

#[test]
fn what_makes_the_explanation_doubtful_is_said() {
    let whole = write_past_the_map().print();
    let cut = whole.find("rdi=").unwrap();
    assert_says(
        &explain_one(&whole[..cut]),
        &["truncated", "the dump is truncated: its last line is missing", "#PF page fault"],
    );
    let damaged = whole.replace("rdi=0000000100000000", "rdi=0000000100000001");
    assert_says(&explain_one(&damaged), &["the dump is damaged: its checksum is"]);
    let newer = whole.replace("version=1", "version=2");
    assert_says(&explain_one(&newer), &["version 2 of the dump is not known here"]);
    let mark = "\r\nkexec-dump fault in dumper vector=000000000000000e rip=0000000007f3a412\r\n";
    let faulted = format!("{PLAN}{}{mark}", &whole[..cut]);
    assert_says(
        &explain_one(&faulted),
        &["the dumper itself was stopped by #PF page fault at 0x7f3a412: piece EXCEPTION + 0x12"],
    );
}

#[test]
fn an_error_code_that_is_missing_points_to_int_n() {
    assert_says(
        &explain_one(&Writer::new(13).print()),
        &["without the error code that the processor pushes: raised by an `int`"],
    );
}

#[test]
fn the_reports_are_plain_ascii_but_for_what_the_log_and_the_files_bring() {
    assert!(explain_one(&format!("{PLAN}{}", write_past_the_map().print())).is_ascii());
}
