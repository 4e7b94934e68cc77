//! The interrupt descriptor table.

use core::ops::{Index, IndexMut};

use static_assertions::const_assert_eq;
#[cfg(target_arch = "x86_64")]
use x86_64::{VirtAddr, instructions::tables, structures::DescriptorTablePointer};

#[cfg(target_arch = "x86_64")]
use crate::entry::{self, Handler};
use crate::vector::Vector;

/// An interrupt gate: Intel SDM volume 3, 7.14.1. Interrupts are off when its handler starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(16))]
pub struct Gate {
    offset_low: u16,
    selector: u16,
    ist: u8,
    attributes: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

const_assert_eq!(size_of::<Gate>(), 16);

impl Gate {
    const PRESENT: u8 = 1 << 7;
    const DPL_SHIFT: u32 = 5;
    const INTERRUPT_GATE: u8 = 0xe;

    /// A gate that is not present.
    pub const MISSING: Self = Self {
        offset_low: 0,
        selector: 0,
        ist: 0,
        attributes: 0,
        offset_middle: 0,
        offset_high: 0,
        reserved: 0,
    };

    /// A gate for `int n` from CPL 0 and for the processor, to the address `offset` in the segment `selector`, on stack `ist`
    /// of the TSS (its low three bits count; 0: none).
    #[must_use]
    pub const fn new(offset: u64, selector: u16, ist: u8) -> Self {
        Self {
            offset_low: offset as u16,
            selector,
            ist: ist & 7,
            attributes: Self::PRESENT | Self::INTERRUPT_GATE,
            offset_middle: (offset >> 16) as u16,
            offset_high: (offset >> 32) as u32,
            reserved: 0,
        }
    }

    /// The address of the entry.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset_low as u64 | (self.offset_middle as u64) << 16 | (self.offset_high as u64) << 32
    }

    /// The selector of its code segment.
    #[must_use]
    pub const fn selector(&self) -> u16 {
        self.selector
    }

    /// The stack of the TSS that it switches to, from 1 to 7; 0: none.
    #[must_use]
    pub const fn ist(&self) -> u8 {
        self.ist
    }

    /// Whether an event finds it; if not, #NP is raised.
    #[must_use]
    pub const fn present(&self) -> bool {
        self.attributes & Self::PRESENT != 0
    }

    /// The highest CPL whose `int n` and `int3` may pass it.
    #[must_use]
    pub const fn dpl(&self) -> u8 {
        self.attributes >> Self::DPL_SHIFT & 3
    }

    /// Lets `int n` and `int3` of this CPL (its low two bits count) and those below pass. Never above 0 for a vector
    /// [with an error code](Vector::has_error_code), as `int n` pushes none: the frame would be shifted by a word.
    #[must_use]
    pub const fn with_dpl(mut self, cpl: u8) -> Self {
        self.attributes = self.attributes & !(3 << Self::DPL_SHIFT) | (cpl & 3) << Self::DPL_SHIFT;
        self
    }
}

/// A table of all 256 gates, indexed by [`Vector`].
#[derive(Clone, Debug)]
#[repr(C, align(16))]
pub struct Idt {
    gates: [Gate; 256],
}

const_assert_eq!(size_of::<Idt>(), 4096);

impl Idt {
    /// A table of gates that are not present.
    pub const EMPTY: Self = Self { gates: [Gate::MISSING; 256] };

    /// A table whose gates all lead to `H`, through the code segment `code_selector`, on the stacks that [`Handler::IST`] says.
    #[cfg(target_arch = "x86_64")]
    #[must_use]
    pub fn new<H: Handler>(code_selector: u16) -> Self {
        let mut idt = Self::EMPTY;
        idt.set_handler::<H>(code_selector);
        idt
    }

    /// As [`new`](Self::new), for a table that lies where it is to stay.
    #[cfg(target_arch = "x86_64")]
    pub fn set_handler<H: Handler>(&mut self, code_selector: u16) {
        for (number, gate) in (0..=u8::MAX).zip(&mut self.gates) {
            let vector = Vector(number);
            *gate =
                Gate::new(entry::stub::<H>(vector) as usize as u64, code_selector, entry::ist::<H>(vector));
        }
    }

    /// Loads the table.
    ///
    /// # Safety
    ///
    /// - This runs at CPL 0.
    /// - The code segment that the gates name is a 64-bit one of DPL 0 in the GDT in force, and stays.
    /// - The TSS in force has each stack that the gates name: of sufficient size for the handler, its vector registers included,
    ///   and used by nothing else.
    /// - The processor has the vector registers that the handler [saves](crate::entry::VectorRegisters), within the size given.
    /// - The table is not unmapped while it is in force.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn load(&'static self) {
        let pointer = DescriptorTablePointer {
            limit: size_of::<Self>() as u16 - 1,
            // SAFETY: the processor takes the address of something that exists, with as many bits as it has.
            base: unsafe { VirtAddr::new_unsafe(self.gates.as_ptr() as u64) },
        };
        // SAFETY: the caller's duties are LIDT's.
        unsafe { tables::lidt(&pointer) };
    }
}

impl Index<Vector> for Idt {
    type Output = Gate;

    fn index(&self, vector: Vector) -> &Gate {
        &self.gates[usize::from(vector.0)]
    }
}

impl IndexMut<Vector> for Idt {
    fn index_mut(&mut self, vector: Vector) -> &mut Gate {
        &mut self.gates[usize::from(vector.0)]
    }
}
