//! The piece that the gates lead to: it captures, has the dumper print, and goes on, halts or resets. Privileged.

use core::mem::offset_of;

use super::captured::Captured;
use super::dump::DumpState;
use super::frame::DebugFrame;

/// Bytes from one stub to the next: ENDBR64, PUSH imm8, JMP rel32.
pub(super) const STUB_SIZE: u64 = 11;

kexec_abi::page_code! {
    /// The handlers of the 32 exception vectors, for the gates of a [`DebugFrame`].
    ///
    /// - `stubs`: entered by the processor, one stub a vector, on a stack inside the [`DebugFrame`].
    /// - `fatal`: for a machine captured elsewhere: dumps it, then halts or resets as the setup says. Never returns.
    ///   In: 64-bit mode, `rdi` = the [`DebugFrame`], `rsi` = the [`Captured`], DF = 0; any `rsp`.
    /// - `silent`: what stands in for [`DUMP`](super::DUMP) where there is no console.
    pub static EXCEPTION: [896];
    labels {
        20: Code64 "stubs",
        21: Code64 "capture",
        22: Code64 "return",
        23: Code64 "nested",
        24: Code64 "stop",
        25: Code64 "halt",
        26: Code64 "pause",
        27: Code64 "fatal",
        28: Code64 "silent",
    }
    asm {
        "20:",
        ".irp vector, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, \
                      16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
        "endbr64",
        "push \\vector",
        "{{disp32}} jmp 21f", // all of one size, so that a stub is found by its number
        ".endr",

        "21:",
        "cld",
        // In 64-bit mode the processor aligns RSP to 16 before it pushes (SDM Vol. 3A, 7.14.2), so RSP tells whether it pushed
        // an error code: the truth also for `int n`, which never does.
        "test spl, 8",
        "jnz 2f",
        "push [rsp]",
        "mov qword ptr [rsp + 8], {no_error_code}",
        "2:",
        "push rax",
        "push rbx",
        // The stack of the exception: rbx 0, rax 8, vector 16, error 24, rip 32, cs 40, rflags 48, rsp 56, ss 64.
        "mov rbx, rsp",
        "and rbx, -{frame_size}", // the frame; its state lies at its start
        "mov eax, [rsp + 16]",
        "dec eax", // from here to the end of this part: eax = vector - 1
        "cmp eax, 3",
        "jae 3f",
        "inc qword ptr [rbx + rax * 8 + {counters}]", // #DB, NMI, #BP
        "cmp eax, 2 - 1",
        "je 22f", // An NMI changes nothing else, so it may come at any boundary.
        "test eax, eax",
        "jnz 3f",
        "mov rax, [rbx + {depth}]",
        "or rax, [rbx + {count_debug}]",
        "jz 3f",
        "or byte ptr [rsp + 48 + 2], 1", // RF: an instruction breakpoint would be taken again, for ever
        "jmp 22f", // A #DB in the dumper is counted only.
        "3:",
        "cmp qword ptr [rbx + {depth}], 0",
        "jne 23f",
        "mov byte ptr [rbx + {depth}], 1",

        // A `Captured`, pushed from its end, at the top of the dumper's stack.
        "mov rax, rsp",
        "lea rsp, [rbx + {captured} + {captured_size}]",
        "push [rax + 64]",
        "push [rax + 56]",
        "push [rax + 48]",
        "push [rax + 40]",
        "push [rax + 32]",
        "push [rax + 16]",
        "push [rax + 24]",
        "push r15",
        "push r14",
        // Now, since further pushes may reach them: without IST, a machine check at the IRETQ that ends a dump has its frame
        // right below that of the IRETQ, on this very stack.
        "mov r15, [rax]",
        "mov r14, [rax + 8]",
        "push r13",
        "push r12",
        "push r11",
        "push r10",
        "push r9",
        "push r8",
        "push rbp",
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r15",
        "push r14",
        "mov eax, gs",
        "push rax",
        "mov eax, fs",
        "push rax",
        "mov eax, es",
        "push rax",
        "mov eax, ds",
        "push rax",
        "mov ecx, {efer}",
        "rdmsr",
        "shl rdx, 32",
        "or rax, rdx",
        "push rax",
        "mov rax, cr8",
        "push rax",
        "mov rax, cr4",
        "push rax",
        "mov rax, cr3",
        "push rax",
        "mov rax, cr2",
        "push rax",
        "mov rax, cr0",
        "push rax",

        "mov rdi, rbx",
        "mov rsi, rsp",
        "call [rbx + {dump}]",

        "mov eax, [rsp + {vector}]",
        "dec eax",
        "test eax, -3", // zero for #DB and #BP alone
        "jnz 24f",
        "or byte ptr [rsp + {rflags} + 2], 1", // RF
        "mov byte ptr [rbx + {depth}], 0",
        "add rsp, {rax}",
        "pop rax",
        "pop rbx",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "pop rbp",
        "pop r8",
        "pop r9",
        "pop r10",
        "pop r11",
        "pop r12",
        "pop r13",
        "pop r14",
        "pop r15",
        "add rsp, 16",
        "iretq",

        // From the stack of the exception, back.
        "22:",
        "pop rbx",
        "pop rax",
        "add rsp, 16",
        "iretq",

        // An exception at depth 1 or 2, rbx = the frame, eax = vector - 1.
        "23:",
        "cmp qword ptr [rbx + {depth}], 1",
        "jne 25f",
        "cmp qword ptr [rbx + {fixup}], 0",
        "je 2f",
        "sub eax, 12 - 1", // #SS, #GP, #PF: all that a load can raise and be spared
        "cmp eax, 14 - 12",
        "ja 2f",
        "mov rax, [rbx + {fixup}]",
        "mov [rsp + 32], rax",
        "or byte ptr [rsp + 48], 1", // CF
        "jmp 22b",
        "2:",
        "mov byte ptr [rbx + {depth}], 2",
        "mov rdi, rbx",
        "mov rsi, [rsp + 16]",
        "mov rdx, [rsp + 32]",
        "lea rsp, [rbx + {captured}]",
        "call [rbx + {mark}]",

        // The end, rbx = the frame.
        "24:",
        "mov byte ptr [rbx + {depth}], 2", // whatever comes now is not worth another word
        "mov rcx, [rbx + {wait}]",
        "inc rcx",
        "jz 25f",
        "call 26f",
        "mov edx, 0xcf9", // the chipset's reset control register
        "mov al, 2",      // a hard reset …
        "out dx, al",
        "mov al, 6", // … now
        "out dx, al",
        "mov ecx, {reset_pause}",
        "call 26f",
        "mov al, 0xfe", // the keyboard controller: pulse the processor's reset line
        "out 0x64, al",
        "mov ecx, {reset_pause}",
        "call 26f",
        "push 0",
        "push 0",
        "lidt [rsp]", // no IDT: the next exception is a shutdown
        "ud2",

        "25:",
        "cli",
        "hlt",
        "jmp 25b",

        // Reads port 0x80 rcx times, about a microsecond each.
        "26:",
        "in al, 0x80",
        "dec rcx",
        "jnz 26b",
        "ret",

        "27:",
        "endbr64",
        "mov rbx, rdi",
        "lea rsp, [rbx + {captured}]",
        "mov byte ptr [rbx + {depth}], 1",
        "call [rbx + {dump}]",
        "jmp 24b",

        "28:",
        "endbr64",
        "ret",
    }
    operands {
        no_error_code = const Captured::NO_ERROR_CODE as i64,
        frame_size = const size_of::<DebugFrame>(),
        counters = const offset_of!(DumpState, counters),
        depth = const offset_of!(DumpState, depth),
        count_debug = const offset_of!(DumpState, count_debug),
        fixup = const offset_of!(DumpState, fixup),
        dump = const offset_of!(DumpState, dump),
        mark = const offset_of!(DumpState, mark),
        wait = const offset_of!(DumpState, wait),
        captured = const DebugFrame::CAPTURED,
        captured_size = const size_of::<Captured>(),
        vector = const offset_of!(Captured, vector),
        rflags = const offset_of!(Captured, rflags),
        rax = const offset_of!(Captured, rax),
        efer = const 0xc000_0080_u32, // IA32_EFER
        reset_pause = const 0x10000, // about 65 ms: a reset that works has happened by then
    }
}

/// Where the stub of `vector` lies in the piece, in bytes from its start.
pub(super) fn stub(vector: u8) -> u64 {
    EXCEPTION.offset(0) as u64 + STUB_SIZE * u64::from(vector)
}
