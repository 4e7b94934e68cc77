//! The pieces of page code: run as they are on models of the chips, and read instruction by instruction.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod board;

use std::ptr::NonNull;

use board::chip::{Model, Nothing, Uart as Modelled};
use board::{Board, Chip, Place};
use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Register};
use kexec_abi::page_code::PageCode;
use kexec_abi::{Console, ConsoleConfig, PhysAddr, PhysRange, VirtAddr};
use serial8250::console::{Block, DEBUG_CONSOLE, MMIO8, MMIO32, PIO, debug_console};
use serial8250::{Access, Config, STATUS_READS, Stride};

const TEXT: &[u8] = b"rip:ffffffff81000000\n\0\xff";

const MODELS: [Model; 4] = [Model::Ins8250, Model::Ns16450, Model::Ns16550, Model::Pc16550d];

/// Ports, and where the board has them.
const PLACES: [(Access, Place); 4] = [
    (Access::Pio { port: 0x2f8 }, Place::Ports(0x2f8)),
    (
        Access::Mmio8 { base: 0xfe00_0008, stride: Stride::One },
        Place::Memory { offset: 8, stride: 1, width: 1 },
    ),
    (
        Access::Mmio8 { base: 0xfe00_0100, stride: Stride::Four },
        Place::Memory { offset: 0x100, stride: 4, width: 1 },
    ),
    (Access::Mmio32 { base: 0xfe00_0fe0 }, Place::Memory { offset: 0xfe0, stride: 4, width: 4 }),
];

/// A copy of a piece, in a page that can only be run, with a block of its own.
struct Copy {
    entry: usize,
    block: Box<[[u8; 64]; 3]>,
}

/// What surrounds the block.
const GUARD: [u8; 64] = [0xa5; 64];

/// What the registers hold that a piece need not keep, and those that it must.
const SENTINEL: u64 = 0x5e47_1e15_0f0e_0d0c;

impl Copy {
    fn new(code: &PageCode, config: ConsoleConfig) -> Self {
        let bytes = code.bytes();
        // SAFETY: a new mapping, filled before it is made executable and read-only. It stays for the process's life.
        let page = unsafe {
            let (none, anonymous) = (std::ptr::null_mut(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let page = libc::mmap(none, 4096, libc::PROT_READ | libc::PROT_WRITE, anonymous, -1, 0);
            assert_ne!(page, libc::MAP_FAILED);
            page.cast::<u8>().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            assert_eq!(libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC), 0);
            page as usize
        };
        Self { entry: page + code.offset(0), block: Box::new([GUARD, config.0, GUARD]) }
    }

    /// Calls the piece as the contract has it, and checks what it leaves: the registers that the pieces here keep, and the
    /// memory around the block.
    fn put_byte(&mut self, byte: u8) {
        let (mut rdi, mut rsi) = (self.block[1].as_mut_ptr() as u64, SENTINEL & !0xff | u64::from(byte));
        let (block, argument) = (rdi, rsi);
        let [mut r9, mut r10, mut r11, mut r12, mut r13, mut r14] = [SENTINEL; 6];
        // SAFETY: the piece's contract: a block of its own, DF clear, a stack.
        unsafe {
            core::arch::asm!(
                "call r15",
                inout("rdi") rdi, inout("rsi") rsi, in("r15") self.entry,
                inout("r9") r9, inout("r10") r10, inout("r11") r11,
                inout("r12") r12, inout("r13") r13, inout("r14") r14,
                out("rax") _, out("rcx") _, out("rdx") _, out("r8") _,
            );
        }
        assert_eq!((rdi, rsi), (block, argument));
        assert_eq!([r9, r10, r11, r12, r13, r14], [SENTINEL; 6]);
        assert_eq!((self.block[0], self.block[2]), (GUARD, GUARD));
    }

    fn write(&mut self, text: &[u8]) {
        text.iter().for_each(|&byte| self.put_byte(byte));
    }
}

/// The console of a port, as if the running kernel had mapped its page at `at`.
fn live(access: Access, status_reads: u32, at: NonNull<u8>) -> (&'static PageCode, ConsoleConfig) {
    let console = Config::new(access).unwrap().console(status_reads, Some(VirtAddr::new(at.as_ptr() as u64)));
    (console.code, console.live.map_or(console.config, |(config, _)| config))
}

/// Writes `text` to `chip` at each place in turn, by a copy of the piece; every access must have been one that the device
/// answers.
fn everywhere<C: Chip>(
    status_reads: u32,
    chip: impl Fn() -> C,
    text: &[u8],
    check: impl Fn(&mut Board<C>, &[u8; 64]),
) {
    for (access, place) in PLACES {
        let mut board = Board::new(chip(), place);
        let block = board.run(|at| {
            let (code, config) = live(access, status_reads, at);
            let mut copy = Copy::new(code, config);
            copy.write(text);
            copy.block[1]
        });
        assert_eq!(board.strays, [""; 0], "{access:?}");
        check(&mut board, &block);
    }
}

#[test]
fn a_copy_of_each_piece_is_heard_and_leaves_the_line_as_it_is() {
    for model in MODELS {
        everywhere(
            STATUS_READS,
            || Modelled::new(model, 3),
            TEXT,
            |board, _| {
                assert_eq!(board.chip.heard(), TEXT);
                assert_eq!(board.chip.lost, 0);
                assert!(board.accesses.iter().all(|access| match access.register {
                    0 => access.written.is_some_and(|value| value <= 0xff),
                    5 => access.written.is_none(),
                    _ => false,
                }));
            },
        );
    }
}

#[test]
fn the_model_of_another_project_hears_each_piece() {
    everywhere(STATUS_READS, board::vm_superio, TEXT, |board, _| assert_eq!(board.chip.writer(), TEXT));
}

#[test]
fn a_slow_device_with_a_backlog_is_waited_for() {
    everywhere(
        STATUS_READS,
        || Modelled::new(Model::Pc16550d, 500).with_fifo_on().with_backlog(b"firmware's "),
        b"ours",
        |board, _| assert_eq!(board.chip.heard(), b"firmware's ours"),
    );
}

#[test]
fn a_wait_that_needs_all_status_reads_succeeds_and_one_more_is_silence() {
    // The byte in the shift register takes 100 accesses: the write of the byte behind it, and 99 status reads.
    for (status_reads, heard) in [(99, b"abc".as_slice()), (98, b"ab")] {
        everywhere(
            status_reads,
            || Modelled::new(Model::Ns16450, 100),
            b"abc",
            |board, block| {
                assert_eq!(board.chip.heard(), heard);
                let left = u32::from_le_bytes(block[8..12].try_into().unwrap());
                assert_eq!(left, if heard.len() == 3 { 99 } else { 0 });
            },
        );
    }
}

#[test]
fn a_stuck_device_costs_the_bound_once() {
    everywhere(
        1000,
        || Modelled::new(Model::Ns16450, usize::MAX),
        TEXT,
        |board, _| {
            assert_eq!(board.reads(5), 1 + 1 + 1000);
            assert_eq!(board.accesses.len(), board.reads(5) + 2);
        },
    );
}

#[test]
fn an_absent_device_costs_the_bound_once_and_is_never_written_to() {
    for open_bus in [0xff, 0x00] {
        everywhere(
            1000,
            || Nothing(open_bus),
            TEXT,
            |board, _| assert_eq!((board.reads(5), board.accesses.len()), (1000, 1000)),
        );
    }
}

#[test]
fn a_bound_of_zero_is_silence() {
    everywhere(0, || Modelled::new(Model::Pc16550d, 1), TEXT, |board, _| assert!(board.accesses.is_empty()));
}

#[test]
fn line_errors_disturb_no_output() {
    for errors in [0x02, 0x04, 0x08, 0x10, 0x9e, 0x9f] {
        everywhere(
            STATUS_READS,
            || Modelled::new(Model::Pc16550d, 2).with_errors(errors),
            TEXT,
            |board, _| assert_eq!(board.chip.heard(), TEXT),
        );
    }
}

#[test]
fn the_debug_console_writes_to_port_0xe9() {
    let mut board = Board::new(Modelled::new(Model::Ns16450, 0), Place::Ports(0xe9));
    let Console { code, config, mmio, live } = debug_console();
    board.run(|_| Copy::new(code, config).write(TEXT));
    assert_eq!(board.strays, [""; 0]);
    assert_eq!(board.chip.heard(), TEXT);
    assert_eq!((mmio, live), (None, None));
}

#[test]
fn the_template_runs_where_it_was_linked() {
    let mut board = Board::new(Modelled::new(Model::Ns16450, 1), Place::Ports(0x3f8));
    board.run(|_| {
        let Console { code, config, .. } = Config::COM1.console(STATUS_READS, None);
        let entry = code.bytes().as_ptr() as usize + code.offset(0);
        Copy { entry, block: Box::new([GUARD, config.0, GUARD]) }.write(TEXT);
    });
    assert_eq!(board.chip.heard(), TEXT);
}

#[test]
fn a_console_says_which_memory_it_needs_and_where_the_kernel_has_it() {
    let mapped = Some(VirtAddr::new(0xffff_8000_1234_5000));
    let block = |base, shift| Block { base, status_reads: 7, shift }.config();

    let Console { code, config, mmio, live } = Config::COM2.console(7, mapped);
    assert_eq!((code.name(), config, mmio, live), ("PIO", block(0x2f8, 0), None, None));

    let port = Config::new(Access::Mmio8 { base: 0xfedc_0104, stride: Stride::Four }).unwrap();
    let Console { code, config, mmio, live } = port.console(7, mapped);
    assert_eq!((code.name(), config), ("MMIO8", block(0xfedc_0104, 2)));
    assert_eq!(mmio, PhysRange::from_len(PhysAddr::new(0xfedc_0104), 32));
    assert_eq!(live, Some((block(0xffff_8000_1234_5104, 2), VirtAddr::new(0xffff_8000_1234_5000))));

    let port = Config::new(Access::Mmio32 { base: 0x3_0000_0000 }).unwrap();
    let Console { code, config, mmio, live } = port.console(7, None);
    assert_eq!((code.name(), config), ("MMIO32", block(0x3_0000_0000, 0)));
    assert_eq!((mmio, live), (PhysRange::from_len(PhysAddr::new(0x3_0000_0000), 32), None));
}

#[test]
fn the_sizes_are_bounded() {
    for (code, bound) in [(&PIO, 64), (&MMIO8, 64), (&MMIO32, 64), (&DEBUG_CONSOLE, 24)] {
        assert!(code.used() <= bound, "{}: {} bytes", code.name(), code.used());
        assert!(code.bytes().len() <= 96);
    }
}

#[test]
fn no_piece_breaks_the_rules_of_page_code() {
    for piece in [&PIO, &MMIO8, &MMIO32, &DEBUG_CONSOLE] {
        assert_eq!(page_code_check::broken_rules(piece, &["put_byte"]), [""; 0], "{}", piece.name());
    }
}

#[test]
fn no_piece_reaches_memory_but_its_block_and_its_registers_or_leaves_but_by_returning() {
    for piece in [&PIO, &MMIO8, &MMIO32, &DEBUG_CONSOLE] {
        let mut info = InstructionInfoFactory::new();
        let code = &piece.bytes()[piece.offset(0)..piece.used()];
        for instruction in Decoder::with_ip(64, code, 0, DecoderOptions::NONE).into_iter() {
            match instruction.flow_control() {
                FlowControl::Return => continue,
                FlowControl::Next | FlowControl::ConditionalBranch => {}
                other => panic!("{}: {instruction}: {other:?}", piece.name()),
            }
            for memory in info.info(&instruction).used_memory() {
                // The block; the registers, of which MMIO8 adds a multiple of the distance.
                let allowed = [Register::RDI, Register::R8].contains(&memory.base());
                assert!(allowed, "{}: {instruction}", piece.name());
            }
        }
    }
}
