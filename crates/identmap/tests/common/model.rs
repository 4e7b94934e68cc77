//! What a request means, in the plainest words: for each interval between two boundaries, who wins. No tables, no merging
//! in advance, and arithmetic that cannot overflow.

use identmap::{Attributes, Encryption, Mapping, Options, Rounding};

use super::{Cpu, Piece, continues};

pub fn cpu(options: &Options) -> Cpu {
    Cpu {
        levels: u32::from(options.levels.count()),
        phys_bits: u32::from(options.phys_bits),
        nx: options.nx,
        giant_pages: options.giant_pages,
        c_bit: match options.encryption {
            Encryption::EncryptedBit(mask) | Encryption::SharedBit(mask) => mask,
            _ => 0,
        },
    }
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Unaligned,
    BeyondPhysBits,
    NonCanonical,
    Conflict,
}

/// A mapping, rounded: linear addresses without sign extension.
#[derive(Clone, Copy)]
struct Request {
    virt: i128,
    phys: i128,
    bytes: i128,
    attributes: Attributes,
    priority: u8,
}

/// The pieces of the map in order, joined as far as they can be.
pub fn expected(mappings: &[Mapping], options: &Options) -> Result<Vec<Piece>, Refusal> {
    let mut requests = Vec::new();
    for mapping in mappings {
        requests.extend(request(mapping, options)?);
    }
    for one in &requests {
        for other in &requests {
            let overlap = one.virt < other.virt + other.bytes && other.virt < one.virt + one.bytes;
            let alike = one.attributes == other.attributes && one.phys - one.virt == other.phys - other.virt;
            if one.priority == other.priority && overlap && !alike {
                return Err(Refusal::Conflict);
            }
        }
    }
    let mut bounds: Vec<i128> = requests.iter().flat_map(|r| [r.virt, r.virt + r.bytes]).collect();
    bounds.sort();
    bounds.dedup();
    let mut pieces: Vec<Piece> = Vec::new();
    for pair in bounds.windows(2) {
        let (start, end) = (pair[0], pair[1]);
        let inside = requests.iter().filter(|r| r.virt <= start && end <= r.virt + r.bytes);
        let Some(winner) = inside.max_by_key(|r| r.priority) else { continue };
        let piece = piece(winner, start, end, options);
        match pieces.last_mut() {
            Some(last) if continues(last, &piece) => last.bytes += piece.bytes,
            _ => pieces.push(piece),
        }
    }
    Ok(pieces)
}

fn request(mapping: &Mapping, options: &Options) -> Result<Option<Request>, Refusal> {
    let (mut start, mut end) =
        (i128::from(mapping.phys.start.as_u64()), i128::from(mapping.phys.end.as_u64()));
    let mut virt = i128::from(mapping.virt.as_u64());
    if end <= start {
        return Ok(None);
    }
    if (virt - start) % 4096 != 0 {
        return Err(Refusal::Unaligned);
    }
    match mapping.rounding {
        Rounding::Exact => {
            if start % 4096 != 0 || end % 4096 != 0 {
                return Err(Refusal::Unaligned);
            }
        }
        Rounding::Out(unit) => {
            let unit = i128::from(unit);
            virt -= start % unit;
            start -= start % unit;
            end = (end + unit - 1) / unit * unit;
        }
    }
    let cpu = cpu(options);
    let last = end - 1;
    if last >> cpu.phys_bits != 0 || (cpu.c_bit != 0 && last >= i128::from(cpu.c_bit)) {
        return Err(Refusal::BeyondPhysBits);
    }
    let half = 1i128 << (11 + 9 * cpu.levels);
    let halves = [(0, half, 0), ((1 << 64) - half, 1 << 64, (1 << 64) - 2 * half)];
    let Some((_, _, hole)) =
        halves.into_iter().find(|&(from, to, _)| from <= virt && virt + (end - start) <= to)
    else {
        return Err(Refusal::NonCanonical);
    };
    let (attributes, priority) = (mapping.attributes, mapping.priority);
    Ok(Some(Request { virt: virt - hole, phys: start, bytes: end - start, attributes, priority }))
}

fn piece(winner: &Request, start: i128, end: i128, options: &Options) -> Piece {
    let attributes = winner.attributes;
    Piece {
        virt: start as u64,
        phys: (winner.phys + start - winner.virt) as u64,
        bytes: (end - start) as u64,
        writable: attributes.writable,
        no_execute: !attributes.executable && options.nx,
        user: false,
        pat: attributes.cache as u64,
        c_bit: match options.encryption {
            Encryption::EncryptedBit(_) => !attributes.shared,
            Encryption::SharedBit(_) => attributes.shared,
            _ => false,
        },
    }
}
