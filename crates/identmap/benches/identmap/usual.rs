//! The algorithm that kernels use, written anew: each range is rounded out to 2 MiB, and walked down from the root a 512 GiB, a
//! 1 GiB and a 2 MiB slot at a time; a table is made, and zeroed, where there is none yet.

use kexec_abi::{Frame, FrameAllocator, PhysAddr, PhysMemory, PhysRange};

use crate::arena::Arena;

const LARGE: u64 = 1 << 21;
const TABLE: u64 = 0x63;
const LEAF: u64 = 0xe3;

pub(crate) fn build(ranges: &[PhysRange], arena: &mut Arena) {
    let root = table(arena);
    for range in ranges {
        let start = range.start.as_u64() & !(LARGE - 1);
        let end = range.end.as_u64().next_multiple_of(LARGE);
        map(root, 39, start, end, arena);
    }
    std::hint::black_box(root);
}

fn table(arena: &mut Arena) -> Frame {
    let frame = arena.allocate().expect("enough frames");
    arena.zero(frame).expect("a frame of the arena");
    frame
}

/// Maps `start..end` in a table whose entries cover `1 << shift` bytes each.
fn map(table_frame: Frame, shift: u32, mut start: u64, end: u64, arena: &mut Arena) {
    while start < end {
        let next = ((start >> shift) + 1) << shift;
        let index = (start >> shift) as usize % 512;
        let entry = arena.read_word(table_frame, index).expect("a frame of the arena");
        if shift == 21 {
            if entry == 0 {
                arena.write_word(table_frame, index, start | LEAF).expect("a frame of the arena");
            }
        } else {
            let below = if entry == 0 {
                let below = table(arena);
                arena
                    .write_word(table_frame, index, below.start().as_u64() | TABLE)
                    .expect("a frame of the arena");
                below
            } else {
                Frame::containing(PhysAddr::new(entry))
            };
            map(below, shift - 9, start, end.min(next), arena);
        }
        start = next;
    }
}
