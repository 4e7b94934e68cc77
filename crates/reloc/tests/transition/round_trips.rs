//! There and back, from each state that a kernel may run in and from what a callee may leave behind.

use kexec_abi::{FrameAllocator as _, PAGE_SIZE, PhysMemory as _, VirtAddr};
use reloc::Mode;

use crate::callee::{BLOCK, Block, again, callee, kernel};
use crate::kernel::{Kernel, Start};
use crate::memory::LiveMap;
use crate::model::{cr0, cr4, efer, msr};
use crate::operands::reg;

/// Two pages of data behind the code of an image.
pub(crate) fn with_data(code: Vec<u8>) -> [Vec<u8>; 3] {
    let data = |seed: u8| (0..PAGE_SIZE).map(|n| (n as u8).wrapping_mul(seed) ^ (n >> 8) as u8).collect();
    [code, data(3), data(5)]
}

/// States in which a kernel may run, by name.
pub(crate) fn starts() -> Vec<(&'static str, Start)> {
    let plain = Start::default();
    let global = LiveMap { global: true, identity: true, ..LiveMap::default() };
    let with = |cr4: u64| Start { cr4, ..Start::default() };
    vec![
        ("plain", plain.clone()),
        ("PGE, SMEP, SMAP", Start { map: global, ..with(cr4::PGE | cr4::SMEP | cr4::SMAP) }),
        ("PCIDE, and a PCID", Start { pcid: 5, ..with(cr4::PGE | cr4::PCIDE) }),
        ("shadow stacks and indirect-branch tracking", Start { s_cet: 5, ..with(cr4::CET) }),
        ("LASS", with(cr4::LASS | cr4::SMAP)),
        ("FRED", with(cr4::FRED)),
        // Key 1 is closed.
        ("protection keys", Start { keys: 0b1100, ..with(cr4::PKE | cr4::PKS) }),
        ("five levels", Start { map: LiveMap { five_levels: true, ..global }, ..with(cr4::PGE) }),
        ("a TDX guest", Start { tdx: true, ..plain.clone() }),
        ("NT, AC and ID set", Start { flags: 1 << 14 | 1 << 18 | 1 << 21, ..plain.clone() }),
        ("AM, TS and EM set in CR0", Start { cr0: 1 << 18 | 1 << 3 | 1 << 2, ..plain }),
        (
            "all of them",
            Start {
                map: LiveMap { five_levels: true, ..global },
                pcid: 0xfff,
                flags: 1 << 14 | 1 << 21,
                s_cet: 5,
                tdx: true,
                keys: 0b1100,
                ..with(
                    cr4::PGE
                        | cr4::PCIDE
                        | cr4::SMEP
                        | cr4::SMAP
                        | cr4::CET
                        | cr4::LASS
                        | cr4::FRED
                        | cr4::PKE
                        | cr4::PKS,
                )
            },
        ),
    ]
}

/// Calls the image, and finds all as it was but for what the callee left in its own block.
#[track_caller]
pub(crate) fn round_and_compare(name: &str, kernel: &mut Kernel) -> u64 {
    let processor = kernel.machine.processor.clone();
    let (memory, engine) = (kernel.untouched(), kernel.engine());
    let sources = kernel.sources();
    let pages: Vec<_> = sources.iter().map(|page| kernel.machine.memory.bytes(*page)).collect();

    let next = kernel.round();

    assert_eq!(kernel.machine.processor, processor, "{name}");
    for (before, after) in memory.iter().zip(kernel.untouched()) {
        assert!(*before == after, "{name}: the frame {} has changed", before.0);
    }
    assert!(engine == kernel.engine(), "{name}: the code frame has changed");
    for (number, (page, before)) in sources.iter().zip(&pages).enumerate() {
        let after = kernel.machine.memory.bytes(*page);
        let block = if number == 0 { BLOCK..BLOCK + size_of::<Block>() } else { 0..0 };
        let same = (0..before.len()).all(|n| block.contains(&n) || before[n] == after[n]);
        assert!(same, "{name}: page {number} of the image is not what the callee left");
    }
    next
}

/// The callee's block, where its page is while the kernel runs.
fn block(kernel: &Kernel) -> Block {
    let start = kernel.sources()[0].start.as_u64() + BLOCK as u64;
    // SAFETY: RAM, and plain words.
    unsafe { (start as *const Block).read() }
}

fn set_block(kernel: &mut Kernel, block: &Block) {
    let start = kernel.sources()[0].start.as_u64() + BLOCK as u64;
    // SAFETY: as above; nothing refers to it.
    unsafe { (start as *mut Block).write(*block) };
}

/// The least and the most of [`starts`].
pub(crate) fn two_starts() -> impl Iterator<Item = (&'static str, Start)> {
    starts().into_iter().filter(|(name, _)| ["plain", "all of them"].contains(name))
}

#[test]
fn from_each_state_there_and_back_twice_without_a_forbidden_step_or_an_uncovered_boundary() {
    for (name, start) in starts() {
        let pages = with_data(callee(&Block { next: 0x7777, ..Block::default() }));
        let mut kernel = Kernel::new(&start, Mode::Preserve, &pages);
        let next = kernel.image_at(again());
        let first = Block { next, ..block(&kernel) };
        set_block(&mut kernel, &first);
        assert_eq!(round_and_compare(name, &mut kernel), next, "{name}");
        let seen = block(&kernel);
        assert_eq!((seen.calls, seen.registers, seen.flags & !0x44), (1, 0, 2), "{name}"); // ZF and PF come of its own ORs
        kernel.prepared.set_entry(VirtAddr::new(next));
        assert_eq!(round_and_compare(name, &mut kernel), next, "{name}");
        assert_eq!(block(&kernel).calls, 2, "{name}");
        assert!(kernel.machine.boundaries > 2000, "{name}");
        assert!(kernel.machine.uncovered.is_empty(), "{name}: {:x?}", kernel.machine.uncovered);
    }
}

#[test]
fn from_each_state_a_new_kernel_is_entered_in_the_same_state() {
    for (name, start) in starts() {
        let mut kernel = Kernel::new(&start, Mode::Replace, &with_data(kernel()));
        let code = kernel.prepared.code_frames();
        let before = kernel.machine.memory.bytes(code);
        let entered = kernel.replace();
        let nonzero: Vec<_> = (0..15).filter(|index| reg(&entered, *index) != 0).collect();
        assert_eq!(nonzero, [], "{name}: general registers, by the numbers of libc");
        assert_eq!(reg(&entered, libc::REG_RIP), kernel.image_at(0), "{name}");
        assert_eq!(kernel.machine.processor.flags, 0, "{name}");
        let control = &kernel.machine.processor.control;
        let left = cr4::PAE | cr4::MCE | if start.map.five_levels { cr4::LA57 } else { 0 };
        assert_eq!((control.cr4, control.cr0), (left, cr0::PE | cr0::PG | cr0::WP), "{name}");
        assert_eq!(kernel.machine.processor.selectors, [0x18, 0x10, 0x18, 0x18, 0x18, 0x18], "{name}");
        for (page, bytes) in with_data(crate::callee::kernel()).iter().enumerate() {
            let at = kernel.machine.memory.image(page as u64, 1);
            assert!(kernel.machine.memory.bytes(at) == *bytes, "{name}: page {page}");
        }
        assert!(before == kernel.machine.memory.bytes(code), "{name}");
        assert!(kernel.machine.uncovered.is_empty(), "{name}");
    }
}

/// Tables of the callee's own, which have the code frame, the stack and the image where they are, and nothing else.
fn own_tables(kernel: &mut Kernel, five_levels: bool) -> u64 {
    let [_, stack, _, _] = kernel.prepared.data_frames();
    let mut pages: Vec<u64> = kernel.prepared.code_frames().frames().map(|f| f.start().as_u64()).collect();
    pages.push(stack.start().as_u64());
    pages.extend((0..3).map(|page| kernel.image_at(page * PAGE_SIZE)));
    let memory = &mut kernel.machine.memory;
    let mut table = || {
        let frame = memory.allocate().unwrap();
        memory.zero(frame).unwrap();
        frame.start().as_u64()
    };
    let levels = if five_levels { 5 } else { 4 };
    let root = table();
    let mut chain = vec![root];
    chain.extend((2..levels).map(|_| table()));
    let last = [table(), table()];
    for (depth, pair) in chain.windows(2).enumerate() {
        let shift = 12 + 9 * (levels - 1 - depth as u64);
        memory.write(pair[0] + (pages[0] >> shift & 511) * 8, pair[1] | 3);
    }
    let giant = pages[0] & !((1 << 30) - 1);
    let directory = chain[chain.len() - 1];
    for page in pages {
        let (large, small) = ((page - giant) >> 21, page >> 12 & 511);
        memory.write(directory + large * 8, last[large as usize] | 3);
        memory.write(last[large as usize] + small * 8, page | 3);
    }
    root
}

#[test]
fn a_callee_may_leave_flags_selectors_tables_and_control_registers_as_it_likes() {
    for (name, start) in two_starts() {
        let five_levels = start.map.five_levels;
        let base = cr4::PAE | cr4::MCE | if five_levels { cr4::LA57 } else { 0 };
        let all_but_cet = base | cr4::PGE | cr4::PCIDE | cr4::SMEP | cr4::SMAP | cr4::PKE | cr4::PKS;
        // DF, IF, NT, AC, IOPL 3 and the arithmetic flags.
        let flags = 2 | 0x8d5 | 0x400 | 0x200 | 0x4000 | 0x4_0000 | 0x3000;
        for (what, tables, change) in [
            ("flags", false, Block { return_flags: flags, ..Block::default() }),
            ("segment bases", false, Block { gs_base: 0x1234_5000, ..Block::default() }),
            ("CR0.WP", false, Block { cr0_and: !cr0::WP, ..Block::default() }),
            ("CR4", false, Block { cr4: all_but_cet, ..Block::default() }),
            // Indirect-branch tracking, and no shadow stack.
            (
                "CET",
                false,
                Block { cr4: base | cr4::CET, msr: msr::IA32_S_CET.into(), msr_value: 4, ..Block::default() },
            ),
            ("its own CR3, no NXE", true, Block { efer_and: !efer::NXE, ..Block::default() }),
            (
                "CR4 and its own CR3",
                true,
                Block { cr4: all_but_cet, return_flags: flags, ..Block::default() },
            ),
        ] {
            let name = format!("{name}; the callee leaves {what}");
            if what == "CET" && start.cr4 & cr4::CET == 0 {
                continue; // without CET there is no such bit
            }
            let mut kernel = Kernel::new(&start, Mode::Preserve, &with_data(callee(&change)));
            let cr3 = if tables { own_tables(&mut kernel, five_levels) } else { 0 };
            let pcid = if change.cr4 & cr4::PCIDE != 0 { 7 } else { 0 };
            let next = kernel.image_at(again());
            let change = Block { next, cr3: if tables { cr3 | pcid } else { 0 }, ..change };
            set_block(&mut kernel, &change);
            assert_eq!(round_and_compare(&name, &mut kernel), next, "{name}");
            assert_eq!(block(&kernel).calls, 1, "{name}");
            let uncovered = kernel.machine.uncovered.len();
            assert!(tables || uncovered == 0, "{name}: {:x?}", kernel.machine.uncovered);
        }
    }
}

/// From the return of a callee with tables of its own until ours are loaded again, an event finds the callee's handlers, if any.
#[test]
fn a_callee_with_its_own_gdt_and_idt_leaves_a_handful_of_boundaries_uncovered() {
    let mut kernel = Kernel::new(&Start::default(), Mode::Preserve, &with_data(callee(&Block::default())));
    // In the image's third page: a code segment at 0x48, data at 0x50; an IDT of nothing.
    let gdt = kernel.image_at(2 * PAGE_SIZE);
    let source = kernel.sources()[2].start.as_u64();
    kernel.machine.memory.write(source + 0x48, 0x00af_9b00_0000_ffff);
    kernel.machine.memory.write(source + 0x50, 0x00cf_9300_0000_ffff);
    let next = kernel.image_at(again());
    let pseudo = |limit: u64| limit << 48;
    let cr3 = own_tables(&mut kernel, false);
    set_block(
        &mut kernel,
        &Block {
            next,
            cr3,
            load_gdt: 1,
            gdt_limit: pseudo(0x57),
            gdt,
            load_idt: 1,
            idt_limit: pseudo(0x1ff),
            idt: gdt + 0x200,
            data_selector: 0x50,
            code_selector: 0x48,
            ..Block::default()
        },
    );
    assert_eq!(round_and_compare("own tables", &mut kernel), next);
    let uncovered = &kernel.machine.uncovered;
    let count: usize = uncovered.values().map(Vec::len).sum();
    // Those from `reenter` to its new CS: see docs/transition.md.
    assert!(uncovered.keys().all(|label| ["reenter", "take_debug", "load_tss"].contains(label)));
    assert!((1..=40).contains(&count), "{count}: {uncovered:#?}");
}

#[test]
fn a_kernel_without_a_tss_calls_more_than_once() {
    let pages = with_data(callee(&Block { next: 0x7777, ..Block::default() }));
    let start = Start { no_tss: true, ..Start::default() };
    let mut kernel = Kernel::new(&start, Mode::Preserve, &pages);
    let gdtr = kernel.machine.processor.gdtr;
    let next = kernel.image_at(again());
    let first = Block { next, ..block(&kernel) };
    set_block(&mut kernel, &first);
    for round in 1..=3 {
        assert_eq!(kernel.round(), next);
        assert_eq!(block(&kernel).calls, round);
        assert_eq!(kernel.machine.processor.gdtr, gdtr);
        kernel.prepared.set_entry(VirtAddr::new(next));
    }
    // It cannot be null again: it has the transition's selector, which means nothing in this kernel's GDT.
    assert_ne!(kernel.machine.processor.tr.0, 0);
}
