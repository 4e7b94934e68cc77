//! What a dump should read, worked out from the machine apart from the code under test.

use std::arch::asm;
use std::fmt::Write;

use crate::machine::{Control, Event, Machine, PHYS, PHYS_SIZE, Registers};

const GENERAL: [&str; 15] =
    ["rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15"];

/// The machine when the event was taken.
pub(crate) struct Expected {
    pub(crate) event: Event,
    pub(crate) registers: Registers,
    pub(crate) control: Control,
    /// #DB, NMI, #BP.
    pub(crate) counters: [u64; 3],
    pub(crate) progress: [u64; 4],
    pub(crate) bytes: String,
    pub(crate) stack: Vec<Option<u64>>,
    pub(crate) walk: Vec<(&'static str, Option<u64>)>,
}

fn selectors() -> [u16; 6] {
    let mut selectors = [0_u16; 6];
    // SAFETY: reads registers.
    unsafe {
        asm!("mov {0:x}, cs", "mov {1:x}, ss", "mov {2:x}, ds", "mov {3:x}, es", "mov {4:x}, fs", "mov {5:x}, gs",
            out(reg) selectors[0], out(reg) selectors[1], out(reg) selectors[2],
            out(reg) selectors[3], out(reg) selectors[4], out(reg) selectors[5]);
    }
    selectors
}

impl Expected {
    pub(crate) fn text(&self) -> String {
        let [cs, ss, ds, es, fs, gs] = selectors();
        let mut lines: Vec<(&str, u64)> = Vec::new();
        lines.extend(self.event.error.map(|error| ("error", error.into())));
        lines.extend([
            ("vector", self.event.vector.into()),
            ("rip", self.registers.rip),
            ("cs", cs.into()),
            ("rflags", self.registers.rflags),
            ("rsp", self.registers.rsp),
            ("ss", ss.into()),
        ]);
        let control = self.control;
        lines.extend([
            ("cr0", control.cr0),
            ("cr2", control.cr2),
            ("cr3", control.cr3),
            ("cr4", control.cr4),
        ]);
        lines.extend([("cr8", control.cr8), ("efer", control.efer)]);
        lines.extend([("ds", ds.into()), ("es", es.into()), ("fs", fs.into()), ("gs", gs.into())]);
        lines.extend(GENERAL.into_iter().zip(self.registers.general));
        lines.extend(["debug", "nmi", "breakpoint"].into_iter().zip(self.counters));
        lines.extend(["phase", "entry", "entry_address", "code_frame"].into_iter().zip(self.progress));
        let mut body = String::new();
        for (name, value) in lines {
            write!(body, "{name}={value:016x}\r\n").unwrap();
        }
        write!(body, "bytes={}\r\n", self.bytes).unwrap();
        let words = self.stack.iter().enumerate().map(|(n, word)| (format!("stack{n}"), *word));
        for (name, word) in words.chain(self.walk.iter().map(|(name, word)| (name.to_string(), *word))) {
            match word {
                Some(word) => write!(body, "{name}={word:016x}\r\n").unwrap(),
                None => write!(body, "{name}=unreadable\r\n").unwrap(),
            }
        }
        let crc = crc32fast::hash(body.as_bytes());
        format!("\r\nkexec-dump begin version=1\r\n{body}kexec-dump end crc32={crc:08x}\r\n")
    }
}

/// The walk of CR2, as SDM Vol. 3A, 5.5 has it, over the region that stands for physical memory.
pub(crate) fn walk(machine: &Machine, control: Control) -> Vec<(&'static str, Option<u64>)> {
    let la57 = control.cr4 & 1 << 12 != 0;
    let levels = [("pml5e", 48), ("pml4e", 39), ("pdpte", 30), ("pde", 21), ("pte", 12)];
    let mut table = control.cr3 % (1 << 52) / 4096 * 4096;
    let mut walk = Vec::new();
    for (name, bit) in levels.into_iter().skip(usize::from(!la57)) {
        let address = table + (control.cr2 >> bit) % 512 * 8;
        let entry = (address < PHYS_SIZE as u64).then(|| machine.word(PHYS + address as usize));
        walk.push((name, entry));
        match entry {
            Some(entry) if entry & 0x81 == 1 => table = entry % (1 << 52) / 4096 * 4096,
            _ => break,
        }
    }
    walk
}
