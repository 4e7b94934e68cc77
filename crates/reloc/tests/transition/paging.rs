//! Translation of linear addresses, from the tables' raw words: SDM Vol. 3A, 5.5 and 5.6.

use crate::memory::Memory;
use crate::model::{Control, cr0, cr4, efer};

/// What is done at an address. All of it at CPL 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

/// What the tables say of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Translation {
    pub(crate) phys: u64,
    pub(crate) write: bool,
    pub(crate) execute: bool,
    pub(crate) user: bool,
    pub(crate) global: bool,
    pub(crate) key: u32,
}

const ADDRESS: u64 = (1 << 52) - (1 << 12);

/// Walks the tables from `root`, a value of CR3.
pub(crate) fn walk(
    memory: &Memory,
    root: u64,
    control: &Control,
    linear: u64,
) -> Result<Translation, String> {
    let levels = if control.cr4 & cr4::LA57 != 0 { 5 } else { 4 };
    let (mut write, mut execute, mut user) = (true, true, true);
    let mut table = root & ADDRESS;
    for level in (1..=levels).rev() {
        let shift = 12 + 9 * (level - 1);
        if !memory.is_low(table) {
            return Err(format!("#PF: {linear:#x}: the level {level} table {table:#x} is not in RAM"));
        }
        let entry = memory.read(table + (linear >> shift & 511) * 8);
        if entry & 1 == 0 {
            return Err(format!("#PF: {linear:#x} is not mapped"));
        }
        if entry >> 63 != 0 && control.efer & efer::NXE == 0 {
            return Err(format!("#PF: {linear:#x}: XD is reserved while EFER.NXE is clear"));
        }
        write &= entry & 2 != 0;
        user &= entry & 4 != 0;
        execute &= entry >> 63 == 0;
        let leaf = level == 1 || entry & 1 << 7 != 0;
        if leaf {
            let size = 1_u64 << shift;
            // Bit 12 of a large page is PAT.
            let frame = entry & ADDRESS & !(size - 1);
            let reserved = if level == 1 { 0 } else { entry & (size - 1) & !0x1fff };
            if level > 3 || reserved != 0 {
                return Err(format!("#PF: {linear:#x}: reserved bits in {entry:#x}"));
            }
            return Ok(Translation {
                phys: frame | linear & (size - 1),
                write,
                execute,
                user,
                global: entry & 1 << 8 != 0,
                key: (entry >> 59 & 15) as u32,
            });
        }
        table = entry & ADDRESS;
    }
    unreachable!("the last level is a leaf")
}

/// Whether the translation allows the access.
pub(crate) fn permits(control: &Control, found: &Translation, access: Access) -> Result<(), &'static str> {
    let on = |bit: u64| control.cr4 & bit != 0;
    match access {
        Access::Fetch if !found.execute => return Err("not executable"),
        Access::Fetch if found.user && on(cr4::SMEP) => return Err("a user page, with SMEP on"),
        Access::Fetch => return Ok(()),
        Access::Write if !found.write && control.cr0 & cr0::WP != 0 => return Err("read-only"),
        _ => {}
    }
    if found.user && on(cr4::SMAP) && !control.alignment_check {
        return Err("a user page, with SMAP on");
    }
    let rights = match (found.user, on(cr4::PKE), on(cr4::PKS)) {
        (true, true, _) => control.pkru,
        (false, _, true) => control.pkrs,
        _ => 0,
    } >> (2 * found.key);
    if rights & 1 != 0 || rights & 2 != 0 && access == Access::Write {
        return Err("its protection key forbids it");
    }
    Ok(())
}

/// Linear-address space separation, before any table is looked at: SDM Vol. 3A, 4.
pub(crate) fn separated(control: &Control, low: bool, access: Access) -> bool {
    let data = control.cr4 & cr4::SMAP != 0 && !control.alignment_check;
    low && control.cr4 & cr4::LASS != 0 && (access == Access::Fetch || data)
}
