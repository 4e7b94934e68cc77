//! The rules of the control registers, EFER and MSRs: what the manual forbids, and what this project forbids itself.

use std::collections::BTreeMap;

/// CR0 (SDM Vol. 3A, 2.5).
pub(crate) mod cr0 {
    pub(crate) const PE: u64 = 1 << 0;
    pub(crate) const WP: u64 = 1 << 16;
    pub(crate) const NW: u64 = 1 << 29;
    pub(crate) const CD: u64 = 1 << 30;
    pub(crate) const PG: u64 = 1 << 31;
}

/// CR4 (SDM Vol. 3A, 2.5).
pub(crate) mod cr4 {
    pub(crate) const PAE: u64 = 1 << 5;
    pub(crate) const MCE: u64 = 1 << 6;
    pub(crate) const PGE: u64 = 1 << 7;
    pub(crate) const LA57: u64 = 1 << 12;
    pub(crate) const PCIDE: u64 = 1 << 17;
    pub(crate) const SMEP: u64 = 1 << 20;
    pub(crate) const SMAP: u64 = 1 << 21;
    pub(crate) const PKE: u64 = 1 << 22;
    pub(crate) const CET: u64 = 1 << 23;
    pub(crate) const PKS: u64 = 1 << 24;
    pub(crate) const LASS: u64 = 1 << 27;
    pub(crate) const FRED: u64 = 1 << 32;
    /// Bits 15, 29 to 31 and those above FRED's.
    pub(super) const RESERVED: u64 = 1 << 15 | 7 << 29 | !((1 << 33) - 1);
}

/// IA32_EFER (SDM Vol. 4, table 2-2).
pub(crate) mod efer {
    pub(crate) const SCE: u64 = 1 << 0;
    pub(crate) const LME: u64 = 1 << 8;
    pub(crate) const LMA: u64 = 1 << 10;
    pub(crate) const NXE: u64 = 1 << 11;
}

/// MSRs by their numbers (SDM Vol. 4, table 2-2).
pub(crate) mod msr {
    pub(crate) const IA32_S_CET: u32 = 0x6a2;
    pub(crate) const IA32_PL0_SSP: u32 = 0x6a4;
    pub(crate) const IA32_INTERRUPT_SSP_TABLE: u32 = 0x6a8;
    pub(crate) const IA32_FRED_CONFIG: u32 = 0x1d4;
    pub(crate) const IA32_EFER: u32 = 0xc000_0080;
    pub(crate) const IA32_FS_BASE: u32 = 0xc000_0100;
    pub(crate) const IA32_GS_BASE: u32 = 0xc000_0101;
    pub(crate) const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;
}

/// Control registers, and what they depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) cr0: u64,
    pub(crate) cr3: u64,
    pub(crate) cr4: u64,
    pub(crate) efer: u64,
    pub(crate) pkru: u32,
    pub(crate) pkrs: u32,
    /// RFLAGS.AC, which opens SMAP.
    pub(crate) alignment_check: bool,
    pub(crate) msrs: BTreeMap<u32, u64>,
    /// The processor runs a TDX guest: CR4.MCE is fixed to 1.
    pub(crate) tdx: bool,
    pub(crate) phys_bits: u32,
}

/// A step that must not be made, and the rule.
pub(crate) type Forbidden = String;

fn forbid(condition: bool, rule: &str) -> Result<(), Forbidden> {
    if condition { Err(rule.into()) } else { Ok(()) }
}

impl Control {
    pub(crate) fn set_cr0(&mut self, new: u64) -> Result<(), Forbidden> {
        let has = |bit: u64| new & bit != 0;
        forbid(new >> 32 != 0, "#GP: reserved bits of CR0")?;
        forbid(has(cr0::PG) && !has(cr0::PE), "#GP: CR0.PG without PE")?;
        forbid(has(cr0::NW) && !has(cr0::CD), "#GP: CR0.NW without CD")?;
        forbid(!has(cr0::PG), "#GP: CR0.PG cleared in 64-bit mode")?;
        forbid(!has(cr0::WP) && self.cr4 & cr4::CET != 0, "#GP: CR0.WP cleared while CR4.CET is set")?;
        self.cr0 = new;
        Ok(())
    }

    /// `ours`: the engine does it, not a callee; then this project's own rules count too.
    pub(crate) fn set_cr4(&mut self, new: u64, ours: bool) -> Result<(), Forbidden> {
        let has = |bit: u64| new & bit != 0;
        let clears = |bit: u64| self.cr4 & !new & bit != 0;
        forbid(new & cr4::RESERVED != 0, "#GP: reserved bits of CR4")?;
        forbid(!has(cr4::PAE), "#GP: CR4.PAE cleared in long mode")?;
        forbid((self.cr4 ^ new) & cr4::LA57 != 0, "#GP: CR4.LA57 changed in long mode")?;
        forbid(
            new & !self.cr4 & cr4::PCIDE != 0 && self.cr3 & 0xfff != 0,
            "#GP: CR4.PCIDE set with CR3[11:0] not 0",
        )?;
        forbid(has(cr4::CET) && self.cr0 & cr0::WP == 0, "#GP: CR4.CET set while CR0.WP is clear")?;
        forbid(self.tdx && clears(cr4::MCE), "#VE: CR4.MCE cleared in a TDX guest")?;
        forbid(ours && clears(cr4::MCE), "CR4.MCE cleared: a machine check would be a shutdown")?;
        forbid(
            ours && clears(cr4::PCIDE) && self.cr3 & 0xfff != 0,
            "CR4.PCIDE cleared with another PCID than 0 in force: it would become PWT and PCD",
        )?;
        self.cr4 = new;
        Ok(())
    }

    pub(crate) fn set_cr3(&mut self, new: u64) -> Result<(), Forbidden> {
        // Bits 62:61 are LAM's; bit 63 says with PCIDE that nothing is to be dropped, and is not kept.
        let keep = if self.cr4 & cr4::PCIDE != 0 { 1 << 63 } else { 0 };
        let allowed = ((1 << self.phys_bits) - 1) | 3 << 61 | keep;
        forbid(new & !allowed != 0, "#GP: reserved bits of CR3")?;
        self.cr3 = new & !keep;
        Ok(())
    }

    pub(crate) fn read_msr(&self, index: u32) -> Result<u64, Forbidden> {
        match index {
            msr::IA32_EFER => Ok(self.efer),
            _ => self.msrs.get(&index).copied().ok_or(format!("#GP: there is no MSR {index:#x}")),
        }
    }

    pub(crate) fn write_msr(&mut self, index: u32, new: u64, ours: bool) -> Result<(), Forbidden> {
        let old = self.read_msr(index)?;
        forbid(ours && old == new, "an MSR is written that has that value: the write may be intercepted")?;
        match index {
            msr::IA32_EFER => {
                let allowed = efer::SCE | efer::LME | efer::LMA | efer::NXE;
                forbid(new & !allowed != 0, "#GP: reserved bits of EFER")?;
                forbid((old ^ new) & efer::LME != 0, "#GP: EFER.LME changed while CR0.PG is set")?;
                self.efer = new & !efer::LMA | old & efer::LMA;
            }
            msr::IA32_FS_BASE | msr::IA32_GS_BASE | msr::IA32_KERNEL_GS_BASE => {
                let shift = if self.cr4 & cr4::LA57 != 0 { 7 } else { 16 };
                let canonical = ((new << shift) as i64 >> shift) as u64;
                forbid(new != canonical, "#GP: a base that is not canonical")?;
                self.msrs.insert(index, new);
            }
            _ => {
                self.msrs.insert(index, new);
            }
        }
        Ok(())
    }
}

mod tests {
    use super::*;

    fn control() -> Control {
        Control {
            cr0: cr0::PE | cr0::PG | cr0::WP,
            cr3: 0x1000,
            cr4: cr4::PAE | cr4::MCE,
            efer: efer::LME | efer::LMA | efer::NXE,
            pkru: 0,
            pkrs: 0,
            alignment_check: false,
            msrs: BTreeMap::from([(msr::IA32_GS_BASE, 0)]),
            tdx: false,
            phys_bits: 52,
        }
    }

    /// The rule that forbids it.
    fn rule(result: Result<(), Forbidden>) -> String {
        result.expect_err("a forbidden step")
    }

    #[test]
    fn the_model_objects_to_cet_without_write_protection_on_both_sides() {
        let mut c = control();
        c.set_cr0(c.cr0 & !cr0::WP).unwrap();
        assert!(rule(c.set_cr4(c.cr4 | cr4::CET, true)).contains("CET set while CR0.WP"));
        let mut c = control();
        c.set_cr4(c.cr4 | cr4::CET, true).unwrap();
        assert!(rule(c.set_cr0(c.cr0 & !cr0::WP)).contains("WP cleared while CR4.CET"));
    }

    #[test]
    fn the_model_objects_to_a_pcid_while_pcide_changes() {
        let mut c = control();
        c.set_cr3(0x1005).unwrap();
        assert!(rule(c.set_cr4(c.cr4 | cr4::PCIDE, false)).contains("CR3[11:0]"));
        c.set_cr3(0x1000).unwrap();
        c.set_cr4(c.cr4 | cr4::PCIDE, true).unwrap();
        c.set_cr3(0x1005).unwrap();
        assert!(rule(c.set_cr4(c.cr4 & !cr4::PCIDE, true)).contains("PWT and PCD"));
        assert_eq!(c.set_cr4(c.cr4 & !cr4::PCIDE, false), Ok(()), "a callee may");
    }

    #[test]
    fn the_model_objects_to_reserved_bits_and_to_leaving_long_mode_by_halves() {
        let c = control();
        for bit in [15, 29, 33, 63] {
            assert!(rule(c.clone().set_cr4(c.cr4 | 1 << bit, false)).contains("reserved"));
        }
        assert!(rule(c.clone().set_cr4(c.cr4 | cr4::LA57, false)).contains("LA57"));
        assert!(rule(c.clone().set_cr4(c.cr4 & !cr4::PAE, false)).contains("PAE"));
        assert!(rule(c.clone().set_cr0(c.cr0 | 1 << 32)).contains("reserved"));
        assert!(rule(c.clone().set_cr0(c.cr0 & !cr0::PG)).contains("PG"));
        assert!(rule(c.clone().set_cr0(c.cr0 | cr0::NW)).contains("NW"));
        assert!(rule(c.clone().set_cr3(1 << 52)).contains("reserved"));
        assert!(rule(c.clone().set_cr3(1 << 63)).contains("reserved"));
        assert!(rule(c.clone().write_msr(msr::IA32_EFER, c.efer | 1 << 1, false)).contains("reserved"));
        assert!(rule(c.clone().write_msr(msr::IA32_EFER, c.efer & !efer::LME, false)).contains("LME"));
        assert!(rule(c.clone().write_msr(msr::IA32_GS_BASE, 1 << 47, false)).contains("canonical"));
        assert!(rule(c.clone().write_msr(msr::IA32_S_CET, 0, false)).contains("no MSR"));
        assert!(rule(c.clone().write_msr(msr::IA32_GS_BASE, 0, true)).contains("has that value"));
    }

    #[test]
    fn the_model_objects_to_clearing_mce() {
        let mut c = control();
        assert!(rule(c.clone().set_cr4(c.cr4 & !cr4::MCE, true)).contains("shutdown"));
        c.tdx = true;
        assert!(rule(c.set_cr4(c.cr4 & !cr4::MCE, false)).contains("#VE"));
    }
}
