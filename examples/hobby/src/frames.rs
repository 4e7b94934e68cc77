//! The frames that nobody uses: a bit for each, set where it is free.

use kexec_abi::{Frame, FrameAllocator, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange};

/// Memory from here on is left alone: 4 GiB.
const LIMIT: u64 = 1 << 32;

/// Memory below is left alone: 1 MiB, which firmware and the start of other processors need.
const LOW: u64 = 0x10_0000;

const WORDS: usize = (LIMIT / PAGE_SIZE / 64) as usize;

static mut BITS: [u64; WORDS] = [0; WORDS];

/// The frame allocator.
pub struct Frames {
    bits: &'static mut [u64; WORDS],
    free: u64,
    /// No word before this one has a free frame.
    first: usize,
}

impl Frames {
    /// The usable memory of `map` but for what is `in_use`.
    ///
    /// # Safety
    ///
    /// Called once. All that is in use lies in `in_use`, or is [reserved](Self::reserve) before the first frame is given.
    pub unsafe fn new(map: &[MemoryRegion], in_use: impl Iterator<Item = PhysRange>) -> Self {
        let bits = &raw mut BITS;
        // SAFETY: this is called once, and nothing else names BITS.
        let mut frames = Self { bits: unsafe { &mut *bits }, free: 0, first: 0 };
        for region in map.iter().filter(|region| region.kind == MemoryKind::Usable) {
            // Whole frames only.
            let start = region.range.start.as_u64().next_multiple_of(PAGE_SIZE).max(LOW);
            let end = region.range.end.align_down(PAGE_SIZE).as_u64().min(LIMIT);
            (start / PAGE_SIZE..end / PAGE_SIZE).for_each(|number| frames.set(number, true));
        }
        // A map may say two things of one frame.
        let other = map.iter().filter(|region| region.kind != MemoryKind::Usable).map(|region| region.range);
        other.chain(in_use).for_each(|range| frames.reserve(range));
        frames
    }

    /// Never gives the frames of `range`.
    pub fn reserve(&mut self, range: PhysRange) {
        numbers(range).for_each(|number| self.set(number, false));
    }

    /// How many frames are free.
    pub fn free_count(&self) -> u64 {
        self.free
    }

    /// The same in MiB.
    pub fn free_mib(&self) -> u64 {
        (self.free * PAGE_SIZE) >> 20
    }

    fn is_free(&self, number: u64) -> bool {
        self.bits[(number / 64) as usize] >> (number % 64) & 1 == 1
    }

    fn set(&mut self, number: u64, free: bool) {
        if self.is_free(number) == free {
            return;
        }
        let word = (number / 64) as usize;
        self.bits[word] ^= 1 << (number % 64);
        if free {
            self.free += 1;
            self.first = self.first.min(word);
        } else {
            self.free -= 1;
        }
    }

    fn take(&mut self, numbers: core::ops::Range<u64>) -> bool {
        let all = numbers.end <= LIMIT / PAGE_SIZE && numbers.clone().all(|number| self.is_free(number));
        if all {
            numbers.for_each(|number| self.set(number, false));
        }
        all
    }
}

/// The numbers of the frames of `range`, as far as there are bits for them.
fn numbers(range: PhysRange) -> core::ops::Range<u64> {
    let range = range.round_out();
    let number = |address: PhysAddr| address.as_u64().min(LIMIT) / PAGE_SIZE;
    number(range.start)..number(range.end)
}

fn frame(number: u64) -> Frame {
    Frame::containing(PhysAddr::new(number * PAGE_SIZE))
}

// SAFETY: a frame is given only while its bit is set, which it is for usable memory that is not in use, and the bit is
// cleared until the frame comes back.
unsafe impl FrameAllocator for Frames {
    fn allocate(&mut self) -> Option<Frame> {
        let word = (self.first..WORDS).find(|word| self.bits[*word] != 0)?;
        self.first = word;
        let number = word as u64 * 64 + u64::from(self.bits[word].trailing_zeros());
        self.set(number, false);
        Some(frame(number))
    }

    fn free(&mut self, frame: Frame) {
        let number = frame.start().as_u64() / PAGE_SIZE;
        assert!(!self.is_free(number), "{frame} was given back twice");
        self.set(number, true);
    }

    fn allocate_run(&mut self, count: u64, below: PhysAddr) -> Option<Frame> {
        let end = below.as_u64().min(LIMIT) / PAGE_SIZE;
        let first = (LOW / PAGE_SIZE..=end.checked_sub(count)?)
            .find(|first| (*first..*first + count).all(|number| self.is_free(number)))?;
        self.take(first..first + count).then(|| frame(first))
    }

    fn claim(&mut self, range: PhysRange) -> bool {
        let range = range.start.as_u64() / PAGE_SIZE..range.end.as_u64().div_ceil(PAGE_SIZE);
        self.take(range)
    }
}
