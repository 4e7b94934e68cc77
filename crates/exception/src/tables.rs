//! All that one processor needs for its exceptions, in one place.

use crate::gdt::Gdt;
use crate::idt::Idt;
use crate::tss::{Stack, Tss};

/// GDT, TSS, IDT and the stacks of the TSS for one processor; a static of the caller's, or memory that stays.
///
/// A kernel with tables of its own takes the parts instead, or no more than [`stub`](crate::entry::stub).
#[derive(Debug)]
#[repr(C)]
pub struct Tables<const STACKS: usize = 3, const STACK_SIZE: usize = 16384> {
    idt: Idt,
    gdt: Gdt,
    tss: Tss,
    stacks: [Stack<STACK_SIZE>; STACKS],
}

impl<const STACKS: usize, const STACK_SIZE: usize> Tables<STACKS, STACK_SIZE> {
    /// Empty tables.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(STACKS <= 7, "a TSS has 7 stacks") };
        Self { idt: Idt::EMPTY, gdt: Gdt::new(), tss: Tss::new(), stacks: [const { Stack::new() }; STACKS] }
    }

    /// Fills the tables for `H`: gates to it, the stacks in the TSS, the TSS in the GDT. A handler that names more stacks than
    /// there are does not compile:
    ///
    /// ```compile_fail,E0080
    /// use kexec_exception::{Handler, Tables, TrapFrame};
    ///
    /// struct Kernel; // with the default of Handler::IST: three stacks
    ///
    /// impl Handler for Kernel {
    ///     fn handle(_frame: &mut TrapFrame) {}
    /// }
    ///
    /// let tables = Box::leak(Box::new(Tables::<2>::new()));
    /// tables.set_handler::<Kernel>();
    /// ```
    #[cfg(target_arch = "x86_64")]
    pub fn set_handler<H: crate::entry::Handler>(&'static mut self) -> &'static mut Self {
        const {
            assert!(
                crate::entry::highest_ist::<H>() as usize <= STACKS,
                "Handler::IST names a stack that these tables do not have"
            );
        }
        self.idt.set_handler::<H>(Gdt::KERNEL_CODE);
        for (index, stack) in (1..).zip(&self.stacks) {
            self.tss.set_ist_top(index, stack.top());
        }
        self.gdt.set_tss_at(&raw const self.tss);
        self
    }

    /// The GDT.
    #[must_use]
    pub const fn gdt(&self) -> &Gdt {
        &self.gdt
    }

    /// The TSS.
    #[must_use]
    pub const fn tss(&self) -> &Tss {
        &self.tss
    }

    /// The IDT.
    #[must_use]
    pub const fn idt(&self) -> &Idt {
        &self.idt
    }

    /// Fills the tables for `H` and loads them: from here on, every exception of this processor ends in `H`.
    ///
    /// Returns the TSS, whose [privilege stack](Tss::set_privilege_stack) a kernel with user space sets, and the IDT, whose
    /// gates it opens to the user with [`with_dpl`](crate::idt::Gate::with_dpl).
    ///
    /// # Safety
    ///
    /// - This runs at CPL 0, with interrupts off.
    /// - The tables are writable in the address space, and not unmapped while they are in force.
    /// - `STACK_SIZE` suffices for the handler, its vector registers included.
    /// - The processor has the vector registers that `H` [saves](crate::entry::VectorRegisters), within the size given.
    /// - No exception and no NMI comes while the tables are being loaded: the gates of the IDT before need not suit this GDT.
    #[cfg(target_arch = "x86_64")]
    pub unsafe fn install<H: crate::entry::Handler>(
        &'static mut self,
    ) -> (&'static mut Tss, &'static mut Idt) {
        let Self { idt, gdt, tss, .. } = self.set_handler::<H>();
        // SAFETY: the TSS is set; the rest is the caller's.
        unsafe { gdt.load() };
        let table = &raw const *idt;
        // SAFETY: the gates name the code segment of the GDT that is loaded now, and stacks that its TSS has. What is read
        // through `table` is done with when this returns; the processor's own reading is no business of the compiler's.
        unsafe { (*table).load() };
        (tss, idt)
    }
}

impl<const STACKS: usize, const STACK_SIZE: usize> Default for Tables<STACKS, STACK_SIZE> {
    fn default() -> Self {
        Self::new()
    }
}
