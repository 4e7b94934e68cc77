//! Addresses and frames as `x86_64` 0.15 has them, and an adaptor for its frame allocators.

use core::fmt;
use core::ptr::NonNull;

use x86_64::structures::paging::{
    FrameAllocator as X86FrameAllocator, FrameDeallocator, PhysFrame, Size4KiB,
};

use crate::addr::{Frame, PhysAddr, VirtAddr};
use crate::memory::{FrameAllocator, PhysMemory, Unreachable, Words};

impl From<x86_64::PhysAddr> for PhysAddr {
    fn from(address: x86_64::PhysAddr) -> Self {
        Self::new(address.as_u64())
    }
}

/// Fails at 2^52 and above.
impl TryFrom<PhysAddr> for x86_64::PhysAddr {
    type Error = NotAnAddress;

    fn try_from(address: PhysAddr) -> Result<Self, NotAnAddress> {
        Self::try_new(address.as_u64()).map_err(|_| NotAnAddress(address.as_u64()))
    }
}

impl From<x86_64::VirtAddr> for VirtAddr {
    fn from(address: x86_64::VirtAddr) -> Self {
        Self::new(address.as_u64())
    }
}

/// Fails where the address is not canonical with 4 levels of paging, which is all that `x86_64` 0.15 knows.
impl TryFrom<VirtAddr> for x86_64::VirtAddr {
    type Error = NotAnAddress;

    fn try_from(address: VirtAddr) -> Result<Self, NotAnAddress> {
        Self::try_new(address.as_u64()).map_err(|_| NotAnAddress(address.as_u64()))
    }
}

impl From<PhysFrame<Size4KiB>> for Frame {
    fn from(frame: PhysFrame<Size4KiB>) -> Self {
        Self::containing(frame.start_address().into())
    }
}

impl From<Frame> for PhysFrame<Size4KiB> {
    fn from(frame: Frame) -> Self {
        // A frame's address has 52 bits, so nothing is cut off.
        Self::containing_address(x86_64::PhysAddr::new_truncate(frame.start().as_u64()))
    }
}

/// An address that `x86_64` cannot hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress(pub u64);

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x} is no address that x86_64 can hold", self.0)
    }
}

impl core::error::Error for NotAnAddress {}

/// The memory of a kernel that maps all of physical memory at an offset and has an allocator in `x86_64`'s terms.
///
/// It neither claims ranges nor gives runs, which `x86_64`'s traits do not know: images load everywhere but in place, and page code
/// has to fit in one frame, and a kernel cannot be entered with another paging depth.
#[derive(Debug)]
pub struct OffsetMemory<'a, A> {
    allocator: &'a mut A,
    offset: VirtAddr,
    end: PhysAddr,
}

impl<'a, A> OffsetMemory<'a, A> {
    /// Physical addresses below `end` are mapped from `offset` on.
    ///
    /// # Safety
    ///
    /// - All frames below `end` are mapped so, writable and write-back, as long as the kernel lives.
    /// - The frames of `allocator`, and those that are handed to functions of these crates, are referred to by nothing else.
    pub const unsafe fn new(allocator: &'a mut A, offset: x86_64::VirtAddr, end: PhysAddr) -> Self {
        Self { allocator, offset: VirtAddr::new(offset.as_u64()), end }
    }
}

// SAFETY: the promises of `new`.
unsafe impl<A> PhysMemory for OffsetMemory<'_, A> {
    fn with_frame<R>(&self, frame: Frame, f: impl FnOnce(NonNull<Words>) -> R) -> Result<R, Unreachable> {
        let address =
            self.offset.checked_add(frame.start().as_u64()).filter(|_| frame.range().end <= self.end);
        let words = address.and_then(|address| NonNull::new(address.as_u64() as *mut Words));
        words.map(f).ok_or(Unreachable(frame))
    }

    fn pin(&mut self, frame: Frame) -> Result<VirtAddr, Unreachable> {
        self.with_frame(frame, |words| VirtAddr::new(words.as_ptr() as u64))
    }
}

// SAFETY: `x86_64`'s traits promise unused frames, and `new` that nothing else refers to them.
unsafe impl<A: X86FrameAllocator<Size4KiB> + FrameDeallocator<Size4KiB>> FrameAllocator
    for OffsetMemory<'_, A>
{
    fn allocate(&mut self) -> Option<Frame> {
        self.allocator.allocate_frame().map(Frame::from)
    }

    fn free(&mut self, frame: Frame) {
        // SAFETY: it came from this allocator, and who gives it back uses it no more.
        unsafe { self.allocator.deallocate_frame(frame.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_other_crate_cannot_hold_is_refused_with_the_value() {
        let high = PhysAddr::new(1 << 52);
        assert_eq!(x86_64::PhysAddr::try_from(high), Err(NotAnAddress(1 << 52)));
        let five_levels = VirtAddr::new(1 << 50);
        assert_eq!(x86_64::VirtAddr::try_from(five_levels), Err(NotAnAddress(1 << 50)));
        let top = VirtAddr::new(0xffff_8000_0000_0000);
        assert_eq!(x86_64::VirtAddr::try_from(top).map(VirtAddr::from), Ok(top));
        let frame = Frame::containing(PhysAddr::new((1 << 52) - 1));
        assert_eq!(Frame::from(PhysFrame::from(frame)), frame);
    }

    /// One frame.
    struct One(Option<PhysFrame>);

    // SAFETY: the frame is the test's own.
    unsafe impl X86FrameAllocator<Size4KiB> for One {
        fn allocate_frame(&mut self) -> Option<PhysFrame> {
            self.0.take()
        }
    }

    impl FrameDeallocator<Size4KiB> for One {
        unsafe fn deallocate_frame(&mut self, frame: PhysFrame) {
            self.0 = Some(frame);
        }
    }

    #[test]
    fn an_allocator_of_the_other_crate_serves_as_memory() {
        #[repr(align(4096))]
        struct Page([u64; 512]);
        let mut page = Box::new(Page([7; 512]));
        let at = page.0.as_mut_ptr() as u64;
        let mut one = One(Some(PhysFrame::containing_address(x86_64::PhysAddr::new(at))));
        // SAFETY: only the page of this test is handed over, and it is mapped at its address.
        let mut memory =
            unsafe { OffsetMemory::new(&mut one, x86_64::VirtAddr::zero(), PhysAddr::new(at + 4096)) };
        let frame = memory.allocate().unwrap();
        memory.write_word(frame, 511, 9).unwrap();
        assert_eq!(memory.read_word(frame, 511), Ok(9));
        assert_eq!(memory.allocate(), None);
        let beyond = frame.checked_add(1).unwrap();
        assert_eq!(memory.read_word(beyond, 0), Err(Unreachable(beyond)));
        memory.free(frame);
        assert_eq!(one.0.map(Frame::from), Some(frame));
        assert_eq!(page.0[511], 9);
    }
}
