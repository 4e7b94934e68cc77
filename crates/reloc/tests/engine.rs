//! The engine's page code, read and run on the host.
#![cfg(target_arch = "x86_64")]
#![allow(unreachable_pub, reason = "the common part serves several tests")]

mod common;

use common::walk;
use kexec_abi::list::Entry;
use kexec_abi::{Frame, PAGE_SIZE, PhysAddr};
use reloc::{DETOUR, ENGINE};

#[test]
fn the_engine_keeps_the_rules_of_page_code() {
    let broken = page_code_check::broken_rules(&ENGINE, &["enter", "walk", "reenter"]);
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_detour_keeps_the_rules_of_page_code() {
    let broken = page_code_check::broken_rules(&DETOUR, &["switch_levels"]);
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_pieces_of_a_transition_fit_in_one_code_frame_with_a_console() {
    use kexec_exception::page_code::{DUMP, EXCEPTION};
    let all = [&ENGINE, &DETOUR, &EXCEPTION, &DUMP].map(|piece| piece.bytes().len().next_multiple_of(16));
    // As much as serial8250's largest piece.
    assert!(all.iter().sum::<usize>() + 96 <= PAGE_SIZE as usize, "{all:?} and 96 bytes of console");
}

/// Pages that a list can name, and the list.
#[repr(C, align(4096))]
struct Pages([[u64; 512]; 8]);

impl Pages {
    fn new() -> Box<Self> {
        Box::new(Self(std::array::from_fn(|page| [0x1111 * (page as u64 + 1); 512])))
    }

    fn address(&self, page: usize) -> u64 {
        self.0[page].as_ptr() as u64
    }

    fn frame(&self, page: usize) -> Frame {
        Frame::containing(PhysAddr::new(self.address(page)))
    }

    /// What fills each page, if it is one word throughout.
    fn words(&self) -> [Option<u64>; 8] {
        self.0.map(|page| page.iter().all(|word| *word == page[0]).then_some(page[0]))
    }

    /// Runs the walker on a list in the last page.
    fn run(&mut self, entries: &[Entry], swap: bool) {
        for (slot, entry) in self.0[7].iter_mut().zip(entries) {
            *slot = entry.as_u64();
        }
        // SAFETY: the entries name these pages only, and the borrow is exclusive.
        unsafe { walk(Entry::indirection(self.frame(7)).as_u64(), swap) };
    }
}

#[test]
fn a_list_made_for_linux_is_walked_bit_for_bit() {
    let mut pages = Pages::new();
    // A second list page in page 6, as Linux chains them; an entry of zero is skipped.
    let second = [pages.address(4) | 1, pages.address(5) | 8, 0, 4];
    pages.0[6][..4].copy_from_slice(&second);
    let list = [
        Entry::from(pages.address(0) | 1),
        Entry::from(pages.address(2) | 8),
        Entry::from(0),
        Entry::from(pages.address(3) | 8),
        Entry::from(pages.address(6) | 2),
    ];
    pages.run(&list, false);
    let words = pages.words();
    assert_eq!(
        words[..6],
        [Some(0x3333), Some(0x4444), Some(0x3333), Some(0x4444), Some(0x6666), Some(0x6666)]
    );
}

#[test]
fn a_source_may_be_its_own_destination_in_both_modes() {
    for swap in [false, true] {
        let mut pages = Pages::new();
        let list = [
            Entry::destination(pages.frame(1)),
            Entry::source(pages.frame(1), 1).unwrap(),
            Entry::source(pages.frame(4), 1).unwrap(),
            Entry::DONE,
        ];
        pages.run(&list, swap);
        let words = pages.words();
        assert_eq!(words[1], Some(0x2222));
        assert_eq!(words[2], Some(0x5555));
        assert_eq!(words[4], Some(if swap { 0x3333 } else { 0x5555 }));
    }
}

#[test]
fn a_run_moves_as_many_pages_as_it_says_and_the_cursor_follows() {
    let mut pages = Pages::new();
    let list = [
        Entry::destination(pages.frame(0)),
        Entry::source(pages.frame(4), 2).unwrap(),
        Entry::zero(1).unwrap(),
        Entry::in_place(pages.frame(6), 1).unwrap(),
        Entry::source(pages.frame(5), 1).unwrap(),
        Entry::DONE,
    ];
    pages.run(&list, false);
    assert_eq!(pages.words()[..4], [Some(0x5555), Some(0x6666), Some(0), Some(0x6666)]);
}

#[test]
fn a_head_that_is_done_moves_nothing() {
    let pages = Pages::new();
    // SAFETY: the list names nothing.
    unsafe { walk(Entry::DONE.as_u64(), false) };
    assert_eq!(pages.words()[0], Some(0x1111));
}
