//! The entry: from the processor's event to a [`Handler`], and back.
//!
//! Each vector has a stub of a few bytes, which makes the stack look the same with and without an error code, names the
//! vector, and jumps to a common part. That saves the general registers below, so that a [`TrapFrame`] stands on the stack,
//! and calls the handler with its address; what the handler leaves in it is loaded, and IRETQ goes there.
//!
//! All of it is generic over the handler: its associated constants choose what is assembled, and nothing is decided at run
//! time that was known before. So a kernel without user space has no SWAPGS, and one of soft-float has no FXSAVE.
//!
//! # GS
//!
//! [`Handler::SWAPGS`] is for a kernel that has GS point to its own data while it runs, and to the user's otherwise. Most
//! events need no more than a look at the interrupted CPL. But some arrive in kernel code that still has, or has again, the
//! user's GS base: between a SYSCALL or an event's entry and the SWAPGS after it, between a SWAPGS and the IRETQ after it.
//! For those vectors ([`paranoid`]) that interrupt CPL 0, the sign of the GS base decides: the kernel's must be in the upper
//! half of the address space, the user's in the lower. (A user who may write a base with CR4.FSGSBASE can break that rule;
//! a kernel that permits it must not rely on GS in a handler of these vectors.)

use core::arch::naked_asm;
use core::mem::offset_of;

use crate::trap_frame::TrapFrame;
use crate::vector::Vector;

/// What a kernel does with its exceptions and interrupts.
///
/// The constants say how it is entered; they hold for all vectors of an [`Idt`](crate::idt::Idt) made for it.
pub trait Handler: 'static {
    /// The vectors whose gates switch to a stack of the TSS, with the number of that stack, from 1 to 7.
    ///
    /// At least the three of the default should: an NMI and a machine check come when RSP may be anything, a double fault
    /// when it is bad.
    const IST: &'static [(Vector, u8)] =
        &[(Vector::NMI, 1), (Vector::DOUBLE_FAULT, 2), (Vector::MACHINE_CHECK, 3)];

    /// Whether GS is swapped between the user's and the kernel's; see the [module](self) on what it takes.
    const SWAPGS: bool = false;

    /// The vector registers that are saved around [`handle`](Self::handle).
    const VECTOR_REGISTERS: VectorRegisters = VectorRegisters::OF_TARGET;

    /// Handles an event: called with interrupts off, DF clear, on the interrupted stack or the gate's own.
    ///
    /// When it returns, the interrupted program goes on with the registers in the frame, so a handler of a fault that leaves
    /// it unchanged has the instruction executed again. What it leaves in the frame is loaded as it is, by IRETQ.
    ///
    /// The handler of an NMI must not fault, since the IRETQ after the nested exception lets the next NMI in; and it must
    /// preserve CR2, which the entry of a page fault may not have read yet. The entry leaves RFLAGS.AC as it was: where CR4.SMAP
    /// is set and the user can be interrupted, the handler begins with CLAC.
    fn handle(frame: &mut TrapFrame);
}

/// Vector registers (x87, MMX, SSE, AVX, …) that are saved around a handler, on its stack.
///
/// Needed where the handler is compiled for a target that uses them, as it may then use them anywhere; kernels usually aren't.
/// While they are saved, an event with CR0.TS or CR0.EM set is an endless #NM or #UD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum VectorRegisters {
    /// None: the handler uses none.
    None,
    /// x87, MMX and SSE, by FXSAVE: 512 bytes. Needs CR4.OSFXSR.
    Fxsave,
    /// By XSAVE, in its standard format. Needs CR4.OSXSAVE.
    Xsave {
        /// The state components, as in XCR0; those that XCR0 lacks are left out. x87 and SSE (bits 0 and 1) are always saved.
        components: u64,
        /// The size of the save area in bytes, at least what the processor needs for these components: 576 for x87 and SSE,
        /// otherwise the largest offset plus size that leaf 0xd of CPUID gives for one of them.
        size: u32,
    },
}

impl VectorRegisters {
    /// Those that code for the target it is compiled for may use: none for `x86_64-unknown-none`.
    pub const OF_TARGET: Self = if cfg!(target_feature = "avx512f") {
        Self::Xsave { components: 0xe7, size: 2688 }
    } else if cfg!(target_feature = "avx") {
        Self::Xsave { components: 0x07, size: 832 }
    } else if cfg!(target_feature = "sse") {
        Self::Fxsave
    } else {
        Self::None
    };

    const fn size(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Fxsave => 512,
            Self::Xsave { size, .. } => {
                assert!(size >= 576, "an XSAVE area holds the 512 bytes of FXSAVE and a header of 64");
                size
            }
        }
    }

    const fn components(self) -> u64 {
        match self {
            Self::None | Self::Fxsave => 0,
            Self::Xsave { components, .. } => components | 3,
        }
    }
}

/// The stack of the TSS for a vector's gate, 0 for none.
pub(crate) const fn ist<H: Handler>(vector: Vector) -> u8 {
    let mut index = 0;
    while index < H::IST.len() {
        if H::IST[index].0.0 == vector.0 {
            assert!(H::IST[index].1 >= 1 && H::IST[index].1 <= 7, "a TSS has stacks 1 to 7");
            return H::IST[index].1;
        }
        index += 1;
    }
    0
}

/// The highest of the stacks of the TSS that a handler uses.
pub(crate) const fn highest_ist<H: Handler>() -> u8 {
    let (mut index, mut highest) = (0, 0);
    while index < H::IST.len() {
        if H::IST[index].1 > highest {
            highest = H::IST[index].1;
        }
        index += 1;
    }
    highest
}

/// Whether an event of this vector may find kernel code with the user's GS base: those on a stack of the TSS; #DB, NMI, #DF and
/// #MC, which come at any boundary; and what an IRETQ to the user can raise.
pub const fn paranoid<H: Handler>(vector: Vector) -> bool {
    ist::<H>(vector) != 0
        || matches!(
            vector,
            Vector::DEBUG
                | Vector::NMI
                | Vector::DOUBLE_FAULT
                | Vector::SEGMENT_NOT_PRESENT
                | Vector::STACK_SEGMENT
                | Vector::GENERAL_PROTECTION
                | Vector::MACHINE_CHECK
                | Vector::CONTROL_PROTECTION
        )
}

/// An entry stub. Not to be called: the processor enters it through a gate.
pub type Stub = unsafe extern "sysv64" fn();

/// The stub of a vector, for a gate in a table of your own: an interrupt gate, with the stack that [`Handler::IST`] says.
#[must_use]
pub const fn stub<H: Handler>(vector: Vector) -> Stub {
    Stubs::<H>::ALL[vector.0 as usize]
}

struct Stubs<H>(core::marker::PhantomData<H>);

macro_rules! stubs {
    ($($high:literal)*) => {
        [$(stubs!($high: 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)),*]
    };
    ($high:literal: $($low:literal)*) => {
        [$(entry::<H, { $high * 16 + $low }> as Stub),*]
    };
}

impl<H: Handler> Stubs<H> {
    const ROWS: [[Stub; 16]; 16] = stubs!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15);
    const ALL: &'static [Stub] = Self::ROWS.as_flattened();
}

/// Entered by the processor: the hardware frame, with an error code or without, at RSP; every register the interrupted
/// program's.
#[unsafe(naked)]
unsafe extern "sysv64" fn entry<H: Handler, const VECTOR: u8>() {
    naked_asm!(
        "endbr64", // an event's entry is an indirect branch to CET's IBT
        ".if {has_error_code} == 0",
        "push 0",
        ".endif",
        "push {vector}",
        ".if {paranoid}",
        "jmp {common_paranoid}",
        ".else",
        "jmp {common}",
        ".endif",
        has_error_code = const Vector(VECTOR).has_error_code() as u8,
        vector = const VECTOR,
        paranoid = const paranoid::<H>(Vector(VECTOR)) as u8,
        common = sym common::<H, false>,
        common_paranoid = sym common::<H, true>,
    )
}

/// Entered by a stub: the vector at RSP, above it the error code and the hardware frame; every register the interrupted
/// program's.
#[unsafe(naked)]
unsafe extern "sysv64" fn common<H: Handler, const PARANOID: bool>() {
    naked_asm!(
        "cld",
        "push rax",
        "push rbx",
        "push rcx",
        "push rdx",
        "push rsi",
        "push rdi",
        "push rbp",
        "push r8",
        "push r9",
        "push r10",
        "push r11",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        // CR2 before anything that may fault once more.
        "xor eax, eax",
        "cmp byte ptr [rsp + {vector} - {r15}], {page_fault}",
        "jne 2f",
        "mov rax, cr2",
        "2:",
        "push rax",
        "push 0", // user_gs
        "mov rbp, rsp",

        ".if {swapgs}",
        "test byte ptr [rbp + {cs}], 3",
        ".if {paranoid}",
        "jnz 2f", // from the user
        "mov ecx, {gs_base}",
        "rdmsr",
        "test edx, edx",
        "js 3f", // the kernel's already
        "mov byte ptr [rbp + {user_gs}], 1",
        "2:",
        ".else",
        "jz 3f", // from the kernel
        ".endif",
        "swapgs",
        "3:",
        "lfence", // no speculation with the wrong GS: CVE-2019-1125
        ".endif",

        ".if {area}",
        "sub rsp, {area}",
        "and rsp, -64",
        ".if {components_low}",
        "xor eax, eax", // the header: what XSAVE leaves as it was, and XRSTOR wants to be zero
        "mov [rsp + 512], rax",
        "mov [rsp + 520], rax",
        "mov [rsp + 528], rax",
        "mov eax, {components_low}",
        "mov edx, {components_high}",
        "xsave64 [rsp]",
        ".else",
        "fxsave64 [rsp]",
        ".endif",
        // The handler may count on the control words of the ABI.
        "fninit",
        "push {mxcsr}",
        "ldmxcsr [rsp]",
        "pop rax",
        ".endif",

        "mov rdi, rbp",
        "call {handle}",

        ".if {area}",
        ".if {components_low}",
        "mov eax, {components_low}",
        "mov edx, {components_high}",
        "xrstor64 [rsp]",
        ".else",
        "fxrstor64 [rsp]",
        ".endif",
        "mov rsp, rbp",
        ".endif",

        // GS is the kernel's here. The handler may have redirected to another CPL, so its frame says what GS is wanted.
        ".if {swapgs}",
        "test byte ptr [rsp + {cs}], 3",
        "jnz 2f", // to the user
        "cmp byte ptr [rsp + {user_gs}], 0",
        "je 3f",
        "2:",
        "swapgs",
        "3:",
        ".endif",
        "add rsp, {r15}",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop r11",
        "pop r10",
        "pop r9",
        "pop r8",
        "pop rbp",
        "pop rdi",
        "pop rsi",
        "pop rdx",
        "pop rcx",
        "pop rbx",
        "pop rax",
        "add rsp, {rip} - {vector}",
        "iretq",

        vector = const offset_of!(TrapFrame, vector),
        r15 = const offset_of!(TrapFrame, r15),
        rip = const offset_of!(TrapFrame, rip),
        cs = const offset_of!(TrapFrame, cs),
        user_gs = const offset_of!(TrapFrame, user_gs),
        page_fault = const Vector::PAGE_FAULT.0,
        swapgs = const H::SWAPGS as u8,
        paranoid = const PARANOID as u8,
        gs_base = const 0xc000_0101_u32,
        area = const H::VECTOR_REGISTERS.size(),
        components_low = const H::VECTOR_REGISTERS.components() as u32,
        components_high = const (H::VECTOR_REGISTERS.components() >> 32) as u32,
        mxcsr = const 0x1f80, // all exceptions masked: Intel SDM volume 1, 10.2.3
        handle = sym handle::<H>,
    )
}

extern "sysv64" fn handle<H: Handler>(frame: &mut TrapFrame) {
    H::handle(frame);
}
