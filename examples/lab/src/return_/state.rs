//! The processor's state, before and after.

use core::arch::asm;

use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment as _};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr3, Cr4, Efer};
use x86_64::registers::model_specific::Msr;
use x86_64::registers::rflags;

use super::wrong;
use crate::CONSOLE;

/// Segment bases (SDM Vol. 4, table 2-2).
const FS_BASE: u32 = 0xc000_0100;
const GS_BASE: u32 = 0xc000_0101;
const KERNEL_GS_BASE: u32 = 0xc000_0102;

const NAMES: [&str; 22] = [
    "cr0",
    "cr3",
    "cr4",
    "efer",
    "rflags",
    "cs",
    "ss",
    "ds",
    "es",
    "fs",
    "gs",
    "fs.base",
    "gs.base",
    "kernel-gs.base",
    "gdt.base",
    "gdt.limit",
    "idt.base",
    "idt.limit",
    "tr",
    "ldtr",
    "dr7",
    "cr8",
];

/// What a call restores, in the order of [`NAMES`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct State([u64; 22]);

impl State {
    pub fn read() -> Self {
        let (root, low) = Cr3::read_raw();
        let (gdt, idt) = (sgdt(), sidt());
        let (tr, ldtr, dr7, cr8): (u16, u16, u64, u64);
        // SAFETY: CPL 0; all only read.
        unsafe {
            asm!(
                "str {0:x}", "sldt {1:x}", "mov {2}, dr7", "mov {3}, cr8",
                out(reg) tr, out(reg) ldtr, out(reg) dr7, out(reg) cr8,
                options(nomem, nostack, preserves_flags)
            )
        };
        // SAFETY: CPL 0; they exist in long mode.
        let msr = |index| unsafe { Msr::new(index).read() };
        /// CF, PF, AF, ZF, SF, OF: no call preserves them.
        const STATUS: u64 = 0x8d5;
        Self([
            Cr0::read_raw(),
            root.start_address().as_u64() | u64::from(low),
            Cr4::read_raw(),
            Efer::read_raw(),
            rflags::read_raw() & !STATUS,
            CS::get_reg().0.into(),
            SS::get_reg().0.into(),
            DS::get_reg().0.into(),
            ES::get_reg().0.into(),
            FS::get_reg().0.into(),
            GS::get_reg().0.into(),
            msr(FS_BASE),
            msr(GS_BASE),
            msr(KERNEL_GS_BASE),
            gdt.base.as_u64(),
            gdt.limit.into(),
            idt.base.as_u64(),
            idt.limit.into(),
            tr.into(),
            ldtr.into(),
            dr7,
            cr8,
        ])
    }

    /// Gives the segments and their bases values that are nobody's by chance.
    pub fn distinguish() {
        // SAFETY: CPL 0; flat data segments of the GDT in force, and bases that this kernel does not use.
        unsafe {
            FS::set_reg(x86_64::structures::gdt::SegmentSelector(0x1b));
            GS::set_reg(x86_64::structures::gdt::SegmentSelector(0x10));
            Msr::new(FS_BASE).write(0x1111_2222_3333);
            Msr::new(GS_BASE).write(0xffff_9111_2222_4444);
            Msr::new(KERNEL_GS_BASE).write(0xffff_9222_3333_5555);
        }
    }

    /// Says what differs from `before`.
    pub fn compare(&self, before: &Self, what: &str) {
        for ((name, now), was) in NAMES.iter().zip(self.0).zip(before.0) {
            if now != was {
                wrong!("{what}: {name} is {now:#x}, and was {was:#x}");
            }
        }
    }

    /// Control registers, for a line.
    pub fn print(&self) {
        let [cr0, cr3, cr4, efer, ..] = self.0;
        writeln!(CONSOLE, "  cr0 {cr0:#x} cr3 {cr3:#x} cr4 {cr4:#x} efer {efer:#x}");
    }
}
