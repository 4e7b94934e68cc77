//! Serial ports among PCI functions: a model of configuration space behind the ports 0xCF8 and 0xCFC, by real port
//! instructions.
#![cfg(all(feature = "pci", target_arch = "x86_64", target_os = "linux"))]

mod board;

use std::collections::BTreeMap;

use board::Bus;
use pci_types::{ConfigRegionAccess, PciAddress};
use proptest::prelude::*;
use serial8250::pci::{Bar, BarError, ConfigPorts, MemoryRegisters, SerialFunction, Space, serial_functions};
use serial8250::{Access, InvalidAccess, Stride};

/// Bus, device, function.
type Place = (u8, u8, u8);

/// Functions by their places, each with the first 64 bytes of its configuration space.
#[derive(Default)]
struct Machine {
    functions: BTreeMap<Place, [u32; 16]>,
    address: u32,
    writes: Vec<(u32, u32)>,
    strays: Vec<String>,
}

impl Machine {
    fn with(functions: &[(Place, [u32; 16])]) -> Self {
        Self { functions: functions.iter().copied().collect(), ..Self::default() }
    }

    /// Runs `f` with the configuration ports of this machine.
    fn run<R>(&mut self, f: impl FnOnce(&ConfigPorts) -> R) -> R {
        // SAFETY: the machine answers at the two ports, and nothing else uses them.
        let result = board::run(self, |_| f(&unsafe { ConfigPorts::new() }));
        assert_eq!(self.strays, [""; 0]);
        result
    }

    fn register(&mut self) -> Option<&mut u32> {
        if self.address >> 24 != 0x80 || self.address & 3 != 0 {
            self.strays.push(format!("address register {:#x}", self.address));
        }
        let [offset, device_function, bus, _] = self.address.to_le_bytes();
        let function = self.functions.get_mut(&(bus, device_function >> 3, device_function & 7))?;
        function.get_mut(usize::from(offset) / 4)
    }
}

impl Bus for Machine {
    fn port(&mut self, port: u16, width: usize, written: Option<u32>) -> u32 {
        match (port, width, written) {
            (0xcf8, 4, Some(address)) => self.address = address,
            (0xcfc, 4, None) => return self.register().map_or(u32::MAX, |register| *register),
            (0xcfc, 4, Some(value)) => {
                self.writes.push((self.address, value));
                let is_command = self.address & 0xfc == 4;
                if let Some(register) = self.register() {
                    // The status register's bits are cleared by writing 1.
                    let cleared = *register & !value & 0xffff_0000;
                    *register = if is_command { cleared | value & 0xffff } else { value };
                }
            }
            _ => self.strays.push(format!("port {port:#x}, {width} bytes")),
        }
        0
    }

    fn memory(&mut self, offset: usize, width: usize, _: Option<u32>) -> u32 {
        self.strays.push(format!("memory +{offset:#x}, {width} bytes"));
        u32::MAX
    }
}

const IO: u32 = 1;
const MEMORY: u32 = 2;
/// "Received master abort", a bit that stays until it is cleared.
const ABORTED: u32 = 1 << 29;

/// A function of this class, header type, command register and BARs.
fn function(class: u32, header: u32, command: u32, bars: &[u32]) -> [u32; 16] {
    let mut registers = [0; 16];
    registers[..4].copy_from_slice(&[0x0002_1b36, ABORTED | command, class << 8 | 1, header << 16]);
    registers[4..4 + bars.len()].copy_from_slice(bars);
    registers
}

const SERIAL: u32 = 0x07_00_02;

fn found(machine: &mut Machine) -> Vec<(SerialFunction, Vec<Bar>)> {
    machine.run(|ports| {
        serial_functions(ports, 0).map(|function| (function, function.bars(ports).collect())).collect()
    })
}

#[test]
fn serial_functions_are_found_on_every_bus_and_in_multifunction_devices() {
    let mut machine = Machine::with(&[
        ((0, 0, 0), function(0x06_00_00, 0, 0, &[])),
        ((0, 3, 0), function(SERIAL, 0, IO, &[0xc001])),
        // A device that says it has one function, and answers for more.
        ((0, 4, 0), function(0x06_01_00, 0, 0, &[])),
        ((0, 4, 1), function(SERIAL, 0, IO, &[0xdead_0001])),
        ((0, 5, 0), function(0x02_00_00, 0x80, 0, &[])),
        ((0, 5, 6), function(0x07_00_00, 0, 0, &[])),
        ((0, 6, 0), function(0x07_80_00, 0, IO, &[0xc101])), // another communication controller
        ((255, 31, 7), function(SERIAL, 0, IO, &[])),
        ((255, 31, 0), function(0x07_01_00, 0x80, 0, &[])), // a parallel port
    ]);
    let places: Vec<_> = found(&mut machine)
        .iter()
        .map(|(function, _)| (function.address.to_string(), function.interface))
        .collect();
    let expected = [("0000:00:03.0", 2), ("0000:00:05.6", 0), ("0000:ff:1f.7", 2)];
    assert_eq!(places, expected.map(|(place, interface)| (place.to_owned(), interface)));
    assert_eq!(machine.writes, []);
}

#[test]
fn each_kind_of_bar_is_told_with_whether_it_is_enabled() {
    let bars = |command, bars: &[u32]| {
        let mut machine = Machine::with(&[((0, 1, 0), function(SERIAL, 0, command, bars))]);
        let found = found(&mut machine).remove(0).1;
        assert_eq!(machine.writes, []);
        found
    };
    let bar = |index, space, enabled| Bar { index, space, enabled };
    assert_eq!(bars(IO, &[0xc009]), [bar(0, Space::Io(0xc008), true)]);
    assert_eq!(bars(MEMORY, &[0xc009]), [bar(0, Space::Io(0xc008), false)]);
    assert_eq!(bars(MEMORY, &[0xfe00_0000]), [bar(0, Space::Memory(0xfe00_0000), true)]);
    assert_eq!(bars(IO, &[0xfe00_0008]), [bar(0, Space::Memory(0xfe00_0000), false)]);
    // 64 bits, then an I/O BAR; 0 is no address.
    assert_eq!(
        bars(IO | MEMORY, &[0xf000_000c, 0x1f, 0, 0xc001]),
        [bar(0, Space::Memory(0x1f_f000_0000), true), bar(3, Space::Io(0xc000), true)]
    );
    // A 64-bit BAR below 4 GiB, and one whose upper half would be the seventh register.
    assert_eq!(
        bars(MEMORY, &[0, 0xf000_0004, 0, 0, 0, 0xf000_0004]),
        [bar(1, Space::Memory(0xf000_0000), true)]
    );
    // Reserved types.
    assert_eq!(bars(MEMORY, &[0x000a_0002, 0xf000_0006]), []);
    assert_eq!(bars(MEMORY, &[]), []);
}

#[test]
fn a_bar_becomes_a_port_that_prints_as_earlycon_takes_it() {
    let config = |space, registers| Bar { index: 0, space, enabled: true }.config(registers);
    let words = MemoryRegisters::Words;
    let earlycon = |space, registers| config(space, registers).unwrap().to_string();
    assert_eq!(earlycon(Space::Io(0xc008), words), "uart8250,io,0xc008");
    assert_eq!(earlycon(Space::Memory(0xfe00_0000), words), "uart8250,mmio32,0xfe000000");
    let bytes = MemoryRegisters::Bytes(Stride::Four);
    let expected = Access::Mmio8 { base: 0xfe00_0000, stride: Stride::Four };
    assert_eq!(config(Space::Memory(0xfe00_0000), bytes).unwrap().access(), expected);
    assert_eq!(config(Space::Io(0x1_0000), words), Err(BarError::Port(0x1_0000)));
    assert_eq!(config(Space::Io(0xfffc), words), Err(BarError::Invalid(InvalidAccess::Port(0xfffc))));
}

#[test]
fn enabling_writes_the_command_register_alone_and_clears_no_status_bit() {
    let bus_master = 4;
    for (bar, command, expected) in
        [(0xfe00_0000, IO | bus_master, IO | MEMORY | bus_master), (0xc001, bus_master, IO | bus_master)]
    {
        let mut machine = Machine::with(&[((0, 1, 0), function(SERIAL, 0, command, &[bar]))]);
        machine.run(|ports| {
            let function = serial_functions(ports, 0).next().unwrap();
            let bar = function.bars(ports).next().unwrap();
            assert!(!bar.enabled);
            // SAFETY: nobody else is on this machine.
            unsafe { function.enable(ports, &bar) };
            assert!(function.bars(ports).next().unwrap().enabled);
        });
        assert_eq!(machine.functions[&(0, 1, 0)][1], ABORTED | expected);
        assert_eq!(machine.writes.len(), 1);
    }
}

#[test]
fn what_the_two_ports_cannot_reach_reads_as_ones_and_is_not_accessed() {
    let mut machine = Machine::with(&[((0, 0, 0), function(SERIAL, 0, IO, &[]))]);
    machine.run(|ports| {
        for (segment, offset) in [(1, 0), (0, 0x100)] {
            let address = PciAddress::new(segment, 0, 0, 0);
            // SAFETY: accesses that do nothing are harmless.
            unsafe {
                assert_eq!(ports.read(address, offset), u32::MAX);
                ports.write(address, offset, 0);
            }
        }
        assert_eq!(serial_functions(ports, 1).count(), 0);
    });
    assert_eq!((machine.address, machine.writes.len()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_content_of_configuration_space_makes_it_panic_or_write(
        registers in proptest::array::uniform16(any::<u32>()),
        class in any::<bool>(),
    ) {
        /// One function at one place, behind the trait alone.
        struct One([u32; 16]);
        impl ConfigRegionAccess for One {
            unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
                match address.bus() {
                    0 => self.0[usize::from(offset) / 4],
                    _ => u32::MAX,
                }
            }
            unsafe fn write(&self, _: PciAddress, _: u16, _: u32) {
                panic!("nobody asked for a write");
            }
        }
        let mut registers = registers;
        if class {
            registers[2] = SERIAL << 8;
        }
        let one = One(registers);
        for function in serial_functions(&one, 0) {
            for bar in function.bars(&one) {
                prop_assert!(bar.index < 6);
                if let Ok(config) = bar.config(MemoryRegisters::Words) {
                    prop_assert!(!config.to_string().is_empty());
                }
            }
        }
    }
}
