//! Whether an exception, an NMI or a machine check would find its handler at an instruction boundary, and return from it.

use crate::model::{Forbidden, cr4, msr};
use crate::paging::Access;
use crate::processor::{CS, INTERRUPT_FLAG, Machine, SS};

/// The state for which events were found to be handled, and the pages that say so.
pub(crate) struct Covered {
    state: [u64; 8],
    pages: Vec<u64>,
}

impl Machine {
    /// Whether an event at this boundary reaches a handler and can be returned from; else why not. Notes the pages that it read.
    fn events_are_handled(&self, rsp: u64, pages: &mut Vec<u64>) -> Result<(), Forbidden> {
        let p = &self.processor;
        let stack = |top: u64, bytes: u64| {
            self.translate(top - 8, Access::Write, true)?;
            self.translate(top - bytes, Access::Write, true)
        };
        if p.control.cr4 & cr4::FRED != 0 {
            // Entry for events at CPL 0: the configured page + 256. The frame has 64 bytes, below RSP aligned to 64.
            let handler = (p.control.read_msr(msr::IA32_FRED_CONFIG)? & !0xfff) + 256;
            self.translate(handler, Access::Fetch, true)
                .and_then(|_| stack(rsp & !63, 64))
                .map_err(|why| format!("FRED: {why}"))?;
            return Ok(());
        }
        pages.push(p.idtr.base & !0xfff);
        pages.push(p.gdtr.base & !0xfff);
        let code64 = |selector: u16| self.descriptor(selector).map(|(low, _)| Self::is_code64(low));
        for vector in 0..32_u16 {
            let gate = |why: String| format!("vector {vector}: {why}");
            if vector * 16 + 15 > p.idtr.limit {
                return Err(gate("beyond the IDT's limit".into()));
            }
            let bytes = self.read::<16>(p.idtr.base + u64::from(vector) * 16, true).map_err(gate)?;
            let field = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
            let high = u64::from(u32::from_le_bytes([bytes[8], bytes[9], bytes[10], bytes[11]]));
            let handler = u64::from(field(0)) | u64::from(field(6)) << 16 | high << 32;
            if bytes[5] & 0x9e != 0x8e || !code64(field(2)).map_err(gate)? {
                return Err(gate(format!("the gate {bytes:x?} leads nowhere")));
            }
            self.translate(handler, Access::Fetch, true).map_err(gate)?;
            match bytes[4] {
                0 => stack(rsp & !15, 256).map_err(gate)?,
                ist => {
                    let slot = p.tr.1 + 0x24 + 8 * u64::from(ist - 1);
                    pages.push(slot & !0xfff);
                    stack(self.word(slot, true).map_err(gate)?, 120).map_err(gate)?
                }
            };
        }
        // What IRETQ loads again.
        if !code64(p.selectors[CS])? {
            return Err(format!("CS {:#x} is no code segment of this GDT", p.selectors[CS]));
        }
        let ss = p.selectors[SS];
        if ss != 0 && !Self::is_stack(self.descriptor(ss)?.0) {
            return Err(format!("SS {ss:#x} is no stack segment of this GDT"));
        }
        Ok(())
    }

    /// Looks at a boundary of the engine.
    pub(crate) fn boundary(&mut self, label: &'static str, offset: u64, rsp: u64) -> Result<(), Forbidden> {
        self.boundaries += 1;
        // A callee may return with IF set: ENDBR64, POP, CLI.
        if self.processor.flags & INTERRUPT_FLAG != 0 && !(label == "reenter" && offset <= 6) {
            return Err("interrupts are on".into());
        }
        let p = &self.processor;
        let [cs, ss] = [CS, SS].map(|index| u64::from(p.selectors[index]));
        let limits = u64::from(p.gdtr.limit) << 32 | u64::from(p.idtr.limit) << 48 | cs << 16 | ss;
        let c = &p.control;
        let state = [c.cr0, c.cr3, c.cr4, p.gdtr.base, p.idtr.base, p.tr.1, limits, rsp & !63];
        if self.covered.as_ref().is_some_and(|covered| covered.state == state) {
            return Ok(());
        }
        self.covered = None;
        let mut pages = Vec::new();
        match self.events_are_handled(rsp, &mut pages) {
            Ok(()) => self.covered = Some(Covered { state, pages }),
            // The tables are still the callee's, or the selectors that were loaded from them.
            Err(why) if ["reenter", "take_debug", "load_tss"].contains(&label) => {
                self.uncovered.entry(label).or_default().push(format!("+{offset:#x}: {why}"));
            }
            Err(why) => return Err(format!("an event here is lost: {why}")),
        }
        Ok(())
    }

    /// What was found out from this page is to be found out again.
    pub(crate) fn written(&mut self, phys: u64) {
        let page = phys & !0xfff;
        let hit = |linear: &u64| self.memory.phys_of(*linear) == page;
        if self.covered.as_ref().is_some_and(|covered| covered.pages.iter().any(hit)) {
            self.covered = None;
        }
    }
}
