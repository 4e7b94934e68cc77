//! Images to be called, and to be jumped to.

use std::mem::offset_of;

use kexec_abi::PAGE_SIZE;
use kexec_abi::page_code::PageCode;

/// What a callee does, and what it saw: the words at the end of its first page, in this order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Block {
    /// Written by the callee: RSP, the words at it and 8 above it, all other general registers ORed together, and RFLAGS.
    pub(crate) rsp: u64,
    pub(crate) stack: [u64; 2],
    pub(crate) registers: u64,
    pub(crate) flags: u64,
    /// How often it was called.
    pub(crate) calls: u64,
    /// The entry that it names for the next call.
    pub(crate) next: u64,
    /// An MSR and its new value, written before all that follows if the number is not 0.
    pub(crate) msr: u64,
    pub(crate) msr_value: u64,
    /// Loaded before it returns, in this order, each if not 0. EFER and CR0 are ANDed with the value.
    pub(crate) cr4: u64,
    pub(crate) cr3: u64,
    pub(crate) efer_and: u64,
    pub(crate) cr0_and: u64,
    /// Operand of LGDT and LIDT: limits, and bases.
    pub(crate) load_gdt: u64,
    pub(crate) gdt_limit: u64,
    pub(crate) gdt: u64,
    pub(crate) load_idt: u64,
    pub(crate) idt_limit: u64,
    pub(crate) idt: u64,
    /// DS, ES and FS; and CS, if not 0, with which the callee goes on.
    pub(crate) data_selector: u64,
    pub(crate) code_selector: u64,
    /// Loaded last.
    pub(crate) return_flags: u64,
    /// Written to IA32_GS_BASE and IA32_KERNEL_GS_BASE.
    pub(crate) gs_base: u64,
}

/// Where the block lies in the page.
pub(crate) const BLOCK: usize = 2048;

kexec_abi::page_code! {
    /// A callee. Does what its block says.
    static CALLEE: [1024];
    labels { 20: Code64 "callee", 21: Code64 "again" }
    asm {
        "20:",
        "or rbx, rax",
        "or rbx, rcx",
        "or rbx, rdx",
        "or rbx, rsi",
        "or rbx, rdi",
        "or rbx, rbp",
        "or rbx, r8",
        "or rbx, r9",
        "or rbx, r10",
        "or rbx, r11",
        "or rbx, r12",
        "or rbx, r13",
        "or rbx, r14",
        "or rbx, r15",
        "lea rbp, [rip + 20b + {block}]",
        "mov [rbp + {registers}], rbx",
        "mov [rbp + {rsp}], rsp",
        "mov rax, [rsp]",
        "mov [rbp + {stack}], rax",
        "mov rax, [rsp + 8]",
        "mov [rbp + {stack} + 8], rax",
        "pushfq",
        "pop rax",
        "mov [rbp + {flags}], rax",
        "jmp 3f",
        "21:",
        "lea rbp, [rip + 20b + {block}]",
        "3:",
        "inc qword ptr [rbp + {calls}]",
        "mov rax, [rbp + {next}]",
        "mov [rsp + 8], rax",

        "mov rcx, [rbp + {msr}]",
        "test rcx, rcx",
        "jz 2f",
        "mov eax, [rbp + {msr_value}]",
        "xor edx, edx",
        "wrmsr",
        "2:",
        "mov rax, [rbp + {cr4}]",
        "test rax, rax",
        "jz 2f",
        "mov cr4, rax",
        "2:",
        "mov rax, [rbp + {cr3}]",
        "test rax, rax",
        "jz 2f",
        "mov cr3, rax",
        "2:",
        "cmp qword ptr [rbp + {efer_and}], 0",
        "je 2f",
        "mov ecx, 0xc0000080",
        "rdmsr",
        "and eax, [rbp + {efer_and}]",
        "wrmsr",
        "2:",
        "mov rcx, [rbp + {cr0_and}]",
        "test rcx, rcx",
        "jz 2f",
        "mov rax, cr0",
        "and rax, rcx",
        "mov cr0, rax",
        "2:",
        "cmp qword ptr [rbp + {load_gdt}], 0",
        "je 2f",
        "lgdt [rbp + {gdt_limit} + 6]",
        "2:",
        "cmp qword ptr [rbp + {load_idt}], 0",
        "je 2f",
        "lidt [rbp + {idt_limit} + 6]",
        "2:",
        "mov rax, [rbp + {data_selector}]",
        "test rax, rax",
        "jz 2f",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov fs, eax",
        "2:",
        "mov rax, [rbp + {code_selector}]",
        "test rax, rax",
        "jz 2f",
        "push rax",
        "lea rax, [rip + 2f]",
        "push rax",
        "retfq",
        "2:",
        "mov eax, [rbp + {gs_base}]",
        "test eax, eax",
        "jz 2f",
        "mov ecx, 0xc0000101",
        "xor edx, edx",
        "wrmsr",
        "inc ecx",
        "wrmsr",
        "2:",
        "mov rax, [rbp + {return_flags}]",
        "test rax, rax",
        "jz 2f",
        "push rax",
        "popfq",
        "2:",
        "mov rbp, -1",
        "mov rbx, rbp",
        "mov r12, rbp",
        "mov r13, rbp",
        "mov r14, rbp",
        "mov r15, rbp",
        "ret",
    }
    operands {
        block = const BLOCK,
        rsp = const offset_of!(Block, rsp),
        stack = const offset_of!(Block, stack),
        registers = const offset_of!(Block, registers),
        flags = const offset_of!(Block, flags),
        calls = const offset_of!(Block, calls),
        next = const offset_of!(Block, next),
        msr = const offset_of!(Block, msr),
        msr_value = const offset_of!(Block, msr_value),
        efer_and = const offset_of!(Block, efer_and),
        cr3 = const offset_of!(Block, cr3),
        cr4 = const offset_of!(Block, cr4),
        cr0_and = const offset_of!(Block, cr0_and),
        load_gdt = const offset_of!(Block, load_gdt),
        gdt_limit = const offset_of!(Block, gdt_limit),
        load_idt = const offset_of!(Block, load_idt),
        idt_limit = const offset_of!(Block, idt_limit),
        data_selector = const offset_of!(Block, data_selector),
        code_selector = const offset_of!(Block, code_selector),
        return_flags = const offset_of!(Block, return_flags),
        gs_base = const offset_of!(Block, gs_base),
    }
}

kexec_abi::page_code! {
    /// A new kernel that stops at once: its registers are those with which it was entered.
    static KERNEL: [16];
    labels { 20: Code64 "kernel" }
    asm { "20:", "ud2" }
}

/// The page of a callee, which is entered at its start.
pub(crate) fn callee(block: &Block) -> Vec<u8> {
    let mut page = page(&CALLEE);
    // SAFETY: words without padding.
    let bytes = unsafe { std::slice::from_raw_parts((&raw const *block).cast::<u8>(), size_of::<Block>()) };
    page[BLOCK..][..bytes.len()].copy_from_slice(bytes);
    page
}

/// Where a callee can be entered again.
pub(crate) fn again() -> u64 {
    (CALLEE.find("again").unwrap() - CALLEE.offset(0)) as u64
}

/// The page of a new kernel, which is entered at its start.
pub(crate) fn kernel() -> Vec<u8> {
    page(&KERNEL)
}

/// A page that begins with the piece's first label, and ends with something else than zeros.
fn page(piece: &PageCode) -> Vec<u8> {
    let mut page = vec![0x90; PAGE_SIZE as usize];
    let code = &piece.bytes()[piece.offset(0)..];
    page[..code.len()].copy_from_slice(code);
    page
}
