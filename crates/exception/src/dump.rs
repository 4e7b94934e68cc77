//! A frame in print.

use core::fmt;

use crate::register::SystemRegisters;
use crate::trap_frame::TrapFrame;

/// A frame, with the registers that are read only to be printed. Its `Display` is the complete dump, a name before each value
/// and values below each other, lines ended by `\n`.
#[derive(Clone, Copy, Debug)]
pub struct Dump<'a> {
    /// The frame.
    pub frame: &'a TrapFrame,
    /// The registers that an exception does not save; `None`: not printed, except for the CR2 of a page fault.
    pub system: Option<SystemRegisters>,
}

/// As [`Dump`], with the system registers of this moment where they can be read, which is at CPL 0.
impl fmt::Display for TrapFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Dump { frame: self, system: SystemRegisters::read() }.fmt(f)
    }
}

impl fmt::Display for Dump<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { frame, system } = self;
        writeln!(f, "{} (vector {})", frame.vector, frame.vector.0)?;
        if let Some(error) = frame.error() {
            line(f, "error", frame.error_code, Some(&error))?;
        }
        line(f, "rip", frame.rip, None)?;
        line(f, "rflags", frame.rflags.bits(), Some(&frame.rflags))?;
        for (left, right) in [
            (("rax", frame.rax), ("r8", frame.r8)),
            (("rbx", frame.rbx), ("r9", frame.r9)),
            (("rcx", frame.rcx), ("r10", frame.r10)),
            (("rdx", frame.rdx), ("r11", frame.r11)),
            (("rsi", frame.rsi), ("r12", frame.r12)),
            (("rdi", frame.rdi), ("r13", frame.r13)),
            (("rbp", frame.rbp), ("r14", frame.r14)),
            (("rsp", frame.rsp), ("r15", frame.r15)),
        ] {
            value(f, left.0, left.1)?;
            f.write_str("  ")?;
            value(f, right.0, right.1)?;
            f.write_str("\n")?;
        }
        write!(f, "cs     {:#06x}  ss {:#06x}", frame.cs as u16, frame.ss as u16)?;
        if let Some(SystemRegisters { ds, es, fs, gs, .. }) = system {
            write!(f, "  ds {ds:#06x}  es {es:#06x}  fs {fs:#06x}  gs {gs:#06x}")?;
        }
        f.write_str("\n")?;
        if let Some(cr2) = frame.page_fault_address().or(system.map(|system| system.cr2)) {
            line(f, "cr2", cr2, None)?;
        }
        if let Some(SystemRegisters { cr0, cr3, cr4, efer, .. }) = system {
            line(f, "cr3", *cr3, None)?;
            line(f, "cr0", cr0.bits(), Some(cr0))?;
            line(f, "cr4", cr4.bits(), Some(cr4))?;
            line(f, "efer", efer.bits(), Some(efer))?;
        }
        Ok(())
    }
}

fn value(f: &mut fmt::Formatter<'_>, name: &str, value: u64) -> fmt::Result {
    write!(f, "{name:<6} {value:#018x}")
}

fn line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    number: u64,
    words: Option<&dyn fmt::Display>,
) -> fmt::Result {
    value(f, name, number)?;
    if let Some(words) = words {
        write!(f, "  {words}")?;
    }
    f.write_str("\n")
}
