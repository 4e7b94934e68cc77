//! The Rust driver on models of the chips, by its real loads, stores and port instructions.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod board;

use core::fmt::Write;
use core::num::NonZeroU32;
use core::ptr::NonNull;

use board::chip::{Model, Nothing, Uart as Modelled};
use board::{Board, Chip, Place};
use proptest::prelude::*;
use serial8250::{Access, Config, Fault, LSR, Line, Parity, Registers, SetUpError, Stride, Uart, WordLength};

const TEXT: &str = "The quick brown fox jumps over the lazy dog, 0123456789.";

const PLACES: [(Access, Place); 5] = [
    (Access::Pio { port: 0x3f8 }, Place::Ports(0x3f8)),
    (Access::Pio { port: 0xfff8 }, Place::Ports(0xfff8)),
    (
        Access::Mmio8 { base: 0xfe00_0000, stride: Stride::One },
        Place::Memory { offset: 0, stride: 1, width: 1 },
    ),
    (
        Access::Mmio8 { base: 0xfe00_0100, stride: Stride::Four },
        Place::Memory { offset: 0x100, stride: 4, width: 1 },
    ),
    (Access::Mmio32 { base: 0xfe00_0fe0 }, Place::Memory { offset: 0xfe0, stride: 4, width: 4 }),
];

const MODELS: [Model; 4] = [Model::Ins8250, Model::Ns16450, Model::Ns16550, Model::Pc16550d];

fn config(access: Access) -> Config {
    Config::new(access).unwrap()
}

fn open(access: Access, at: NonNull<u8>) -> Uart<Registers> {
    // SAFETY: the board answers at that place, and is driven by nothing else.
    unsafe { Uart::open(&config(access), |_, _| Some(at)) }.unwrap()
}

fn baud(rate: u32) -> Line {
    Line::new(NonZeroU32::new(rate).unwrap())
}

/// Runs `f` with a driver of `chip` at each place in turn; every access must have been one that the device answers.
fn everywhere<C: Chip>(
    chip: impl Fn() -> C,
    f: impl Fn(&mut Uart<Registers>),
    check: impl Fn(&mut Board<C>),
) {
    for (access, place) in PLACES {
        let mut board = Board::new(chip(), place);
        board.run(|at| f(&mut open(access, at)));
        assert_eq!(board.strays, [""; 0], "{access:?}");
        check(&mut board);
    }
}

#[test]
fn is_heard_without_any_set_up_and_leaves_the_line_as_it_is() {
    for model in MODELS {
        everywhere(
            || Modelled::new(model, 3),
            |uart| {
                uart.write_str(TEXT).unwrap();
                assert_eq!(uart.fault(), None);
            },
            |board| {
                assert_eq!(board.chip.heard(), TEXT.as_bytes());
                assert!(board.accesses.iter().all(|access| match access.register {
                    0 => access.written.is_some(),
                    5 => access.written.is_none(),
                    _ => false,
                }));
            },
        );
    }
}

#[test]
fn is_heard_by_the_model_of_another_project() {
    everywhere(
        board::vm_superio,
        |uart| {
            uart.write_str(TEXT).unwrap();
            uart.set_up(&baud(115_200)).unwrap();
            uart.write_str(TEXT).unwrap();
        },
        |board| assert_eq!(*board.chip.writer(), [TEXT, TEXT].concat().as_bytes()),
    );
}

#[test]
fn com1_is_port_0x3f8_and_can_be_built_in_a_const() {
    // SAFETY: the board answers there, and is driven by nothing else.
    const COM1: Uart<serial8250::PioBackend> = unsafe { Uart::com1() }.with_crlf();
    let mut board = Board::new(Modelled::new(Model::Pc16550d, 1), Place::Ports(0x3f8));
    board.run(|_| { COM1 }.write_str("one\ntwo\n").unwrap());
    assert_eq!(board.strays, [""; 0]);
    assert_eq!(board.chip.heard(), b"one\r\ntwo\r\n");
}

#[test]
fn newlines_stay_as_they_are_unless_asked_for_and_bytes_always_do() {
    everywhere(
        || Modelled::new(Model::Ns16450, 1),
        |uart| {
            uart.write_str("a\nb\r\n").unwrap();
            uart.write_bytes(b"\n\x00\xff");
        },
        |board| assert_eq!(board.chip.heard(), b"a\nb\r\n\n\x00\xff"),
    );
}

#[test]
fn the_line_is_set_as_asked_on_every_chip() {
    let line = Line {
        parity: Parity::Even,
        data_bits: WordLength::SevenBits,
        clock: NonZeroU32::new(14_745_600).unwrap(),
        ..baud(38_400)
    };
    for model in MODELS {
        everywhere(
            || Modelled::new(model, 3).with_interrupts(),
            |uart| {
                uart.set_up(&line).unwrap();
                uart.write_str(TEXT).unwrap();
            },
            |board| {
                assert_eq!(board.chip.heard(), TEXT.as_bytes());
                assert_eq!(board.chip.lost, 0);
                assert!(board.chip.sent.iter().all(|sent| (sent.divisor, sent.line_control) == (24, 0x1a)));
                assert_eq!((board.chip.interrupt_enable, board.chip.modem_control), (0, 3));
                // A FIFO is on where it works, and off where it does not.
                assert_eq!(board.chip.fifo_is_on(), model == Model::Pc16550d);
            },
        );
    }
}

#[test]
fn set_up_lets_what_is_being_sent_get_out_first() {
    everywhere(
        || Modelled::new(Model::Pc16550d, 7).with_fifo_on().with_backlog(b"firmware's"),
        |uart| {
            uart.set_up(&baud(115_200)).unwrap();
            uart.write_str("ours").unwrap();
        },
        |board| {
            assert_eq!(board.chip.heard(), b"firmware'sours");
            let divisors: Vec<_> = board.chip.sent.iter().map(|sent| sent.divisor).collect();
            assert_eq!(divisors, [[12; 10].as_slice(), &[1; 4]].concat());
        },
    );
}

#[test]
fn a_fifo_is_filled_by_sixteen_bytes_a_wait_where_there_is_one_that_works() {
    for (model, depth) in
        [(Model::Ins8250, 1), (Model::Ns16450, 1), (Model::Ns16550, 1), (Model::Pc16550d, 16)]
    {
        everywhere(
            || Modelled::new(model, 1).with_fifo_on(),
            |uart| {
                assert_eq!(uart.find_fifo(), depth);
                uart.write_bytes(&[b'x'; 64]);
            },
            |board| {
                assert_eq!(board.chip.heard(), [b'x'; 64]);
                assert_eq!(board.chip.lost, 0);
                // Between two waits no more than the FIFO takes, and from the second byte on no less.
                let bursts: Vec<_> = board
                    .accesses
                    .split(|access| access.register == 5)
                    .map(|burst| burst.iter().filter(|access| access.register == 0).count())
                    .filter(|&bytes| bytes > 0)
                    .collect();
                assert_eq!(bursts, vec![depth; 64 / depth]);
            },
        );
    }
}

#[test]
fn a_slow_device_is_waited_for() {
    everywhere(
        || Modelled::new(Model::Ns16450, 1000),
        |uart| uart.write_str("slow").unwrap(),
        |board| {
            assert_eq!(board.chip.heard(), b"slow");
            assert_eq!(board.chip.lost, 0);
        },
    );
}

#[test]
fn a_stuck_device_costs_the_bound_once_and_is_reported() {
    everywhere(
        || Modelled::new(Model::Ns16450, usize::MAX),
        |uart| {
            let mut limited = Uart::from_uart_16550(take(uart)).with_status_reads(100);
            // One character goes to the shift register, the next to the holding register, and there it stays.
            limited.write_str(TEXT).unwrap();
            let stuck = Fault::Stuck { status_reads: 100, status: LSR::empty() };
            assert_eq!(limited.fault(), Some(stuck));
            assert_eq!(stuck.to_string(), "serial port stuck: line status 0x00 after 100 reads");
            limited.write_str(TEXT).unwrap();
            assert_eq!(limited.set_up(&baud(9600)), Err(SetUpError::Fault(stuck)));
        },
        |board| {
            assert_eq!(board.reads(5), 1 + 1 + 100);
            assert_eq!(board.accesses.len(), board.reads(5) + 2);
        },
    );
}

#[test]
fn an_absent_device_costs_the_bound_once_and_is_reported() {
    for open_bus in [0xff, 0x00] {
        everywhere(
            || Nothing(open_bus),
            |uart| {
                let mut limited = Uart::from_uart_16550(take(uart)).with_status_reads(100);
                assert_eq!(limited.find_fifo(), 1);
                limited.write_str(TEXT).unwrap();
                limited.write_str(TEXT).unwrap();
                match limited.fault() {
                    Some(Fault::Absent) => assert_eq!(open_bus, 0xff),
                    Some(Fault::Stuck { status_reads: 100, .. }) => assert_eq!(open_bus, 0),
                    other => panic!("{other:?}"),
                }
            },
            |board| {
                assert_eq!(board.reads(5), 100);
                assert!(board.accesses.iter().all(|access| access.written.is_none()));
            },
        );
    }
}

#[test]
fn the_default_bound_is_the_documented_one() {
    let mut board = Board::new(Nothing(0xff), Place::Ports(0x2f8));
    board.run(|at| open(Access::Pio { port: 0x2f8 }, at).write_str("x").unwrap());
    assert_eq!(board.reads(5), serial8250::STATUS_READS as usize);
}

#[test]
fn a_cleared_fault_is_forgotten() {
    let mut board = Board::new(Modelled::new(Model::Ns16450, 1), Place::Ports(0x3f8));
    board.run(|at| {
        let mut uart = open(Access::Pio { port: 0x3f8 }, at).with_status_reads(0);
        uart.write_str("x").unwrap();
        assert_eq!(uart.fault(), Some(Fault::Silenced));
        let mut uart = uart.with_status_reads(10);
        uart.write_str("y").unwrap();
        uart.clear_fault();
        uart.write_str("z").unwrap();
    });
    assert_eq!(board.chip.heard(), b"z");
}

#[test]
fn line_errors_disturb_no_output_and_are_kept_for_who_asks() {
    for errors in [0x02, 0x04, 0x08, 0x10, 0x9e, 0x9f] {
        everywhere(
            || Modelled::new(Model::Pc16550d, 2).with_errors(errors),
            |uart| {
                uart.write_str(TEXT).unwrap();
                assert_eq!(uart.fault(), None);
                let seen = uart.take_line_errors();
                // With every bit of the status set, the first read looks like an open bus, and is not believed.
                if errors | 0x60 != 0xff {
                    assert_eq!(seen.bits(), errors & 0x9e);
                }
                assert_eq!(uart.take_line_errors(), LSR::empty());
            },
            |board| assert_eq!(board.chip.heard(), TEXT.as_bytes()),
        );
    }
}

#[test]
fn a_baud_rate_without_a_divisor_is_an_error_and_touches_nothing() {
    for rate in [4_000_000, 1] {
        everywhere(
            || Modelled::new(Model::Pc16550d, 1),
            |uart| assert_eq!(uart.set_up(&baud(rate)), Err(SetUpError::Divisor(baud(rate)))),
            |board| assert!(board.accesses.is_empty()),
        );
    }
}

#[test]
fn registers_cannot_be_where_they_do_not_fit() {
    for access in [
        Access::Pio { port: 0xfff9 },
        Access::Mmio8 { base: u64::MAX - 6, stride: Stride::One },
        Access::Mmio8 { base: u64::MAX - 30, stride: Stride::Four },
        Access::Mmio32 { base: u64::MAX - 27 },
        Access::Mmio32 { base: 0xfe00_0002 },
    ] {
        assert!(Config::new(access).is_err(), "{access:?}");
    }
    let config = config(Access::Mmio32 { base: 0xfe00_0000 });
    let unaligned = NonNull::new(0x1002 as *mut u8);
    // SAFETY: never accessed.
    assert!(unsafe { Registers::new(&config, |_, _| unaligned) }.is_none());
    // SAFETY: never accessed.
    assert!(unsafe { Registers::new(&config, |_, _| None) }.is_none());
}

/// The driver below, out of one that is not used further.
fn take(uart: &mut Uart<Registers>) -> uart_16550::Uart16550<Registers> {
    let backend = *uart.uart_16550().backend();
    // SAFETY: the device is still there, and driven by the new driver alone.
    unsafe { uart_16550::Uart16550::new_with_backend(backend) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_arrives_whole_and_in_order(
        texts in proptest::collection::vec("[ -~\n]{0,40}", 0..6),
        model in proptest::sample::select(MODELS.as_slice()),
        place in proptest::sample::select(PLACES.as_slice()),
        ticks in 1_usize..40,
        set_up in any::<bool>(),
        crlf in any::<bool>(),
    ) {
        let (access, place) = place;
        let mut board = Board::new(Modelled::new(model, ticks).with_fifo_on(), place);
        board.run(|at| {
            let mut uart = open(access, at);
            if crlf {
                uart = uart.with_crlf();
            }
            if set_up {
                uart.set_up(&baud(115_200)).unwrap();
            }
            for text in &texts {
                uart.write_str(text).unwrap();
            }
        });
        let expected = texts.concat();
        let expected = if crlf { expected.replace('\n', "\r\n") } else { expected };
        prop_assert_eq!(String::from_utf8(board.chip.heard()).unwrap(), expected);
        prop_assert_eq!(board.chip.lost, 0);
        prop_assert!(board.strays.is_empty());
    }
}
