//! A sink that keeps what it is given and panics where a loader breaks a promise of [`Sink`].

use std::collections::BTreeMap;

use kexec_abi::{MemoryKind, MemoryRegion, PhysAddr, PhysRange};
use kexec_payload::Sink;

const PAGE: u64 = 4096;

/// What the recorder refuses, as an image would.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NotUsable(pub(crate) PhysRange);

impl std::fmt::Display for NotUsable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is not usable memory", self.0)
    }
}

#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) segments: Vec<PhysRange>,
    pages: BTreeMap<u64, Box<[u8; PAGE as usize]>>,
    reserved: Option<PhysRange>,
    pub(crate) written: u64,
}

impl Recorder {
    /// A recorder that refuses what touches `reserved`.
    pub(crate) fn refusing(reserved: PhysRange) -> Self {
        Self { reserved: Some(reserved), ..Default::default() }
    }

    /// The bytes at a destination; those that were never written are zero.
    pub(crate) fn bytes(&self, at: u64, len: usize) -> Vec<u8> {
        assert!(
            len == 0 || self.segment_at(at, len as u64).is_some(),
            "{at:#x}+{len:#x} is in no segment: {:?}",
            self.segments
        );
        let mut bytes = vec![0; len];
        for (&number, page) in self.pages.range(at / PAGE..(at + len as u64).div_ceil(PAGE)) {
            let start = (number * PAGE).max(at);
            let end = ((number + 1) * PAGE).min(at + len as u64);
            let from = (start - number * PAGE) as usize..(end - number * PAGE) as usize;
            bytes[(start - at) as usize..(end - at) as usize].copy_from_slice(&page[from]);
        }
        bytes
    }

    pub(crate) fn u8(&self, at: u64) -> u8 {
        self.bytes(at, 1)[0]
    }

    pub(crate) fn u32(&self, at: u64) -> u32 {
        u32::from_le_bytes(self.bytes(at, 4).try_into().unwrap())
    }

    pub(crate) fn u64(&self, at: u64) -> u64 {
        u64::from_le_bytes(self.bytes(at, 8).try_into().unwrap())
    }

    pub(crate) fn segment_at(&self, at: u64, len: u64) -> Option<PhysRange> {
        let range = PhysRange::from_len(PhysAddr::new(at), len)?;
        self.segments.iter().copied().find(|segment| segment.contains_range(&range))
    }

    /// Panics unless every frame of every segment is usable by `map` and outside of `forbidden`.
    pub(crate) fn assert_only_in_usable_memory(&self, map: &[MemoryRegion], forbidden: &[PhysRange]) {
        for segment in &self.segments {
            assert!(!forbidden.iter().any(|range| range.overlaps(segment)), "{segment} is forbidden");
            let in_the_way =
                map.iter().find(|region| region.kind != MemoryKind::Usable && region.range.overlaps(segment));
            assert_eq!(in_the_way, None, "{segment}");
            // Every byte must be in a usable region: step from region to region.
            let mut at = segment.start;
            while at < segment.end {
                at = map
                    .iter()
                    .filter(|region| region.kind == MemoryKind::Usable && region.range.contains(at))
                    .map(|region| region.range.end)
                    .max()
                    .unwrap_or_else(|| panic!("{at} of {segment} is in no usable region"));
            }
        }
    }
}

impl Sink for Recorder {
    type Error = NotUsable;

    fn segment(&mut self, destination: PhysRange) -> Result<(), NotUsable> {
        assert!(destination.is_aligned(PAGE) && !destination.is_empty(), "{destination}");
        assert!(destination.end.as_u64() <= 1 << 52, "{destination}");
        assert!(!self.segments.iter().any(|segment| segment.overlaps(&destination)), "{destination}");
        if self.reserved.is_some_and(|reserved| reserved.overlaps(&destination)) {
            return Err(NotUsable(destination));
        }
        self.segments.push(destination);
        Ok(())
    }

    fn write(&mut self, at: PhysAddr, bytes: &[u8]) -> Result<(), NotUsable> {
        let (at, len) = (at.as_u64(), bytes.len() as u64);
        assert!(self.segment_at(at, len).is_some(), "a write of {len:#x} bytes at {at:#x} is in no segment");
        let start = at % PAGE;
        assert!(start + len <= PAGE, "a write of {len:#x} bytes at {at:#x} crosses a page");
        let page = self.pages.entry(at / PAGE).or_insert_with(|| Box::new([0; PAGE as usize]));
        page[start as usize..(start + len) as usize].copy_from_slice(bytes);
        self.written += len;
        Ok(())
    }
}
