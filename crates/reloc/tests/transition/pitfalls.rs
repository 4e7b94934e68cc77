//! The pitfalls of section 4 of the facts, as far as they are the engine's; docs/pitfalls.md has the table.
//!
//! Each test says how it was shown red: the engine was broken that way, and the test failed.

use kexec_abi::{PAGE_SIZE, PhysRange, VirtAddr};
use reloc::{ENGINE, Mode};

use crate::callee::{BLOCK, Block, again, callee, kernel};
use crate::kernel::{Kernel, Start};
use crate::memory::LiveMap;
use crate::model::{cr0, cr4};
use crate::operands::reg;
use crate::paging::walk;
use crate::round_trips::{round_and_compare, two_starts, with_data};

/// A kernel in that state, with an image to be called that returns with what the block says.
fn kernel_with(start: &Start, block: &Block) -> Kernel {
    Kernel::new(start, Mode::Preserve, &with_data(callee(block)))
}

/// Red: CR4 written after CR3, at `enter` (at the next boundary: "an event here is lost: vector 0: … is written through the new map
/// before CR4.PGE is clear").
#[test]
fn pitfall_1_no_write_goes_through_the_new_map_while_a_stale_global_entry_may_be_used() {
    // RAM is global, read-only and not executable at its own addresses: a stale entry of any control frame is a fault.
    let map = LiveMap { global: true, identity: true, ..LiveMap::default() };
    for pcide in [0, cr4::PCIDE] {
        let start = Start { map, cr4: cr4::PGE | pcide, ..Start::default() };
        round_and_compare("global", &mut kernel_with(&start, &Block::default()));
    }
}

/// Red: `xor edx, edx` for `mov edx, 1` before the walk back.
#[test]
fn pitfall_2_pages_are_exchanged_on_the_way_back_too() {
    let mut kernel = kernel_with(&Start::default(), &Block::default());
    let image = kernel.machine.memory.image(0, 3);
    let before = kernel.machine.memory.bytes(image);
    let sources = kernel.sources();
    round_and_compare("there and back", &mut kernel);
    assert!(before == kernel.machine.memory.bytes(image), "the kernel's memory");
    // The callee's count of its calls is in its own page, where that page is now.
    let calls = BLOCK as u64 + std::mem::offset_of!(Block, calls) as u64;
    assert_eq!(kernel.machine.memory.read(sources[0].start.as_u64() + calls), 1);
    round_and_compare("again", &mut kernel);
    assert_eq!(kernel.machine.memory.read(sources[0].start.as_u64() + calls), 2);
}

/// Red: `walk` without `mov r11, rdx`, so that R11 decides what is exchanged; `reenter` without the load of RBX.
#[test]
fn pitfall_3_no_label_relies_on_a_register_that_its_contract_does_not_name() {
    for (name, start) in two_starts() {
        for garbage in [0, 1, u64::MAX] {
            let mut kernel = kernel_with(&start, &Block::default());
            kernel.machine.garbage = Some(garbage);
            round_and_compare(name, &mut kernel);
        }
    }
}

/// Red: `enter` without the push of the entry point before that of the return address.
#[test]
fn pitfall_4_the_callee_s_entry_has_a_slot_of_its_own_on_the_stack_frame() {
    let mut kernel = kernel_with(&Start::default(), &Block::default());
    let [_, stack, _, _] = kernel.prepared.data_frames();
    let sources = kernel.sources();
    round_and_compare("once", &mut kernel);
    let block = sources[0].start.as_u64() + BLOCK as u64;
    let [rsp, returns, entry] = [0, 8, 16].map(|offset| kernel.machine.memory.read(block + offset));
    assert!(stack.range().contains_range(&PhysRange::from_len(rsp.into(), 16).unwrap()), "{rsp:#x}");
    assert!(kernel.prepared.code_frames().contains(returns.into()), "{returns:#x}");
    assert_eq!(entry, kernel.image_at(0));
}

/// Red: a stack that begins at the top of its frame, not 8 below.
#[test]
fn pitfall_5_a_purgatory_reads_a_zero_quadword_at_its_first_rsp() {
    let mut kernel = Kernel::new(&Start::default(), Mode::Replace, &with_data(kernel()));
    let [_, stack, _, _] = kernel.prepared.data_frames();
    let rsp = reg(&kernel.replace(), libc::REG_RSP);
    assert_eq!(rsp, stack.range().end.as_u64() - 8);
    assert_eq!(kernel.machine.memory.read(rsp), 0);
}

/// Red: the last 64 bytes not copied. (That a piece is one block, and leads nowhere outside, tests/engine.rs reads.)
#[test]
fn pitfall_6_the_bytes_that_run_are_all_of_the_template_s() {
    let kernel = kernel_with(&Start::default(), &Block::default());
    let constants = ENGINE.find("constants").unwrap();
    assert!(kernel.engine()[..constants] == ENGINE.bytes()[..constants]);
    assert_eq!(ENGINE.used() - constants, 5 * 8);
    let words = &kernel.engine()[constants..];
    let control = kernel.prepared.data_frames()[0].start().as_u64();
    assert_eq!(words[..8], control.to_le_bytes());
}

/// Red: a jump to the caller's code in `enter`, a read of GS:[0] in `restore`. The check is the machine's: a segment prefix in the engine, or an instruction of any other
/// code between `enter` and the way back, is forbidden.
#[test]
fn pitfalls_7_and_10_nothing_but_the_engine_runs_and_it_uses_neither_gs_nor_fs() {
    // The selectors and bases are the transition's until the very end; a callee leaves others.
    let block = Block { gs_base: 0x1234_5000, ..Block::default() };
    for (name, start) in two_starts() {
        round_and_compare(name, &mut kernel_with(&start, &block));
    }
}

/// Red: `reenter` looks for the constants from the start of the page.
#[test]
fn pitfall_8_the_engine_runs_wherever_in_a_frame_it_lies() {
    assert_ne!(ENGINE.bytes().as_ptr() as u64 % PAGE_SIZE, 0, "and where it is linked, too");
    let mut kernel = kernel_with(&Start::default(), &Block::default());
    kernel.move_engine(0x90);
    let next = kernel.image_at(again());
    round_and_compare("moved", &mut kernel);
    kernel.prepared.set_entry(VirtAddr::new(next));
    round_and_compare("again", &mut kernel);
}

/// Red: LASS kept in the CR4 of the transition.
#[test]
fn pitfall_9_lass_is_off_before_the_low_half_is_touched() {
    for smap in [0, cr4::SMAP] {
        let start = Start { cr4: cr4::LASS | smap, ..Start::default() };
        round_and_compare("LASS", &mut kernel_with(&start, &Block::default()));
    }
}

/// Red: MCE left out of the CR4 of the transition.
#[test]
fn pitfall_13_mce_stays_set_in_a_tdx_guest_and_elsewhere() {
    for tdx in [true, false] {
        let start = Start { tdx, ..Start::default() };
        round_and_compare("MCE", &mut kernel_with(&start, &Block::default()));
        let mut replaced = Kernel::new(&start, Mode::Replace, &with_data(kernel()));
        replaced.replace();
        assert_ne!(replaced.machine.processor.control.cr4 & cr4::MCE, 0);
    }
}

/// Red: the firmware's ranges left out of `TransitionMap::memory`.
#[test]
fn pitfall_15_the_firmware_s_tables_are_mapped_before_a_new_kernel_has_a_page_fault_handler() {
    // A configuration table that begins in the middle of a page, and not in RAM.
    let table = PhysRange::new(0x7_f123_4560.into(), 0x7_f123_6010.into());
    let start = Start { firmware: vec![table], ..Start::default() };
    let kernel = Kernel::new(&start, Mode::Replace, &with_data(kernel()));
    let root = kernel.prepared.map().root().start().as_u64();
    let control = &kernel.machine.processor.control;
    for page in table.round_out().frames().map(|frame| frame.start().as_u64()) {
        let found = walk(&kernel.machine.memory, root, control, page).unwrap();
        assert_eq!(found.phys, page);
    }
    assert!(walk(&kernel.machine.memory, root, control, table.round_out().end.as_u64()).is_err());
}

/// Red: CR4 restored before CR0, with WP clear in the CR0 of the transition. (Either alone is safe.)
#[test]
fn suspected_cet_comes_back_after_write_protection() {
    let start = Start { cr4: cr4::CET, s_cet: 5, ..Start::default() };
    round_and_compare("CET", &mut kernel_with(&start, &Block { cr0_and: !cr0::WP, ..Block::default() }));
}

/// Red: neither CLD nor POPFQ at `reenter`. (Each alone is enough; and an exchange has no string instruction.)
#[test]
fn suspected_a_callee_that_returns_with_df_set_corrupts_nothing() {
    let block = Block { return_flags: 2 | 1 << 10, ..Block::default() };
    round_and_compare("DF", &mut kernel_with(&Start::default(), &block));
}

/// Red: FRED kept in the CR4 of the transition: events would go to the handlers of a kernel that is not mapped.
#[test]
fn suspected_fred_is_off_where_the_debug_idt_is_to_count() {
    let start = Start { cr4: cr4::FRED, ..Start::default() };
    let mut kernel = kernel_with(&start, &Block::default());
    round_and_compare("FRED", &mut kernel);
    assert!(kernel.machine.uncovered.is_empty());
}

#[test]
fn the_table_of_pitfalls_names_tests_that_exist_and_leaves_no_pitfall_out() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let table = std::fs::read_to_string(root.join("docs/pitfalls.md")).unwrap();
    let mut numbers = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [number, _, file, test, _] = cells[..] else { panic!("five cells: {row}") };
        let number = number.trim_start_matches("| ");
        if number == "#" {
            continue;
        }
        let (file, test) = (file.trim_matches('`'), test.trim_matches('`'));
        let source =
            std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(source.contains(&format!("#[test]\nfn {test}() {{")), "{file} has no test {test}");
        numbers.push(number.to_owned());
    }
    for number in 1..=16 {
        assert!(numbers.contains(&number.to_string()), "pitfall {number} has no row");
    }
}
