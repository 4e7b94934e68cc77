//! The detour out of long mode, by which a kernel is entered with another paging depth than that of the one before it.
//!
//! CR4.LA57 cannot change in long mode (SDM Vol. 3A, 2.5), so the way leads through 32-bit protected mode without paging: code,
//! stack, control block, debug frame and the top-level tables lie below 4 GiB. While paging is off the 64-bit IDT means nothing; a 32-bit
//! one takes its place, whose handlers count NMIs and single steps, and bring everything else back to long mode to be dumped.
//! Laid out only where a plan needs it.

use core::mem::offset_of;

use kexec_abi::page_code;
use kexec_exception::page_code::{Captured, Counters, DebugFrame};

use crate::control::{Control, ControlFrame, Descriptor};
use crate::cpu::cr0;
use crate::engine::{IA32_EFER, RFLAGS_CLEAR};

/// The labels that others need, by their index in [`DETOUR`].
pub(crate) mod label {
    /// Changes the paging depth; see the piece.
    pub(crate) const SWITCH: usize = 0;
    /// The 32-bit handlers, `STUB_SIZE` bytes a vector.
    pub(crate) const STUBS: usize = 3;
    /// Where a captured fault goes on in 64-bit mode.
    pub(crate) const DUMP: usize = 5;
}

/// Bytes of the template: a bound, checked by the assembler.
const DETOUR_SIZE: usize = 704;

/// Bytes from one 32-bit stub to the next: PUSH imm8, JMP rel32.
const STUB_SIZE: u64 = 7;

/// The vectors for which the processor pushes an error code (SDM Vol. 3A, 7.3.1; AMD APM Vol. 2, 8.2): 8, 10 to 14, 17, 21, 29, 30.
const ERROR_CODE_VECTORS: u32 = 1 << 8 | 0x1f << 10 | 1 << 17 | 1 << 21 | 1 << 29 | 1 << 30;

/// The 32-bit interrupt gates of the handlers of a copy of [`DETOUR`] at `copy`, which lies below 4 GiB (SDM Vol. 3A, 7.11).
pub(crate) fn gates(copy: u64) -> [u64; 32] {
    const PRESENT_INTERRUPT_GATE: u64 = 0x8e << 40;
    core::array::from_fn(|vector| {
        let offset = copy + DETOUR.offset(label::STUBS) as u64 + vector as u64 * STUB_SIZE;
        offset & 0xffff
            | u64::from(DebugFrame::CODE32_SELECTOR) << 16
            | PRESENT_INTERRUPT_GATE
            | (offset >> 16 & 0xffff) << 48
    })
}

page_code! {
    /// The detour.
    pub static DETOUR: [DETOUR_SIZE];
    labels {
        40: Code64 "switch_levels",
        41: Code32 "without_paging",
        42: Code64 "switched",
        43: Code32 "stubs32",
        44: Code32 "handler32",
        45: Code64 "dump32",
    }
    asm {
        // switch_levels: in the code frame, under the transition map, the debug frame's GDT and TSS in force.
        //   in   rbx = the control block; rdi = the new CR3, below 4 GiB; rsi = the new CR4; rsp below 4 GiB
        //   out  rbx, rsp as they were; the identity debug tables in force
        //   clobbers the other registers, but for their upper halves as the processor pleases, and the flags
        "40:",
        "endbr64",
        // No single step: a #DB at the boundaries where IDT and mode do not match would be lost.
        "pushfq",
        "push {rflags_clear}",
        "popfq",
        "lea rdx, [rip + 42f]",
        "lea rcx, [rip + 41f]",
        "push {code32_selector}",
        "push rcx",
        "retfq",

        "41:", // 32-bit compatibility mode
        ".code32",
        "mov eax, cr0",
        "and eax, {not_paging}",
        "mov ecx, [ebx + {debug}]",
        // The one boundary after it has the 32-bit IDT in long mode; the one after paging is on again, too.
        "lidt [ebx + {idt32r}]",
        "mov cr0, eax",
        "mov cr4, esi",
        "mov cr3, edi",
        "or eax, {paging}",
        "mov cr0, eax",
        "lidt [ecx + {idtr}]",
        "push {code_selector}",
        "push edx",
        "retf",
        ".code64",

        "42:",
        "mov ebx, ebx", // upper halves are undefined after 32-bit mode (SDM Vol. 1, 3.4.1.1)
        "mov esp, esp",
        "popfq",
        "ret",

        // The handlers. ebx is the control block wherever they can be entered from.
        "43:",
        ".code32",
        ".irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, \
                      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "push \\vector",
        "{{disp32}} jmp 44f", // all of one size, so that a stub is found by its number
        ".endr",

        // handler32: counts #DB and NMI, and returns; brings everything else to the dumper.
        //   in   [esp] = vector, then the error code if there is one, eip, cs, eflags
        "44:",
        "cld",
        "pushad", // edi 0, esi 4, ebp 8, esp 12, ebx 16, edx 20, ecx 24, eax 28; vector 32
        "mov edi, [ebx + {debug}]",
        "mov ecx, [esp + 32]",
        "lea eax, [ecx - 1]",
        "cmp eax, 1",
        "ja 2f",
        "add dword ptr [edi + eax * 8 + {counters}], 1",
        "adc dword ptr [edi + eax * 8 + {counters} + 4], 0",
        "popad",
        "add esp, 4",
        "iretd",

        "2:",
        // A `Captured`, from its start; ebp = eip's slot.
        "add edi, {captured}",
        "lea ebp, [esp + 36]",
        "or edx, -1", // the error code, if there is none
        "mov eax, {error_code_vectors}",
        "bt eax, ecx",
        "jnc 3f",
        "mov edx, [ebp]",
        "add ebp, 4",
        "3:",
        "push edx",
        "mov eax, cr0",
        "call 7f",
        "mov eax, cr2",
        "call 7f",
        "mov eax, cr3",
        "call 7f",
        "mov eax, cr4",
        "call 7f",
        "xor eax, eax", // CR8 is out of reach
        "call 7f",
        "mov ecx, {ia32_efer}",
        "rdmsr",
        "call 7f",
        "mov eax, ds",
        "call 7f",
        "mov eax, es",
        "call 7f",
        "mov eax, fs",
        "call 7f",
        "mov eax, gs",
        "call 7f",
        "mov eax, [esp + 4 + 28]", // rax, rbx, rcx, rdx, rsi, rdi, rbp
        "call 7f",
        "mov eax, [esp + 4 + 16]",
        "call 7f",
        "mov eax, [esp + 4 + 24]",
        "call 7f",
        "mov eax, [esp + 4 + 20]",
        "call 7f",
        "mov eax, [esp + 4 + 4]",
        "call 7f",
        "mov eax, [esp + 4]",
        "call 7f",
        "mov eax, [esp + 4 + 8]",
        "call 7f",
        "mov ecx, 2 * 8", // r8 to r15
        "xor eax, eax",
        "rep stosd",
        "pop eax",
        "cmp eax, -1",
        "je 4f",
        "call 7f",
        "jmp 5f",
        "4:",
        "stosd",
        "stosd",
        "5:",
        "mov eax, [esp + 32]", // vector, rip, cs, rflags, rsp, ss
        "call 7f",
        "mov eax, [ebp]",
        "call 7f",
        "mov eax, [ebp + 4]",
        "call 7f",
        "mov eax, [ebp + 8]",
        "call 7f",
        "lea eax, [ebp + 12]",
        "call 7f",
        "mov eax, ss",
        "call 7f",
        // Back to long mode as it was before the first switch: that pair of CR4 and CR3 has been in force.
        "mov eax, cr0",
        "and eax, {not_paging}",
        "mov cr0, eax",
        "mov ecx, [ebx + {cr4}]",
        "mov cr4, ecx",
        "mov ecx, [ebx + {low_cr3}]",
        "mov cr3, ecx",
        "or eax, {paging}",
        "mov edi, [ebx + {debug}]",
        "mov cr0, eax",
        "lidt [edi + {idtr}]",
        "lea esi, [edi + {captured}]",
        "push {code_selector}",
        "push [ebx + {dump32}]",
        "retf",
        "7:", // eax as 64 bits
        "stosd",
        "xor eax, eax",
        "stosd",
        "ret",
        ".code64",

        "45:",
        "mov ebx, ebx",
        "mov edi, edi",
        "mov esi, esi",
        "jmp [rbx + {fatal}]",
    }
    operands {
        code_selector = const DebugFrame::CODE_SELECTOR,
        code32_selector = const DebugFrame::CODE32_SELECTOR,
        idtr = const DebugFrame::IDTR,
        counters = const DebugFrame::COUNTERS + offset_of!(Counters, debug),
        captured = const DebugFrame::CAPTURED,
        idt32r = const offset_of!(Control, idt32r) + offset_of!(Descriptor, limit),
        debug = const offset_of!(Control, debug),
        cr4 = const offset_of!(Control, cr4),
        low_cr3 = const offset_of!(Control, low_cr3),
        dump32 = const offset_of!(Control, dump32),
        fatal = const offset_of!(Control, fatal),
        paging = const cr0::PG as u32 as i32,
        not_paging = const !(cr0::PG as u32) as i32,
        error_code_vectors = const ERROR_CODE_VECTORS,
        ia32_efer = const IA32_EFER,
        rflags_clear = const RFLAGS_CLEAR,
    }
}

// The handlers count by vector, and fill the block from its start.
static_assertions::const_assert_eq!(offset_of!(Counters, nmi), offset_of!(Counters, debug) + 8);
static_assertions::const_assert_eq!(offset_of!(Captured, efer), 5 * 8);
static_assertions::const_assert_eq!(offset_of!(Captured, rax), 10 * 8);
static_assertions::const_assert_eq!(offset_of!(Captured, r8), 17 * 8);
static_assertions::const_assert_eq!(offset_of!(Captured, error), 25 * 8);
static_assertions::const_assert_eq!(offset_of!(Captured, ss), 31 * 8);
static_assertions::const_assert!(ControlFrame::GATES + 32 * 8 <= 4096);
