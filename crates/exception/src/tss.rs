//! The task state segment: the stacks that the processor switches to.
//!
//! Not `x86_64`'s, whose addresses end at 48 bits: with five levels of page tables a stack may lie below that.

use core::mem::MaybeUninit;

use static_assertions::const_assert_eq;

/// A stack of `SIZE` bytes, a multiple of 16.
#[derive(Debug)]
#[repr(C, align(16))]
pub struct Stack<const SIZE: usize>(MaybeUninit<[u8; SIZE]>);

impl<const SIZE: usize> Stack<SIZE> {
    /// A stack, in a static of the caller's for instance.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(SIZE.is_multiple_of(16), "a stack's size is a multiple of 16 bytes") };
        Self(MaybeUninit::uninit())
    }

    /// The address of its end, from where it grows downwards.
    #[must_use]
    pub fn top(&self) -> u64 {
        self.0.as_ptr() as u64 + SIZE as u64
    }
}

impl<const SIZE: usize> Default for Stack<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

/// A 64-bit task state segment, without an I/O permission bitmap: Intel SDM volume 3, 8.7.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed(4))]
pub struct Tss {
    reserved_0: u32,
    rsp: [u64; 3],
    reserved_1: u64,
    ist: [u64; 7],
    reserved_2: u64,
    reserved_3: u16,
    io_map_base: u16,
}

const_assert_eq!(size_of::<Tss>(), 104);
const_assert_eq!(core::mem::offset_of!(Tss, ist), 0x24);

impl Tss {
    /// A segment without stacks.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            reserved_0: 0,
            rsp: [0; 3],
            reserved_1: 0,
            ist: [0; 7],
            reserved_2: 0,
            reserved_3: 0,
            io_map_base: size_of::<Self>() as u16, // at the limit: no bitmap
        }
    }

    /// Sets the top of the stack for events that interrupt CPL 3 and whose gate names none, RSP0. It may be set anew at every
    /// switch of threads, while the segment is in force.
    pub fn set_privilege_stack(&mut self, top: u64) {
        // SAFETY: an unaligned write into a field of ours; volatile, for the processor reads it behind the compiler's back.
        unsafe { (&raw mut self.rsp[0]).cast::<[u32; 2]>().write_volatile([top as u32, (top >> 32) as u32]) };
    }

    /// Gives a stack to the gates that name `index`, from 1 to 7; others are ignored.
    pub fn set_ist<const SIZE: usize>(&mut self, index: u8, stack: &'static mut Stack<SIZE>) {
        self.set_ist_top(index, stack.top());
    }

    /// The top of the stack for gates that name `index`; 0 without one.
    #[must_use]
    pub fn ist_top(&self, index: u8) -> u64 {
        match index {
            1..=7 => self.ist[usize::from(index) - 1],
            _ => 0,
        }
    }

    pub(crate) fn set_ist_top(&mut self, index: u8, top: u64) {
        if let 1..=7 = index {
            self.ist[usize::from(index) - 1] = top;
        }
    }
}

impl Default for Tss {
    fn default() -> Self {
        Self::new()
    }
}
