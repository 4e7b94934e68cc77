//! The engine: the page code that makes the transition.
//!
//! One piece, used at two addresses. `enter` and `restore` run where the piece was linked, in the running kernel's text,
//! which the transition map aliases; everything between runs in the copy in the code frame, at its identity address. So the CR3
//! switch needs no executable mapping from the caller.
//!
//! From `enter` to the last `ret`, RBX points to the [control block](crate::control), at the address that the map in force has for
//! it. At every instruction boundary the descriptor tables and the stack in force are mapped; docs/transition.md lists the
//! exceptions, with their reasons.

use core::mem::offset_of;

use kexec_abi::list::{EntryFlags, RUN_SHIFT};
use kexec_abi::{Phase, Progress, page_code};
use kexec_exception::page_code::DebugFrame;

use crate::control::{Constants, Control, Descriptor, Msr, Registers, Saved};

/// The labels that others need, by their index in [`ENGINE`].
pub(crate) mod label {
    /// `extern "sysv64" fn(control: *mut Control) -> u64`, under the running kernel's map.
    pub(crate) const ENTER: usize = 0;
    /// Where `enter` goes on in the code frame.
    pub(crate) const IDENTITY: usize = 1;
    /// Where a callee returns to.
    pub(crate) const REENTER: usize = 3;
    /// Where the way back goes on in the running kernel's text.
    pub(crate) const RESTORE: usize = 4;
    /// The words of [`Constants`](crate::control::Constants), filled in when the piece is copied.
    pub(crate) const CONSTANTS: usize = 8;
}

/// Bytes of the template: a bound, checked by the assembler.
pub(crate) const ENGINE_SIZE: usize = 1136;

/// IA32_EFER (SDM Vol. 4, table 2-2).
pub(crate) const IA32_EFER: u32 = 0xc000_0080;

/// RFLAGS with nothing set but bit 1, which is always 1.
pub(crate) const RFLAGS_CLEAR: u64 = 2;

/// The trap flag in RFLAGS.
pub(crate) const RFLAGS_TF: u64 = 1 << 8;

page_code! {
    /// The engine. Its contracts stand at its labels.
    pub static ENGINE: [ENGINE_SIZE];
    labels {
        20: Code64 "enter",
        21: Code64 "identity",
        22: Code64 "walk",
        23: Code64 "reenter",
        24: Code64 "restore",
        25: Code64 "note",
        26: Code64 "take_debug",
        28: Code64 "load_tss",
        27: Data "constants",
    }
    asm {
        // enter: extern "sysv64" fn(control: *mut Control) -> u64. Under the running kernel's map, at the linked address.
        //   in   rdi = the control block at its live address; CPL 0, IF = 0
        //   out  rax = the callee's next entry point; callee-saved registers and RFLAGS as they were. Does not return
        //        if the image is not to be called.
        "20:",
        "endbr64",
        "pushfq",
        "push rbp",
        "push rbx",
        "push r12",
        "push r13",
        "push r14",
        "push r15",
        "mov rbx, rdi",
        "mov [rbx + {saved_rsp}], rsp",
        // From here on only control frames are touched: the stack may lie in a destination.
        "mov rsi, [rbx + {outgoing}]",
        "lea rsp, [rsi + {stack_top}]",
        // NT, AC, DF off. A handler's IRETQ reloads SS; the running kernel's would mean something else in our GDT, null is
        // taken at CPL 0.
        "push {rflags_clear}",
        "popfq",
        "xor eax, eax",
        "mov ss, eax",
        // Gates of the running kernel's CS, no IST: valid under its GDT and TSS. Then the GDT, which has that selector too.
        "lidt [rsi + {idtr}]",
        "push [rbx + {rflags}]",
        "popfq",
        "lgdt [rsi + {gdtr}]",
        "call 28f",
        "mov eax, {enter_phase}",
        "call 25f",
        // PCID 0, before PCIDE goes: its bits would mean PWT and PCD.
        "mov rax, cr3",
        "and rax, {page_mask}",
        "mov cr3, rax",
        // One write takes PGE away before the first write through the new map, lest a stale global entry be used (Linux
        // d144d8a65286), with LASS before the low half is touched (731d43750cf8), CET while CR0.WP is set, and FRED, from
        // when on the IDT counts.
        "mov rax, [rbx + {cr4}]",
        "mov cr4, rax",
        "mov rax, [rbx + {cr3}]",
        "mov cr3, rax",
        "push {code_selector}",
        "push [rbx + {identity_entry}]",
        "mov rbx, [rbx + {identity}]",
        "retfq",

        // identity: the code frame, the transition map.
        //   in   rbx = the control block at its identity address
        "21:",
        "call 26f",
        "mov rsp, [rbx + {stack}]",
        "mov rax, [rbx + {cr0}]",
        "mov cr0, rax",
        "mov eax, {identity_phase}",
        "call 25f",
        "mov eax, {move_phase}",
        "call 25f",
        "mov rdi, [rbx + {head}]",
        "mov rsi, rbx",
        "mov rdx, [rbx + {preserve}]",
        "call 22f",
        // Serialises, and drops what was cached of the destinations.
        "mov rax, cr3",
        "mov cr3, rax",
        "mov eax, {leave_phase}",
        "call 25f",
        "cmp qword ptr [rbx + {detour}], 0",
        "je 2f",
        "mov rdi, [rbx + {peer_cr3}]",
        "mov rsi, [rbx + {peer_cr4}]",
        "call [rbx + {detour}]",
        "2:",
        "mov rsp, [rbx + {entry_rsp}]",
        "cmp qword ptr [rbx + {preserve}], 0",
        "je 2f",
        // A callee finds its return address at [RSP] and its entry point, which it may overwrite, at [RSP + 8].
        "push [rbx + {entry_rip}]",
        "push [rbx + {reenter_entry}]",
        "2:",
        "push [rbx + {entry_rip}]",
        "mov rdi, [rbx + {entry_rdi}]",
        "mov rsi, [rbx + {entry_rsi}]",
        "mov rdx, [rbx + {entry_rdx}]",
        "mov rcx, [rbx + {entry_rcx}]",
        "xor eax, eax",
        "xor ebx, ebx",
        "xor ebp, ebp",
        "xor r8d, r8d",
        "xor r9d, r9d",
        "xor r10d, r10d",
        "xor r11d, r11d",
        "xor r12d, r12d",
        "xor r13d, r13d",
        "xor r14d, r14d",
        "xor r15d, r15d",
        "push {rflags_clear}",
        "popfq",
        "ret",

        // walk: extern "sysv64" fn(head: u64, progress: *mut Progress, swap: u64). Unprivileged.
        //   in   rdi = the first entry; rsi = where to note the entry at hand; rdx = 0 to copy, else to exchange; DF = 0
        //   uses rax entry, r9 the next entry's address, rdi cursor, rsi source, rcx count, r8 address, r10 progress, r11 swap
        //   clobbers those, rdx and the flags
        "22:",
        "endbr64",
        "mov r10, rsi",
        "mov r11, rdx",
        "mov rax, rdi",
        "xor r9d, r9d",
        "mov [r10 + {at}], r9",
        "jmp 4f",
        "3:", // the next entry
        "mov [r10 + {at}], r9",
        "mov rax, [r9]",
        "add r9, 8",
        "4:",
        "mov [r10 + {entry}], rax",
        // r8 = bits 51:12 of the entry
        "mov r8, rax",
        "shl r8, {above_address}",
        "shr r8, {above_address} + 12",
        "shl r8, 12",
        "test al, {destination}",
        "jz 5f",
        "mov rdi, r8",
        "jmp 3b",
        "5:",
        "test al, {indirection}",
        "jz 6f",
        "mov r9, r8",
        "jmp 3b",
        "6:",
        "test al, {done}",
        "jnz 9f",
        // rcx = quadwords in the run
        "mov rcx, rax",
        "shr rcx, {run_shift}",
        "inc rcx",
        "shl rcx, 9",
        "test al, {source}",
        "jz 8f",
        "mov rsi, r8",
        "test r11, r11",
        "jnz 7f",
        "rep movsq",
        "jmp 3b",
        "7:", // through registers: a swap by three copies would move half as much again
        "mov rax, [rsi]",
        "mov rdx, [rdi]",
        "mov [rdi], rax",
        "mov [rsi], rdx",
        "mov rax, [rsi + 8]",
        "mov rdx, [rdi + 8]",
        "mov [rdi + 8], rax",
        "mov [rsi + 8], rdx",
        "add rsi, 16",
        "add rdi, 16",
        "sub rcx, 2",
        "jnz 7b",
        "jmp 3b",
        "8:",
        "test al, {zero}",
        "jz 3b",
        "xor eax, eax",
        "rep stosq",
        "jmp 3b",
        "9:",
        "xor eax, eax",
        "mov [r10 + {entry}], rax",
        "mov [r10 + {at}], rax",
        "ret",

        // reenter: a callee's `ret` ends here. Nothing is known but that this frame is mapped where it is, and the stack.
        //   in   [rsp] = the next entry point; CPL 0, 64-bit mode
        "23:",
        "endbr64",
        "pop r8",
        "cli",
        "cld",
        // NXE may be off: our map has no-execute entries. Nothing goes off yet: the callee's map may have them, too.
        "mov ecx, {ia32_efer}",
        "rdmsr",
        "mov r9d, [rip + 27f + {efer}]",
        "or r9d, eax",
        "cmp eax, r9d",
        "je 2f",
        "mov eax, r9d",
        "wrmsr",
        "2:",
        "mov rax, [rip + 27f + {constant_cr4}]",
        "mov cr4, rax",
        "mov rax, [rip + 27f + {constant_cr0}]",
        "mov cr0, rax",
        "mov rax, [rip + 27f + {constant_cr3}]",
        "mov cr3, rax",
        "mov rbx, [rip + 27f]",
        "mov rsp, [rbx + {stack}]",
        // A handler's IRETQ reloads CS and SS, and its gate finds its stack through TR: all of our GDT before our IDT counts.
        "mov rsi, [rbx + {debug}]",
        "lgdt [rsi + {gdtr}]",
        "lea rax, [rip + 2f]",
        "push {code_selector}",
        "push rax",
        "retfq",
        "2:",
        "xor eax, eax",
        "mov ss, eax",
        "call 28f",
        "push [rbx + {rflags}]",
        "popfq",
        "lidt [rsi + {idtr}]",
        "call 26f",
        "mov [rbx + {entry_rip}], r8",
        "mov eax, {reenter_phase}",
        "call 25f",
        "mov eax, {move_back_phase}",
        "call 25f",
        "mov rdi, [rbx + {head}]",
        "mov rsi, rbx",
        "mov edx, 1", // only what was exchanged comes back (Linux 4d5f1da98f5e)
        "call 22b",
        "mov eax, {restore_phase}",
        "call 25f",
        "cmp qword ptr [rbx + {detour}], 0",
        "je 2f",
        "mov rdi, [rbx + {low_cr3}]",
        "mov rsi, [rbx + {cr4}]",
        "call [rbx + {detour}]",
        "mov rax, [rbx + {cr3}]", // with the aliases of the running kernel's addresses
        "mov cr3, rax",
        "2:",
        // The debug tables of the running kernel's map: first the GDT, which knows the gates' selectors on both sides.
        "mov rbx, [rbx + {live}]",
        "mov rsi, [rbx + {outgoing}]",
        "lea rsp, [rsi + {stack_top}]",
        "xor eax, eax",
        "mov ss, eax",
        "lgdt [rsi + {gdtr}]",
        "call 28f",
        "lidt [rsi + {idtr}]",
        "movzx eax, word ptr [rbx + {saved_cs}]",
        "push rax",
        "push [rbx + {restore_entry}]",
        "retfq",

        // restore: the linked address again, under the transition map.
        //   in   rbx = the control block at its live address
        "24:",
        // PCID 0 until PCIDE is on again; CR0 with WP before CR4 with CET (SDM Vol. 3A, 2.5).
        "mov rax, [rbx + {saved_cr3}]",
        "and rax, {page_mask}",
        "mov cr3, rax",
        "mov rax, [rbx + {saved_cr0}]",
        "mov cr0, rax",
        "mov rax, [rbx + {saved_cr4}]",
        "mov cr4, rax",
        "mov rax, [rbx + {saved_cr3}]",
        "mov cr3, rax",
        "lgdt [rbx + {return_gdtr}]",
        "movzx eax, word ptr [rbx + {saved_tr}]",
        "test eax, eax",
        "jz 2f",
        "ltr ax",
        "2:",
        "lldt word ptr [rbx + {saved_ldtr}]",
        "lgdt [rbx + {saved_gdtr}]",
        "mov ss, word ptr [rbx + {saved_ss}]",
        "mov ds, word ptr [rbx + {saved_ds}]",
        "mov es, word ptr [rbx + {saved_es}]",
        "mov fs, word ptr [rbx + {saved_fs}]",
        "mov gs, word ptr [rbx + {saved_gs}]",
        // After the selectors, whose loading clears bases. Only what changed: a write may be intercepted, or forbidden.
        "lea rsi, [rbx + {saved_msrs}]",
        "mov edi, [rbx + {saved_msr_count}]",
        "3:",
        "dec edi",
        "js 5f",
        "mov ecx, [rsi]",
        "rdmsr",
        "cmp eax, [rsi + {msr_value}]",
        "jne 4f",
        "cmp edx, [rsi + {msr_value} + 4]",
        "je 6f",
        "4:",
        "mov eax, [rsi + {msr_value}]",
        "mov edx, [rsi + {msr_value} + 4]",
        "wrmsr",
        "6:",
        "add rsi, {msr_size}",
        "jmp 3b",
        "5:",
        "push {rflags_clear}",
        "popfq",
        "lidt [rbx + {saved_idtr}]",
        "mov rsp, [rbx + {saved_rsp}]",
        "mov rax, [rbx + {entry_rip}]",
        "pop r15",
        "pop r14",
        "pop r13",
        "pop r12",
        "pop rbx",
        "pop rbp",
        "popfq",
        "ret",

        // note: notes the phase, and breaks there if asked to.
        //   in   rbx = the control block; eax = the phase
        "25:",
        "mov [rbx + {phase}], rax",
        "bt dword ptr [rbx + {breakpoints}], eax",
        "jnc 2f",
        "int3",
        "2:",
        "ret",

        // take_debug: the debug tables of the identity map.
        //   in   rbx = the control block at its identity address; 16 bytes of stack in use
        //   clobbers rax, rsi, the flags, the table registers, and all data segments and their bases
        "26:",
        "mov rsi, [rbx + {debug}]",
        "lidt [rsi + {idtr}]",
        "lgdt [rsi + {gdtr}]",
        "call 28f",
        "mov eax, {data_selector}",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",
        "mov fs, eax",
        "mov gs, eax",
        "xor eax, eax",
        "lldt ax",
        "ret",

        // load_tss: TR for the debug frame whose GDT is in force.
        //   in   rsi = the debug frame
        //   clobbers eax, the flags
        "28:",
        "and byte ptr [rsi + {tss_access}], {not_busy}", // a busy TSS cannot be loaded, and it is since the last time
        "mov eax, {tss_selector}",
        "ltr ax",
        "ret",

        ".p2align 3, 0xcc",
        "27:",
        ".quad 0, 0, 0, 0, 0",
    }
    operands {
        saved_rsp = const offset_of!(Control, saved) + offset_of!(Saved, rsp),
        saved_cr0 = const offset_of!(Control, saved) + offset_of!(Saved, cr0),
        saved_cr3 = const offset_of!(Control, saved) + offset_of!(Saved, cr3),
        saved_cr4 = const offset_of!(Control, saved) + offset_of!(Saved, cr4),
        saved_gdtr = const offset_of!(Control, saved) + offset_of!(Saved, gdtr) + LIMIT,
        saved_idtr = const offset_of!(Control, saved) + offset_of!(Saved, idtr) + LIMIT,
        return_gdtr = const offset_of!(Control, saved) + offset_of!(Saved, return_gdtr) + LIMIT,
        saved_tr = const offset_of!(Control, saved) + offset_of!(Saved, tr),
        saved_ldtr = const offset_of!(Control, saved) + offset_of!(Saved, ldtr),
        saved_cs = const offset_of!(Control, saved) + offset_of!(Saved, cs),
        saved_ss = const offset_of!(Control, saved) + offset_of!(Saved, ss),
        saved_ds = const offset_of!(Control, saved) + offset_of!(Saved, ds),
        saved_es = const offset_of!(Control, saved) + offset_of!(Saved, es),
        saved_fs = const offset_of!(Control, saved) + offset_of!(Saved, fs),
        saved_gs = const offset_of!(Control, saved) + offset_of!(Saved, gs),
        saved_msr_count = const offset_of!(Control, saved) + offset_of!(Saved, msr_count),
        saved_msrs = const offset_of!(Control, saved) + offset_of!(Saved, msrs),
        msr_value = const offset_of!(Msr, value),
        msr_size = const size_of::<Msr>(),
        identity = const offset_of!(Control, identity),
        live = const offset_of!(Control, live),
        outgoing = const offset_of!(Control, outgoing),
        debug = const offset_of!(Control, debug),
        stack = const offset_of!(Control, stack),
        identity_entry = const offset_of!(Control, identity_entry),
        restore_entry = const offset_of!(Control, restore_entry),
        reenter_entry = const offset_of!(Control, reenter_entry),
        head = const offset_of!(Control, head),
        preserve = const offset_of!(Control, preserve),
        breakpoints = const offset_of!(Control, breakpoints),
        rflags = const offset_of!(Control, rflags),
        cr0 = const offset_of!(Control, cr0),
        cr3 = const offset_of!(Control, cr3),
        cr4 = const offset_of!(Control, cr4),
        detour = const offset_of!(Control, detour),
        peer_cr3 = const offset_of!(Control, peer_cr3),
        peer_cr4 = const offset_of!(Control, peer_cr4),
        low_cr3 = const offset_of!(Control, low_cr3),
        entry_rip = const offset_of!(Control, entry) + offset_of!(Registers, rip),
        entry_rsp = const offset_of!(Control, entry) + offset_of!(Registers, rsp),
        entry_rdi = const offset_of!(Control, entry) + offset_of!(Registers, rdi),
        entry_rsi = const offset_of!(Control, entry) + offset_of!(Registers, rsi),
        entry_rdx = const offset_of!(Control, entry) + offset_of!(Registers, rdx),
        entry_rcx = const offset_of!(Control, entry) + offset_of!(Registers, rcx),
        phase = const offset_of!(Control, progress) + offset_of!(Progress, phase),
        entry = const offset_of!(Progress, entry),
        at = const offset_of!(Progress, entry_address),
        efer = const offset_of!(Constants, efer),
        constant_cr0 = const offset_of!(Constants, cr0),
        constant_cr3 = const offset_of!(Constants, cr3),
        constant_cr4 = const offset_of!(Constants, cr4),
        gdtr = const DebugFrame::GDTR,
        idtr = const DebugFrame::IDTR,
        tss_selector = const DebugFrame::TSS_SELECTOR,
        tss_access = const DebugFrame::TSS_ACCESS,
        not_busy = const 0xfd,
        stack_top = const DebugFrame::STACK_TOP,
        code_selector = const DebugFrame::CODE_SELECTOR,
        data_selector = const DebugFrame::DATA_SELECTOR,
        enter_phase = const Phase::Enter as u64,
        identity_phase = const Phase::Identity as u64,
        move_phase = const Phase::Move as u64,
        leave_phase = const Phase::Leave as u64,
        reenter_phase = const Phase::Reenter as u64,
        move_back_phase = const Phase::MoveBack as u64,
        restore_phase = const Phase::Restore as u64,
        destination = const EntryFlags::DESTINATION.bits(),
        indirection = const EntryFlags::INDIRECTION.bits(),
        done = const EntryFlags::DONE.bits(),
        source = const EntryFlags::SOURCE.bits(),
        zero = const EntryFlags::ZERO.bits(),
        run_shift = const RUN_SHIFT,
        above_address = const 64 - RUN_SHIFT,
        page_mask = const !0xfff_i64,
        rflags_clear = const RFLAGS_CLEAR,
        ia32_efer = const IA32_EFER,
    }
}

/// An operand of `lgdt` and `lidt` begins at the limit.
const LIMIT: usize = offset_of!(Descriptor, limit);
