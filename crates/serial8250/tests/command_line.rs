//! The parsers of kernel command lines, and the printed form.

use core::num::NonZeroU32;

use proptest::prelude::*;
use serial8250::command_line::{ParseError, console, earlycon, earlyprintk, ports};
use serial8250::{Access, Config, InvalidAccess, Line, Parity, Stride, WordLength};

fn port(access: Access) -> Config {
    Config::new(access).unwrap()
}

fn baud(rate: u32) -> Option<Line> {
    Some(Line::new(NonZeroU32::new(rate).unwrap()))
}

const ADDRESS: u64 = 0xfe03_4000;
const MMIO32: Access = Access::Mmio32 { base: ADDRESS };
const MMIO: Access = Access::Mmio8 { base: ADDRESS, stride: Stride::One };
const MMIO_BY_4: Access = Access::Mmio8 { base: ADDRESS, stride: Stride::Four };

#[test]
fn earlyprintk_names_ports_as_linux_documents() {
    for (value, expected) in [
        ("serial", Config::COM1.with_line(baud(9600))),
        ("serial,ttyS0,115200", Config::COM1.with_line(baud(115_200))),
        ("serial,ttyS1,115200,keep", Config::COM2.with_line(baud(115_200))),
        ("serial,0x3f8,115200", Config::COM1.with_line(baud(115_200))),
        ("serial,0x2e8", Config::COM4.with_line(baud(9600))),
        ("ttyS0,115200", Config::COM1.with_line(baud(115_200))),
        ("ttyS1,keep", Config::COM2.with_line(baud(9600))),
        ("ttyS0,nocfg", Config::COM1),
        ("mmio32,0xfe034000", port(MMIO32).with_line(baud(9600))),
        ("mmio32,0xfe034000,115200,keep", port(MMIO32).with_line(baud(115_200))),
        ("mmio32,0xfe034000,nocfg", port(MMIO32)),
    ] {
        assert_eq!(earlyprintk(value), Ok(expected), "{value}");
    }
}

#[test]
fn earlycon_and_console_name_ports_as_linux_documents() {
    let odd = Line { parity: Parity::Odd, data_bits: WordLength::SevenBits, ..baud(9600).unwrap() };
    let clocked = Line { clock: NonZeroU32::new(48_000_000).unwrap(), ..baud(115_200).unwrap() };
    for (value, expected) in [
        ("uart8250,io,0x3f8", Config::COM1),
        ("uart8250,io,0x3f8,9600o7", Config::COM1.with_line(Some(odd))),
        ("uart8250,io,1016,115200n8r", Config::COM1.with_line(baud(115_200))),
        ("uart8250,io,01770,115200", Config::COM1.with_line(baud(115_200))),
        ("uart8250,mmio,0xfe034000,115200n8", port(MMIO).with_line(baud(115_200))),
        ("uart,mmio,0xfe034000", port(MMIO)),
        ("uart8250,0xfe034000", port(MMIO)),
        ("uart8250,mmio8x4,0xfe034000", port(MMIO_BY_4)),
        ("uart8250,mmio32,0xfe034000", port(MMIO32)),
        ("uart8250,mmio32,0xfe034000,115200n8,48000000", port(MMIO32).with_line(Some(clocked))),
    ] {
        assert_eq!(earlycon(value), Ok(expected), "{value}");
        assert_eq!(console(value), Ok(expected), "{value}");
    }
    assert_eq!(console("ttyS0,115200n8"), Ok(Config::COM1.with_line(baud(115_200))));
    assert_eq!(console("ttyS1"), Ok(Config::COM2.with_line(baud(9600))));
    assert_eq!(console("ttyS0,9600o7"), Ok(Config::COM1.with_line(Some(odd))));
}

#[test]
fn what_names_no_port_is_an_error_that_carries_it() {
    use ParseError as E;
    for (value, error) in [
        ("vga", E::NotSerial("vga")),
        ("", E::NotSerial("")),
        ("pciserial,00:18.1,115200", E::PciFunction("pciserial,00:18.1,115200")),
        ("ttyS4", E::StandardPort("ttyS4")),
        ("serial,", E::StandardPort("")),
        ("serial,0x", E::Address("0x")),
        ("serial,0x10000", E::Address("0x10000")),
        ("serial,0xfff9", E::Invalid(InvalidAccess::Port(0xfff9))),
        ("serial,ttyS0,fast", E::Options("fast")),
        ("serial,ttyS0,0", E::Options("0")),
        ("serial,ttyS0,+9600", E::Options("+9600")),
        ("serial,ttyS0,9600,8", E::Surplus("8")),
        ("mmio32", E::Address("")),
        ("mmio32,fe034000", E::Address("fe034000")),
        ("mmio32,0xfe034002", E::Invalid(InvalidAccess::Unaligned(0xfe03_4002))),
    ] {
        assert_eq!(earlyprintk(value), Err(error), "{value}");
    }
    for (value, error) in [
        ("efifb", E::NotSerial("efifb")),
        ("uart8250", E::Access("")),
        ("uart8250,mmio32be,0xfe034000", E::Access("mmio32be")),
        ("uart8250,io", E::Address("")),
        ("uart8250,io,0x+3f8", E::Address("0x+3f8")),
        ("uart8250,mmio,0x10000000000000000", E::Address("0x10000000000000000")),
        ("uart8250,mmio,0xffffffffffffffff", E::Invalid(InvalidAccess::Address(u64::MAX))),
        ("uart8250,io,0x3f8,115200x8", E::Options("115200x8")),
        ("uart8250,io,0x3f8,115200n9", E::Options("115200n9")),
        ("uart8250,io,0x3f8,115200n8rr", E::Options("115200n8rr")),
        ("uart8250,io,0x3f8,4294967296n8", E::Options("4294967296n8")),
        ("uart8250,io,0x3f8,115200n8,fast", E::Clock("fast")),
        ("uart8250,io,0x3f8,115200n8,1843200,", E::Surplus("")),
    ] {
        assert_eq!(earlycon(value), Err(error), "{value}");
    }
    assert_eq!(console("tty0"), Err(E::NotSerial("tty0")));
    assert_eq!(E::Options("115200x8").to_string(), "not line options: \"115200x8\"");
}

#[test]
fn a_command_line_is_searched_as_linux_reads_it() {
    let found = |line| ports(line).map(|port| port.map(|port| port.to_string())).collect::<Vec<_>>();
    assert_eq!(found(""), []);
    assert_eq!(
        found(
            "  earlycon=uart8250,mmio32,0xfe034000,115200n8 console=tty0\tconsole=\"ttyS1,115200n8\" earlycon quiet\n"
        ),
        [Ok("uart8250,mmio32,0xfe034000,115200n8".into()), Ok("uart8250,io,0x2f8,115200n8".into())]
    );
    assert_eq!(found("init=\"/bin/sh console=ttyS0\" earlyprintk=vga -- console=ttyS0"), []);
    assert_eq!(
        found("console=ttyS9 console=ttyS2,9600"),
        [Err(ParseError::StandardPort("ttyS9")), Ok("uart8250,io,0x3e8,9600n8".into())]
    );
    assert_eq!(found("dyndbg=\"console=ttyS0"), []);
}

fn any_config() -> impl Strategy<Value = Config> {
    let stride = prop_oneof![Just(Stride::One), Just(Stride::Four)];
    let access = prop_oneof![
        (0..=0xfff8_u16).prop_map(|port| Access::Pio { port }),
        (0..=u64::MAX - 32, stride).prop_map(|(base, stride)| Access::Mmio8 { base, stride }),
        (0..=u64::MAX - 32).prop_map(|base| Access::Mmio32 { base: base & !3 }),
    ];
    let parity = proptest::sample::select(vec![
        Parity::Disabled,
        Parity::Odd,
        Parity::Even,
        Parity::Forced1,
        Parity::Forced0,
    ]);
    let bits = (5..=8_u8).prop_map(WordLength::from_integer);
    let number = || (1..=u32::MAX).prop_map(|number| NonZeroU32::new(number).unwrap());
    let clock = prop_oneof![Just(Line::PC_CLOCK), number()];
    let line = (number(), parity, bits, clock);
    let line = line.prop_map(|(baud, parity, data_bits, clock)| Line { baud, parity, data_bits, clock });
    (access, proptest::option::of(line)).prop_map(|(access, line)| port(access).with_line(line))
}

/// Text that gets past the first few decisions of a parser more often than noise does.
fn almost_an_argument() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(vec![
        "earlyprintk=",
        "earlycon=",
        "console=",
        "serial",
        "ttyS",
        "uart8250",
        "uart",
        "io",
        "mmio",
        "mmio32",
        "mmio8x4",
        "pciserial",
        "nocfg",
        "keep",
        ",",
        ",",
        ",",
        " ",
        "\"",
        "=",
        "--",
        "0x",
        "0",
        "3f8",
        "115200",
        "n8",
        "r",
        "\u{e9}",
        "\0",
        "18446744073709551615",
        "99999999999999999999",
    ]);
    proptest::collection::vec(word, 0..12).prop_map(|words| words.concat())
}

fn parse_all(text: &str) {
    // Every result is an error or a port that can be printed and read again.
    for port in [earlyprintk(text), earlycon(text), console(text)].into_iter().chain(ports(text)) {
        match port {
            Ok(port) => assert_eq!(earlycon(&port.to_string()), Ok(port)),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    assert!(ports(text).count() <= text.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn every_port_is_read_back_from_its_printed_form(config in any_config()) {
        let printed = config.to_string();
        prop_assert_eq!(earlycon(&printed), Ok(config));
        prop_assert_eq!(console(&printed), Ok(config));
        let line = format!("quiet earlycon={printed} ro");
        prop_assert_eq!(ports(&line).collect::<Vec<_>>(), vec![Ok(config)]);
    }

    #[test]
    fn no_text_makes_a_parser_panic_or_loop(noise in ".{0,80}", words in almost_an_argument()) {
        parse_all(&noise);
        parse_all(&words);
    }

    #[test]
    fn no_bytes_make_a_parser_panic_or_loop(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        parse_all(&String::from_utf8_lossy(&bytes));
    }
}
