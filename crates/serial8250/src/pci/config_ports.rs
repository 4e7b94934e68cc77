//! PCI Local Bus Specification 3.0, 3.2.2.3.2: configuration mechanism #1.

use core::cell::Cell;
use core::marker::PhantomData;

use pci_types::{ConfigRegionAccess, PciAddress};
use x86_64::instructions::port::Port;

/// Configuration space through the ports 0xCF8 and 0xCFC: segment 0, the first 256 bytes of each function. Beyond, reads
/// give all ones and writes do nothing.
#[derive(Debug)]
pub struct ConfigPorts {
    /// An access is two port instructions, so two threads must not share the value.
    _not_sync: PhantomData<Cell<()>>,
}

impl ConfigPorts {
    /// The two ports.
    ///
    /// # Safety
    ///
    /// - The machine is a PC.
    /// - Nothing else uses the two ports as long as the value lives.
    #[must_use]
    pub const unsafe fn new() -> Self {
        Self { _not_sync: PhantomData }
    }

    fn select(address: PciAddress, offset: u16) -> bool {
        if address.segment() != 0 || offset > 0xff {
            return false;
        }
        let select = 1 << 31
            | u32::from(address.bus()) << 16
            | u32::from(address.device()) << 11
            | u32::from(address.function()) << 8
            | u32::from(offset & 0xfc);
        // SAFETY: ours, by the contract of `new`.
        unsafe { Port::new(0xcf8).write(select) };
        true
    }
}

impl ConfigRegionAccess for ConfigPorts {
    unsafe fn read(&self, address: PciAddress, offset: u16) -> u32 {
        if !Self::select(address, offset) {
            return u32::MAX;
        }
        // SAFETY: ours, by the contract of `new`.
        unsafe { Port::new(0xcfc).read() }
    }

    unsafe fn write(&self, address: PciAddress, offset: u16, value: u32) {
        if Self::select(address, offset) {
            // SAFETY: ours, by the contract of `new`; what the write does is the caller's word.
            unsafe { Port::new(0xcfc).write(value) }
        }
    }
}
