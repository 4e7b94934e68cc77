//! What lies at an address: by the plan, by the dump, and by the kernels' files.

use core::ops::Range;

use kexec_abi::list::{Entry, Item};
use kexec_exception::{Cr4, Vector};

use crate::dump::Dump;
use crate::kernel::{Frame, Kernel};
use crate::plan::Plan;
use crate::walk::Walk;

/// Everything that is known about one dump's world.
pub(crate) struct World<'a> {
    pub(crate) dump: &'a Dump,
    pub(crate) plan: Option<&'a Plan>,
    pub(crate) kernels: &'a [Kernel],
    pub(crate) walk: Option<Walk>,
}

/// A place in the page code.
pub(crate) struct PageCodePlace {
    /// The piece, and the label if known, with offsets.
    pub(crate) words: String,
    /// The piece's name and the offset in it, if known.
    pub(crate) piece: Option<(String, u64)>,
    /// The distance back to the start of the label, where an instruction begins.
    pub(crate) since_label: Option<u64>,
}

impl<'a> World<'a> {
    pub(crate) fn new(dump: &'a Dump, kernels: &'a [Kernel], plan: Option<&'a Plan>) -> Self {
        let walk = (dump.vector() == Some(Vector::PAGE_FAULT)).then(|| Walk::of(dump)).flatten();
        World { dump, plan, kernels, walk }
    }

    /// The physical address behind `address`, by the plan's map or the identity.
    pub(crate) fn physical(&self, address: u64) -> u64 {
        self.plan.and_then(|plan| plan.run(address)).map_or(address, |run| run.translate(address))
    }

    /// The code frame's physical addresses.
    pub(crate) fn code_frame(&self) -> Option<Range<u64>> {
        let printed = self.dump.number("code_frame").filter(|&start| start != 0);
        let start = printed.or_else(|| Some(self.plan?.code_frame()?.start))?;
        Some(start..start.saturating_add(4096))
    }

    /// The piece and label at `address`, in the code frame or in the template that a kernel was linked with.
    pub(crate) fn page_code(&self, address: u64) -> Option<PageCodePlace> {
        let physical = self.physical(address);
        if let Some(frame) = self.code_frame().filter(|frame| frame.contains(&physical)) {
            let offset = physical - frame.start;
            let place = self.plan.and_then(|plan| {
                // The plan's code frame is the dump's, or else it is the plan of another transition.
                plan.code_frame().is_none_or(|code| code.start == frame.start).then_some(())?;
                let piece = plan.piece(physical)?;
                Some(self.in_piece(plan, &piece.name, physical - piece.range.start))
            });
            return Some(place.map_or_else(
                || PageCodePlace {
                    words: format!("the code frame + {offset:#x}"),
                    piece: None,
                    since_label: None,
                },
                |place| PageCodePlace {
                    words: format!("{} (in the code frame, + {offset:#x})", place.words),
                    ..place
                },
            ));
        }
        let near = self.kernels.iter().find_map(|kernel| kernel.near(address))?;
        // The symbol of a template has no size; a piece fits in a page.
        (near.name.starts_with("page_code_") && near.offset < 4096).then_some(())?;
        let template = "in the template in the kernel's text";
        let place = self.plan.and_then(|plan| {
            let piece = plan.pieces.iter().find(|piece| near.name.ends_with(&format!("_{}", piece.name)))?;
            Some(self.in_piece(plan, &piece.name, near.offset))
        });
        Some(match place {
            Some(place) => PageCodePlace { words: format!("{} ({template})", place.words), ..place },
            None => PageCodePlace {
                words: format!("{} + {:#x} ({template})", near.name, near.offset),
                piece: None,
                since_label: None,
            },
        })
    }

    fn in_piece(&self, plan: &Plan, name: &str, offset: u64) -> PageCodePlace {
        let piece = plan.pieces.iter().find(|piece| piece.name == name);
        let label = piece.and_then(|piece| plan.label(piece.range.start.wrapping_add(offset)));
        let since_label = label
            .zip(piece)
            .map(|(label, piece)| piece.range.start.wrapping_add(offset).wrapping_sub(label.range.start));
        let words = match (label, since_label) {
            (Some(label), Some(since)) => {
                format!("piece {name} + {offset:#x}, label `{}` + {since:#x}", label.name)
            }
            _ => format!("piece {name} + {offset:#x}"),
        };
        PageCodePlace { words, piece: Some((name.to_owned(), offset)), since_label }
    }

    /// The kernel whose text or data has `address`, with the functions there.
    pub(crate) fn kernel(&self, address: u64) -> Option<(&'a Kernel, Vec<Frame>)> {
        let kernel = self.kernels.iter().find(|kernel| kernel.linked(address).is_some())?;
        Some((kernel, kernel.frames(address)))
    }

    /// Whether `address` lies in code: a kernel's text, or the code frame.
    pub(crate) fn is_code(&self, address: u64) -> bool {
        self.kernels.iter().any(|kernel| kernel.is_text(address))
            || self.code_frame().is_some_and(|frame| frame.contains(&self.physical(address)))
    }

    /// The pages of the source at hand, physical.
    pub(crate) fn source(&self) -> Option<Range<u64>> {
        match Entry::from(self.dump.number("entry")?).decode() {
            Item::Source { frame, pages } => {
                let start = frame.start().as_u64();
                Some(start..start.saturating_add(pages * 4096))
            }
            _ => None,
        }
    }

    /// Whether `address` has the upper bits that the processor demands.
    pub(crate) fn is_canonical(&self, address: u64) -> bool {
        let bits = if Cr4::from_bits_retain(self.dump.number("cr4").unwrap_or(0)).contains(Cr4::LA57) {
            57
        } else {
            48
        };
        let shift = 64 - bits;
        (address.cast_signed() << shift >> shift).cast_unsigned() == address
    }

    /// What lies at `address`, the most telling first; empty where nothing is known of it.
    pub(crate) fn describe(&self, address: u64) -> Vec<String> {
        let mut words = Vec::new();
        if !self.is_canonical(address) {
            return vec!["not a canonical address".into()];
        }
        let physical = self.physical(address);
        if let Some(place) = self.page_code(address) {
            words.push(place.words);
        } else if let Some(frame) = self.plan.and_then(|plan| plan.frame(physical)) {
            words.push(format!("control frame `{}` + {:#x}", frame.name, physical - frame.start));
        }
        words.extend(self.list(physical));
        words.extend(self.table(physical));
        if let Some(source) = self.source().filter(|source| source.contains(&physical)) {
            let page = (physical - source.start) / 4096 + 1;
            let pages = (source.end - source.start) / 4096;
            words.push(format!("page {page} of {pages} of the source at hand, + {:#x}", physical % 4096));
        }
        if let Some((index, segment)) = self.plan.and_then(|plan| plan.segment(physical)) {
            let offset = physical - segment.range.start;
            let part = if offset < segment.content { "content" } else { "the zeros after its content" };
            let Range { start, end } = &segment.range;
            words.push(format!("destination, segment {index} ({start:#x}..{end:#x}) + {offset:#x}, {part}"));
        }
        if words.is_empty()
            && let Some((kernel, _)) = self.kernel(address)
        {
            let name = kernel.name();
            words.push(match kernel.near(address) {
                Some(near) => format!("{} + {:#x} ({name})", near.name, near.offset),
                None => name.to_owned(),
            });
        }
        words
    }

    fn list(&self, physical: u64) -> Option<String> {
        let entry_at = self.dump.number("entry_address").filter(|&at| at != 0);
        if entry_at == Some(physical) {
            return Some("the list entry at hand".into());
        }
        let head = self.plan.and_then(|plan| plan.list_head);
        let in_frame =
            [entry_at, head].into_iter().flatten().any(|at| at >> 12 == physical >> 12 && at >> 12 != 0);
        in_frame.then(|| format!("list frame, entry {}", physical % 4096 / 8))
    }

    fn table(&self, physical: u64) -> Option<String> {
        let same = |at: u64| at & 0x000f_ffff_ffff_f000 == physical & !0xfff;
        let steps = self.walk.iter().flat_map(|walk| &walk.steps);
        if let Some(step) = steps.into_iter().find(|step| same(step.table)) {
            return Some(format!("table of the walk of CR2, {} {}", step.name(), physical % 4096 / 8));
        }
        let top = "the top-level table";
        if self.plan.and_then(|plan| plan.tables_root).is_some_and(same) {
            return Some(format!("{top} of the transition map, entry {}", physical % 4096 / 8));
        }
        let cr3 = self.dump.number("cr3").filter(|&cr3| cr3 & !0xfff != 0);
        cr3.is_some_and(same).then(|| format!("{top} (CR3), entry {}", physical % 4096 / 8))
    }
}
