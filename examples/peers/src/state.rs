//! The state at an entry point.

use core::arch::asm;

use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment as _};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Efer};
use x86_64::registers::model_specific::Msr;

use crate::CONSOLE;

/// The general registers at the first instruction.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Entered {
    rax: u64,
    rbx: u64,
    rcx: u64,
    rdx: u64,
    pub(crate) rsi: u64,
    rdi: u64,
    rbp: u64,
    rsp: u64,
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rflags: u64,
    rip: u64,
}

impl Entered {
    pub(crate) const NOTHING: Self = Self {
        rax: 0,
        rbx: 0,
        rcx: 0,
        rdx: 0,
        rsi: 0,
        rdi: 0,
        rbp: 0,
        rsp: 0,
        r8: 0,
        r9: 0,
        r10: 0,
        r11: 0,
        r12: 0,
        r13: 0,
        r14: 0,
        r15: 0,
        rflags: 0,
        rip: 0,
    };
}

/// Prints a line a register: those taken at the first instruction, and those that have not changed since.
pub(crate) fn print(entered: &Entered, stack: &[u64; 2], called: bool) {
    let Entered { rax, rbx, rcx, rdx, rsi, rdi, rbp, rsp, r8, r9, r10, r11, r12, r13, r14, r15, rflags, rip } =
        *entered;
    let print = |name: &str, value: u64| writeln!(CONSOLE, "{name}={value:#x}");
    for (name, value) in [
        ("rip", rip),
        ("rsp", rsp),
        ("rax", rax),
        ("rbx", rbx),
        ("rcx", rcx),
        ("rdx", rdx),
        ("rsi", rsi),
        ("rdi", rdi),
        ("rbp", rbp),
        ("r8", r8),
        ("r9", r9),
        ("r10", r10),
        ("r11", r11),
        ("r12", r12),
        ("r13", r13),
        ("r14", r14),
        ("r15", r15),
        ("rflags", rflags),
    ] {
        print(name, value);
    }
    print("[rsp]", stack[0]);
    if called {
        print("[rsp+8]", stack[1]);
    }
    let (root, low) = Cr3::read_raw();
    print("cr0", Cr0::read_raw());
    print("cr3", root.start_address().as_u64() | u64::from(low));
    print("cr4", Cr4::read_raw());
    print("efer", Efer::read_raw());
    for (name, selector) in [
        ("cs", CS::get_reg()),
        ("ss", SS::get_reg()),
        ("ds", DS::get_reg()),
        ("es", ES::get_reg()),
        ("fs", FS::get_reg()),
        ("gs", GS::get_reg()),
    ] {
        print(name, selector.0.into());
    }
    let (gdt, idt) = (sgdt(), sidt());
    print("gdt.base", gdt.base.as_u64());
    print("gdt.limit", gdt.limit.into());
    print("idt.base", idt.base.as_u64());
    print("idt.limit", idt.limit.into());
    let (tr, ldtr, dr7): (u16, u16, u64);
    // SAFETY: CPL 0; all only read.
    unsafe {
        asm!("str {0:x}", "sldt {1:x}", "mov {2}, dr7", out(reg) tr, out(reg) ldtr, out(reg) dr7, options(nomem, nostack, preserves_flags))
    };
    print("tr", tr.into());
    print("ldtr", ldtr.into());
    print("dr7", dr7);
    // SDM Vol. 4, table 2-2.
    for (name, msr) in [("fs.base", 0xc000_0100), ("gs.base", 0xc000_0101)] {
        // SAFETY: CPL 0; both exist in long mode.
        print(name, unsafe { Msr::new(msr).read() });
    }
}
