//! The walk of a faulting address through the tables, from the raw entries in a dump (SDM Vol. 3A, 5.5.4).

use core::fmt;

use kexec_exception::{Cr0, Cr4, Efer, PageFaultErrorCode};

use crate::dump::{Dump, Value};

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PRESENT: u64 = 1;
const WRITABLE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;

/// A walk as far as the dump has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Walk {
    /// The address that was looked up.
    pub(crate) address: u64,
    /// From the top level down.
    pub(crate) steps: Vec<Step>,
    /// How it ended.
    pub(crate) end: End,
}

/// One level of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// 5 or 4 for the top, 1 for the last.
    pub(crate) level: u32,
    /// The table's physical address.
    pub(crate) table: u64,
    /// The entry's index in it.
    pub(crate) index: u64,
    /// The entry; `None` where it could not be read.
    pub(crate) entry: Option<u64>,
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At an entry that is not present.
    NotPresent(Step),
    /// At an entry that could not be read.
    Unreadable(Step),
    /// At a leaf: the page's physical address and size in bytes.
    Leaf(Step, u64, u64),
    /// The dump lacks the next entry.
    Missing,
}

impl Step {
    /// The manual's name for the entry.
    pub(crate) const fn name(&self) -> &'static str {
        match self.level {
            5 => "PML5E",
            4 => "PML4E",
            3 => "PDPTE",
            2 => "PDE",
            _ => "PTE",
        }
    }

    /// Bytes that one entry of the level covers.
    pub(crate) const fn covers(&self) -> u64 {
        1 << (12 + 9 * (self.level - 1))
    }

    /// The first and one past the last address that the entry covers, upper half sign-extended as `address` is.
    pub(crate) fn span(&self, address: u64) -> (u64, u64) {
        let start = address & !(self.covers() - 1);
        (start, start.wrapping_add(self.covers()))
    }

    fn is_leaf(&self, entry: u64) -> bool {
        self.level == 1 || (entry & LARGE != 0 && matches!(self.level, 2 | 3))
    }
}

/// What all levels together permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    pub(crate) write: bool,
    pub(crate) user: bool,
    pub(crate) execute: bool,
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{}{}", if self.write { 'w' } else { '-' }, if self.execute { 'x' } else { '-' })?;
        f.write_str(if self.user { ", user" } else { ", supervisor" })
    }
}

impl Walk {
    /// The walk of CR2 in a page fault's dump; `None` where the dump has none.
    pub(crate) fn of(dump: &Dump) -> Option<Self> {
        let address = dump.number("cr2")?;
        let mut table = dump.number("cr3")? & ADDRESS;
        let names = [(5, "pml5e"), (4, "pml4e"), (3, "pdpte"), (2, "pde"), (1, "pte")];
        let five = dump
            .number("cr4")
            .map_or(dump.get("pml5e").is_some(), |cr4| Cr4::from_bits_retain(cr4).contains(Cr4::LA57));
        dump.get(if five { "pml5e" } else { "pml4e" })?;
        let mut steps = Vec::new();
        let mut end = End::Missing;
        for (level, name) in names.into_iter().skip(usize::from(!five)) {
            let entry = match dump.get(name) {
                Some(Value::Number(entry)) => Some(*entry),
                Some(_) => None,
                None => break,
            };
            let step = Step { level, table, index: address >> (12 + 9 * (level - 1)) & 0x1ff, entry };
            steps.push(step);
            match entry {
                None => end = End::Unreadable(step),
                Some(entry) if entry & PRESENT == 0 => end = End::NotPresent(step),
                Some(entry) if step.is_leaf(entry) => {
                    end = End::Leaf(step, entry & ADDRESS & !(step.covers() - 1), step.covers());
                }
                Some(entry) => {
                    table = entry & ADDRESS;
                    continue;
                }
            }
            break;
        }
        Some(Walk { address, steps, end })
    }

    /// What the entries that were read permit together.
    pub(crate) fn rights(&self) -> Rights {
        let all = |bit| self.steps.iter().filter_map(|step| step.entry).all(|entry| entry & bit != 0);
        let execute = self.steps.iter().filter_map(|step| step.entry).all(|entry| entry & NO_EXECUTE == 0);
        Rights { write: all(WRITABLE), user: all(USER), execute }
    }

    /// Why the access faulted, in words.
    pub(crate) fn verdict(&self, dump: &Dump) -> String {
        let (leaf, page, size) = match self.end {
            End::NotPresent(step) => {
                let (start, end) = step.span(self.address);
                let level = step.name();
                return format!(
                    "the walk ends at the {level}, which is not present: nothing is mapped in {start:#x}..{end:#x}"
                );
            }
            End::Unreadable(step) => {
                return format!(
                    "the walk ends at the {}, which could not be read: no table lies at {:#x}, as far as the map reaches",
                    step.name(),
                    step.table
                );
            }
            End::Missing => return "the dump lacks the rest of the walk".into(),
            End::Leaf(step, page, size) => (step, page, size),
        };
        let here = page + (self.address & (size - 1));
        let reached = format!(
            "the walk reaches physical {here:#x} through a {} leaf ({})",
            size_words(size),
            leaf.name()
        );
        let Some(error) = dump.number("error").map(PageFaultErrorCode::from_bits_retain) else {
            return reached;
        };
        let culprit = |wrong: fn(u64) -> bool| {
            let step = self.steps.iter().find(|step| step.entry.is_some_and(wrong));
            step.map_or("the map", Step::name)
        };
        let rights = self.rights();
        let nxe = dump.number("efer").is_none_or(|efer| Efer::from_bits_retain(efer).contains(Efer::NXE));
        if error.contains(PageFaultErrorCode::RSVD) {
            return format!("{reached}, but {}", self.reserved(nxe));
        }
        if !error.contains(PageFaultErrorCode::P) {
            return format!(
                "{reached}: the page is present now. The entries changed after the fault, or the processor still used old ones"
            );
        }
        if error.contains(PageFaultErrorCode::US) && !rights.user {
            return format!(
                "{reached}, and the {} is the supervisor's alone",
                culprit(|entry| entry & USER == 0)
            );
        }
        if error.contains(PageFaultErrorCode::WR) && !rights.write {
            let protect = dump.number("cr0").is_none_or(|cr0| Cr0::from_bits_retain(cr0).contains(Cr0::WP));
            let level = culprit(|entry| entry & WRITABLE == 0);
            if protect || error.contains(PageFaultErrorCode::US) {
                return format!("{reached}, and the {level} is read-only");
            }
        }
        if error.contains(PageFaultErrorCode::ID) && !rights.execute {
            return format!("{reached}, and the {} is no-execute", culprit(|entry| entry & NO_EXECUTE != 0));
        }
        format!(
            "{reached}, with the rights {rights}, which permit this access. The processor used another entry than the tables \
             have now: a stale one in the TLB (a global one outlives a CR3 write), or protection beyond the tables (SMEP, SMAP, keys)"
        )
    }

    /// Which bits that must be zero are set.
    fn reserved(&self, nxe: bool) -> String {
        for step in &self.steps {
            let Some(entry) = step.entry else { continue };
            let name = step.name();
            if entry & NO_EXECUTE != 0 && !nxe {
                return format!("the {name} has bit 63 (no-execute) set while EFER.NXE is clear");
            }
            if entry & LARGE != 0 && step.level >= 4 {
                return format!("the {name} has bit 7 set, which is reserved at this level");
            }
            if step.level > 1
                && step.is_leaf(entry)
                && entry & ADDRESS & (step.covers() - 1) & !(1 << 12) != 0
            {
                return format!(
                    "the {name} maps a large page whose address is not aligned to {}",
                    size_words(step.covers())
                );
            }
        }
        let highest = self
            .steps
            .iter()
            .filter_map(|step| Some((step, step.entry? & ADDRESS)))
            .max_by_key(|(_, at)| *at);
        match highest {
            Some((step, at)) => format!(
                "no bit is wrong in itself: perhaps {at:#x} in the {} is past MAXPHYADDR",
                step.name()
            ),
            None => "the entries are not in the dump".into(),
        }
    }
}

/// The flags of an entry in words.
pub(crate) fn flags(step: &Step) -> String {
    let Some(entry) = step.entry else { return "unreadable".into() };
    if entry & PRESENT == 0 {
        return if entry == 0 { "not present, empty".into() } else { "not present".into() };
    }
    let leaf = step.is_leaf(entry);
    let mut words = vec![if entry & WRITABLE != 0 { "writable" } else { "read-only" }];
    words.extend((entry & USER != 0).then_some("user"));
    words.extend((entry & NO_EXECUTE != 0).then_some("no-execute"));
    words.extend((entry & 1 << 5 != 0).then_some("accessed"));
    words.extend((leaf && entry & 1 << 6 != 0).then_some("dirty"));
    words.extend((leaf && entry & 1 << 8 != 0).then_some("global"));
    words.extend((entry & 1 << 3 != 0).then_some("PWT"));
    words.extend((entry & 1 << 4 != 0).then_some("PCD"));
    let pat = if step.level == 1 { LARGE } else { 1 << 12 };
    words.extend((leaf && entry & pat != 0).then_some("PAT"));
    words.extend((!leaf && entry & (0x7ff << 52 | NO_EXECUTE) != 0).then_some("bits at 52 and above set"));
    let target = entry & ADDRESS & if leaf { !(step.covers() - 1) } else { !0 };
    let what = if leaf { format!("{} page", size_words(step.covers())) } else { "table".into() };
    format!("{what} at {target:#x}, {}", words.join(", "))
}

fn size_words(bytes: u64) -> &'static str {
    match bytes {
        0x1000 => "4 KiB",
        0x20_0000 => "2 MiB",
        0x4000_0000 => "1 GiB",
        _ => "larger",
    }
}
