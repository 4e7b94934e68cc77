//! The piece that prints what was captured. Unprivileged: the host runs it as it is.

use core::mem::offset_of;

use kexec_abi::Progress;

use super::captured::Captured;
use super::frame::Counters;

/// What handlers and dumper work with; the first bytes of a [`DebugFrame`](super::DebugFrame), whose addresses it holds
/// as its view has them.
///
/// # A guarded read
///
/// Before a load that may fault, `fixup` is set to the address of the instruction after it, and CF is cleared; that instruction
/// sets it back to 0. A handler that is entered in between with #SS, #GP or #PF returns there with CF set.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct DumpState {
    /// The entry `dump` of [`DUMP`], or one that does nothing.
    pub dump: u64,
    /// The entry `mark` of [`DUMP`], or one that does nothing.
    pub mark: u64,
    /// The console's entry; see [`Console`](kexec_abi::Console).
    pub put_byte: u64,
    /// The console's block.
    pub console: u64,
    /// The [`Progress`].
    pub progress: u64,
    /// Where physical address 0 is mapped; [`NO_PHYS`](Self::NO_PHYS): nowhere, no walk is printed.
    pub phys_offset: u64,
    /// Reads of port 0x80 before a reset, less one; `u64::MAX`: halt.
    pub wait: u64,
    /// Not 0: debug exceptions are counted, not dumped.
    pub count_debug: u64,
    /// How many exceptions deep the handlers are: 0, 1 (a dump), 2 (the end).
    pub depth: u64,
    /// Where a guarded read that faults goes on; 0: none is under way.
    pub fixup: u64,
    /// How often each vector that is returned from was taken.
    pub counters: Counters,
}

impl DumpState {
    /// What [`phys_offset`](Self::phys_offset) holds when physical memory is not mapped.
    pub const NO_PHYS: u64 = u64::MAX;
}

static_assertions::const_assert_eq!(size_of::<DumpState>(), 104);

kexec_abi::page_code! {
    /// Prints a dump, as docs/dump-format.md describes it. Uses no privileged instruction.
    ///
    /// ```text
    /// extern "sysv64" fn dump(state: *mut DumpState, captured: *const Captured)
    /// extern "sysv64" fn mark(state: *mut DumpState, vector: u64, rip: u64)
    ///   in     DF = 0; 256 bytes of stack, the console's 72 included
    ///   reads  `captured`; and guarded, as its registers say: Progress, 16 bytes at RIP, 8 words at RSP, the tables below CR3
    ///   writes nothing but `state.fixup` and what the console writes
    /// ```
    pub static DUMP: [1152];
    labels {
        20: Code64 "dump",
        21: Code64 "mark",
        22: Code64 "words",
        23: Code64 "word",
        24: Code64 "read",
        25: Code64 "string",
        26: Code64 "hex",
        27: Code64 "newline",
        28: Code64 "put",
        29: Data "text",
    }
    asm {
        // Throughout: rbx = state, rbp = captured, r12 = the text to print next, r13 = the address to read next,
        // r14 = the value at hand, r15d = the CRC so far.
        "20:",
        "endbr64",
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, rdi",
        "mov rbp, rsi",
        "lea r12, [rip + 29f]",
        "call 25f",
        "or r15d, -1", // The CRC begins after the first line.

        "lea r13, [rbp + {error}]",
        "cmp qword ptr [r13], {no_error_code}",
        "jne 2f",
        "add r13, 8",
        "add r12, {error_len}",
        "2:",
        "call 22f",
        "mov r13, rbp",
        "call 22f",
        "lea r13, [rbx + {counters}]",
        "call 22f",
        "mov r13, [rbx + {progress}]",
        "call 22f",

        // 16 bytes at RIP, each out of the aligned word around it, which no page boundary cuts.
        "call 25f",
        "mov r13, [rbp + {rip}]",
        "push 16",
        "2:",
        "mov rsi, r13",
        "and rsi, -8",
        "call 24f",
        "jc 3f",
        "mov ecx, r13d",
        "not ecx",
        "shl ecx, 3", // mod 64: the shift that makes it the highest byte
        "shl rax, cl",
        "mov r14, rax",
        "mov ecx, 2",
        "call 26f",
        "jmp 4f",
        "3:",
        "mov al, '?'",
        "call 28f",
        "mov al, '?'",
        "call 28f",
        "4:",
        "inc r13",
        "dec dword ptr [rsp]",
        "jnz 2b",
        "pop rax",
        "call 27f",

        "mov r13, [rbp + {rsp}]",
        "call 22f",

        // The walk of CR2. On the stack: the lowest bit of the index into the table at hand.
        "push 48",
        "cmp dword ptr [rbp + {vector}], 14",
        "jne 4f",
        "bt dword ptr [rbp + {efer}], 10", // LMA
        "jnc 4f",
        "cmp qword ptr [rbx + {phys_offset}], {no_phys}",
        "je 4f",
        "mov r14, [rbp + {cr3}]",
        "bt dword ptr [rbp + {cr4}], 12", // LA57
        "jc 2f",
        "mov byte ptr [rsp], 39",
        "add r12, {pml5e_len}",
        "2:",
        "mov rax, {address_bits}",
        "and r14, rax",
        "mov ecx, [rsp]",
        "mov r13, [rbp + {cr2}]",
        "shr r13, cl",
        "and r13d, 0x1ff",
        "lea r13, [r14 + r13 * 8]",
        "add r13, [rbx + {phys_offset}]",
        "call 23f",
        "test r14b, 1", // present; where it could not be read, bit 0 of the masked address: 0
        "jz 4f",
        "test r14b, r14b", // a large page, or reserved
        "js 4f",
        "sub dword ptr [rsp], 9",
        "cmp dword ptr [rsp], 12",
        "jae 2b",
        "4:",
        "pop rax",

        "mov r14d, r15d",
        "not r14d",
        "shl r14, 32",
        "lea r12, [rip + 30f]",
        "call 25f",
        "mov ecx, 8",
        "call 26f",
        "2:", // mark ends here, too
        "call 27f",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbp",
        "pop rbx",
        "ret",

        "21:",
        "endbr64",
        "push rbx",
        "push rbp",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, rdi",
        "mov r14, rsi",
        "mov r13, rdx",
        "lea r12, [rip + 31f]",
        "call 25f",
        "mov ecx, 16",
        "call 26f",
        "mov r14, r13",
        "call 25f",
        "mov ecx, 16",
        "call 26f",
        "jmp 2b",

        // Lines, for the names at r12 up to an empty one, with the words at r13.
        "22:",
        "cmp byte ptr [r12], 0",
        "je 2f",
        "call 23f",
        "jmp 22b",
        "2:",
        "inc r12",
        "ret",

        // A line, for the name at r12 with the word at r13. Out: r14 = the word; as it was if that cannot be read.
        "23:",
        "call 25f",
        "mov rsi, r13",
        "add r13, 8",
        "call 24f",
        "jc 2f",
        "mov r14, rax",
        "mov ecx, 16",
        "call 26f",
        "jmp 27f",
        "2:",
        "push r12",
        "lea r12, [rip + 32f]",
        "call 25f",
        "pop r12",
        "jmp 27f",

        // A guarded read: rax = the word at rsi, or CF.
        "24:",
        "lea rax, [rip + 2f]",
        "mov [rbx + {fixup}], rax",
        "clc",
        "mov rax, [rsi]",
        "2:",
        "mov qword ptr [rbx + {fixup}], 0", // MOV leaves CF as it is
        "ret",

        // The string at r12, up to a zero byte. Out: r12 = what follows.
        "25:",
        "mov al, [r12]",
        "inc r12",
        "test al, al",
        "jz 2f",
        "call 28f",
        "jmp 25b",
        "2:",
        "ret",

        // The highest ecx hexadecimal digits of r14; after 16 of them r14 is what it was.
        "26:",
        "rol r14, 4",
        "mov al, r14b",
        "and al, 15",
        "cmp al, 10",
        "jb 2f",
        "add al, 'a' - '0' - 10",
        "2:",
        "add al, '0'",
        "push rcx",
        "call 28f",
        "pop rcx",
        "dec ecx",
        "jnz 26b",
        "ret",

        "27:",
        "mov al, 13",
        "call 28f",
        "mov al, 10",
        // falls through

        // One byte, al, into the CRC and to the console, on a stack aligned as sysv64 wants it.
        "28:",
        "movzx esi, al",
        "xor r15d, esi",
        "mov ecx, 8",
        "2:",
        "shr r15d, 1",
        "jnc 3f",
        "xor r15d, {crc_polynomial}",
        "3:",
        "dec ecx",
        "jnz 2b",
        "push rbp",
        "mov rbp, rsp",
        "and rsp, -16",
        "mov rdi, [rbx + {console}]",
        "call [rbx + {put_byte}]",
        "leave",
        "ret",

        // In the order of printing; an empty string ends a run of names.
        "29:",
        ".asciz \"\\r\\nkexec-dump begin version=1\\r\\n\"",
        ".asciz \"error=\", \"vector=\", \"rip=\", \"cs=\", \"rflags=\", \"rsp=\", \"ss=\", \"\"",
        ".asciz \"cr0=\", \"cr2=\", \"cr3=\", \"cr4=\", \"cr8=\", \"efer=\", \"ds=\", \"es=\", \"fs=\", \"gs=\"",
        ".asciz \"rax=\", \"rbx=\", \"rcx=\", \"rdx=\", \"rsi=\", \"rdi=\", \"rbp=\"",
        ".asciz \"r8=\", \"r9=\", \"r10=\", \"r11=\", \"r12=\", \"r13=\", \"r14=\", \"r15=\", \"\"",
        ".asciz \"debug=\", \"nmi=\", \"breakpoint=\", \"\"",
        ".asciz \"phase=\", \"entry=\", \"entry_address=\", \"code_frame=\", \"\"",
        ".asciz \"bytes=\"",
        ".asciz \"stack0=\", \"stack1=\", \"stack2=\", \"stack3=\", \"stack4=\", \"stack5=\", \"stack6=\", \"stack7=\", \"\"",
        ".asciz \"pml5e=\", \"pml4e=\", \"pdpte=\", \"pde=\", \"pte=\"",
        "30:",
        ".asciz \"kexec-dump end crc32=\"",
        "31:",
        ".asciz \"\\r\\nkexec-dump fault in dumper vector=\", \" rip=\"",
        "32:",
        ".asciz \"unreadable\"",
    }
    operands {
        error = const offset_of!(Captured, error),
        vector = const offset_of!(Captured, vector),
        rip = const offset_of!(Captured, rip),
        rsp = const offset_of!(Captured, rsp),
        cr2 = const offset_of!(Captured, cr2),
        cr3 = const offset_of!(Captured, cr3),
        cr4 = const offset_of!(Captured, cr4),
        efer = const offset_of!(Captured, efer),
        no_error_code = const Captured::NO_ERROR_CODE as i64,
        error_len = const "error=\0".len(),
        pml5e_len = const "pml5e=\0".len(),
        counters = const offset_of!(DumpState, counters),
        progress = const offset_of!(DumpState, progress),
        phys_offset = const offset_of!(DumpState, phys_offset),
        no_phys = const DumpState::NO_PHYS as i64,
        fixup = const offset_of!(DumpState, fixup),
        console = const offset_of!(DumpState, console),
        put_byte = const offset_of!(DumpState, put_byte),
        address_bits = const 0x000f_ffff_ffff_f000_u64, // of CR3 and of an entry: where the table lies
        crc_polynomial = const 0xedb8_8320_u32, // CRC-32, reflected
    }
}

// The names above follow these.
static_assertions::const_assert_eq!(offset_of!(Progress, code), 24);
static_assertions::const_assert_eq!(offset_of!(Counters, breakpoint), 16);
