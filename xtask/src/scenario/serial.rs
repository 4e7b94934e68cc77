//! Serial ports: found, and heard, in a kernel and in a transition that goes wrong; over port I/O, on PCI, and in memory.

use anyhow::{Result, ensure};
use kexec_decode::Dump;

use super::{Ends, Heard, Scenario};
use crate::bundle::{Bundle, Content};
use crate::card::Width;
use crate::qemu::{Machine, Port};

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        finders(),
        debug_console("serial/com1", Port::Com1, "earlyprintk=serial,ttyS0,115200", "io,0x3f8,115200n8"),
        debug_console("serial/com2", Port::Com2, "earlyprintk=serial,0x2f8,115200", "io,0x2f8,115200n8"),
        debug_console("serial/pci", Port::Pci, "pci", "io,0x[0-9a-f]{4}"),
        mmio(Width::Word),
        mmio(Width::Byte),
        absent(),
    ]
}

/// `serial8250` alone, in a kernel without kexec: COM1, COM2, a function on PCI, and two ports that are not there.
fn finders() -> Scenario {
    Scenario::boot("serial/finds-its-ports", "serial", Bundle::default())
        .on(Machine::default().with(["-serial", "null", "-device", "pci-serial"]))
        .expect("^serial: heard before any set-up$")
        .expect("^serial: 115200n8, 16 bytes a wait$")
        .expect("^serial: uart8250,io,0x2f8: heard, 16 bytes a wait$")
        .expect("^serial: uart8250,io,0x3e8: no serial port there")
        .expect("^serial: uart8250,io,0x2e8: no serial port there")
        .expect("^serial: uart8250,io,0x[0-9a-f]{4}: heard, 16 bytes a wait$")
        .expect("^serial: done$")
        .ends(Ends::Exit(0x10))
}

/// The serial port of the card, whose registers answer to accesses of one width.
pub(crate) fn mmio(width: Width) -> Scenario {
    let (command_line, port) = match width {
        Width::Word => ("pci", "mmio32,0x[0-9a-f]+"),
        Width::Byte => ("pci=bytes", "mmio8x4,0x[0-9a-f]+"),
    };
    debug_console(&format!("serial/mmio{}", width.bits()), Port::Card(width), command_line, port)
}

/// A kernel told of one port: its own lines, a dump under its own map, and one of the move, all on that port.
fn debug_console(name: &str, port: Port, command_line: &str, found: &str) -> Scenario {
    console(name, command_line)
        .on(Machine::default().console(port))
        .expect(&format!("^console: this is uart8250,{found}$"))
        .expect("^console: image base ")
        .expect("^console: plan: end$")
        .expect("^kexec-dump begin version=1$")
        .expect("^kexec-dump end crc32=[0-9a-f]{8}$")
        .expect("^kexec-dump begin version=1$")
        .expect("^kexec-dump end crc32=[0-9a-f]{8}$")
        .inspect(two_dumps)
}

/// The same where no port is: silence, and the transition goes its way.
fn absent() -> Scenario {
    console("serial/absent", "earlyprintk=serial,0x2f8,115200")
        .expect("^console: uart8250,io,0x2f8,115200n8: no serial port there")
        .forbid("^console: this is|^kexec-dump")
}

fn console(name: &str, command_line: &str) -> Scenario {
    let bundle = Bundle::default().with("append", Content::Bytes(command_line.into()));
    Scenario::boot(name, "console", bundle).forbid("not replaced").ends(Ends::Halted)
}

fn two_dumps(heard: &Heard) -> Result<String> {
    let log = heard.lines.iter().flat_map(|line| [line, "\r\n"]).collect::<String>();
    let found = Dump::find_all(log.as_bytes());
    ensure!(
        found.iter().all(|found| found.state == kexec_decode::dump::State::Complete),
        "a dump is damaged"
    );
    let numbers = |dump: &Dump| ["vector", "phase", "cr2"].map(|name| dump.number(name));
    let [stop, fault] = &found.iter().map(|found| numbers(&found.dump)).collect::<Vec<_>>()[..] else {
        anyhow::bail!("{} dumps", found.len());
    };
    // #BP in `enter`, where the running kernel's map is in force; #PF in `move`.
    ensure!(stop[..2] == [Some(3), Some(1)], "the first dump has vector and phase {:?}", &stop[..2]);
    ensure!(*fault == [Some(14), Some(3), Some(1 << 39)], "the second has vector, phase, CR2 {fault:x?}");
    ensure!(heard.dumps[1].to_string().contains("SOURCE: "), "the entry at hand is not told");
    Ok(String::new())
}
