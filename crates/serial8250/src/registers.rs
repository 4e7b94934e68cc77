//! How registers are reached: what `uart_16550` has, 32-bit accesses, and a choice made at run time.

use core::ptr::NonNull;

use uart_16550::Uart16550;
#[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
use uart_16550::backend::PioBackend;
use uart_16550::backend::{Backend, MmioBackend};

use crate::config::{Access, Config};

/// Registers of 32 bits in memory, 4 bytes apart, accessed 32 bits at a time; the low 8 count. Linux's `mmio32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmio32Backend {
    base: NonNull<u32>,
}

// SAFETY: a driver is `Send` where its registers may be reached from any processor, and a device's may.
unsafe impl Send for Mmio32Backend {}

impl Mmio32Backend {
    /// The registers from the address `base` on.
    ///
    /// # Safety
    ///
    /// - `base` is a multiple of 4, and the 32 bytes from it on are a device's registers, mapped uncached, as long as the
    ///   value lives.
    /// - Nothing else drives the device meanwhile.
    #[must_use]
    pub const unsafe fn new(base: NonNull<u32>) -> Self {
        Self { base }
    }
}

impl Backend for Mmio32Backend {
    #[inline]
    unsafe fn read(&mut self, register_offset: u8) -> u8 {
        // SAFETY: one of the eight registers, by the contract of `new` and of the trait.
        let word = unsafe { self.base.add(usize::from(register_offset)).read_volatile() };
        word.to_le_bytes()[0]
    }

    #[inline]
    unsafe fn write(&mut self, register_offset: u8, value: u8) {
        // SAFETY: one of the eight registers, by the contract of `new` and of the trait.
        unsafe { self.base.add(usize::from(register_offset)).write_volatile(u32::from(value)) }
    }
}

/// Registers reached as a [`Config`] says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registers {
    /// Port I/O.
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    Pio(PioBackend),
    /// Memory, a byte at a time.
    Mmio8(MmioBackend),
    /// Memory, 32 bits at a time.
    Mmio32(Mmio32Backend),
}

impl Registers {
    /// The registers that `config` names. `map` is called for a port in memory, with the physical address and the length of
    /// its registers in bytes, and gives where they are mapped.
    ///
    /// `None`, if `map` gives that, or an address at which the registers cannot be, or for ports on a processor without.
    ///
    /// # Safety
    ///
    /// - There is a device at `config`, or nothing that its accesses disturb.
    /// - What `map` gives stays mapped, uncached, as long as the value lives.
    /// - Nothing else drives the device meanwhile.
    pub unsafe fn new(config: &Config, map: impl FnOnce(u64, u64) -> Option<NonNull<u8>>) -> Option<Self> {
        match (config.access(), config.mmio()) {
            (Access::Mmio8 { stride, .. }, Some(range)) => {
                let base = map(range.start, range.end - range.start)?;
                // SAFETY: the caller's word.
                let uart = unsafe { Uart16550::new_mmio(base, stride.bytes()) };
                Some(Self::Mmio8(*uart.ok()?.backend()))
            }
            (Access::Mmio32 { .. }, Some(range)) => {
                let base = map(range.start, range.end - range.start)?.cast::<u32>();
                // SAFETY: aligned, as asked here; the rest is the caller's word.
                base.is_aligned().then(|| Self::Mmio32(unsafe { Mmio32Backend::new(base) }))
            }
            #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
            (Access::Pio { port }, _) => {
                // SAFETY: the caller's word.
                let uart = unsafe { Uart16550::new_port(port) };
                Some(Self::Pio(*uart.ok()?.backend()))
            }
            _ => None,
        }
    }
}

impl Backend for Registers {
    unsafe fn read(&mut self, register_offset: u8) -> u8 {
        // SAFETY: the trait's contract is handed on.
        unsafe {
            match self {
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Self::Pio(backend) => backend.read(register_offset),
                Self::Mmio8(backend) => backend.read(register_offset),
                Self::Mmio32(backend) => backend.read(register_offset),
            }
        }
    }

    unsafe fn write(&mut self, register_offset: u8, value: u8) {
        // SAFETY: the trait's contract is handed on.
        unsafe {
            match self {
                #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
                Self::Pio(backend) => backend.write(register_offset, value),
                Self::Mmio8(backend) => backend.write(register_offset, value),
                Self::Mmio32(backend) => backend.write(register_offset, value),
            }
        }
    }
}
