//! All of RAM in one number.

use core::fmt;

use hobby::{Failure, Memory, MemoryMap};
use kexec_abi::{Frame, PAGE_SIZE, PhysAddr, PhysMemory as _};

use super::exclusions::Exclusions;

/// A digest for each 2 MiB, modulo 512 MiB: so that a difference has a place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digest([u64; 256]);

impl Digest {
    /// The digest of all RAM that the memory map names, but for what may change.
    pub fn of_memory(memory: &Memory, map: &MemoryMap, exclusions: &Exclusions) -> Result<Self, Failure> {
        let mut digest = [0_u64; 256];
        for region in map.iter().filter(|region| region.kind.is_ram()) {
            let first = region.range.start.as_u64().div_ceil(PAGE_SIZE);
            for number in first..region.range.end.as_u64() / PAGE_SIZE {
                let frame = Frame::containing(PhysAddr::new(number * PAGE_SIZE));
                if !exclusions.has(frame) {
                    let part = &mut digest[(number / 512 % 256) as usize];
                    *part = part.wrapping_add(of_frame(memory, frame, exclusions.bits(frame))?);
                }
            }
        }
        Ok(Self(digest))
    }

    /// The first address at which two digests differ.
    pub fn difference(&self, other: &Self) -> Option<PhysAddr> {
        let at = self.0.iter().zip(&other.0).position(|(a, b)| a != b)?;
        Some(PhysAddr::new(at as u64 * 512 * PAGE_SIZE))
    }
}

/// Of a frame without `bits` in each word.
pub fn of_frame(memory: &Memory, frame: Frame, bits: u64) -> Result<u64, Failure> {
    Ok(memory.with_frame(frame, |words| {
        let words = words.cast::<u64>();
        (0..512).fold(frame.start().as_u64(), |digest, index| {
            // SAFETY: `with_frame` gives 512 words. Volatile: a live table's bits change by themselves.
            let word = unsafe { words.add(index).read_volatile() } & !bits;
            (digest ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
        })
    })?)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.iter().fold(0_u64, |all, part| all.rotate_left(7).wrapping_add(*part));
        write!(f, "{all:016x}")
    }
}
