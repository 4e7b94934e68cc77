//! Callees that return in bad shape: one page of them, and seven more for tables.

/// Bits of EFER.
const SCE: u32 = 1 << 0;
const NXE: u32 = 1 << 11;

/// IA32_EFER, and where the segment bases are.
const IA32_EFER: u32 = 0xc000_0080;
const IA32_FS_BASE: u32 = 0xc000_0100;
const IA32_KERNEL_GS_BASE: u32 = 0xc000_0102;

/// DF, NT, IOPL 3, AC and ID in RFLAGS.
const FLAGS: u32 = 1 << 10 | 1 << 14 | 3 << 12 | 1 << 18 | 1 << 21;

/// DE, PGE, PCE, TSD, OSFXSR, OSXMMEXCPT, UMIP and SMEP in CR4.
const CR4: u32 = 1 << 2 | 1 << 3 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 20;

/// EM, TS and AM in CR0.
const CR0: u32 = 1 << 2 | 1 << 3 | 1 << 18;

/// WP in CR0.
const WP: u32 = 1 << 16;

/// LA57 in CR4, by number.
const LA57: u32 = 12;

const CODE: u32 = 0x28;
const DATA: u32 = 0x30;
const TSS: u32 = 0x38;
const TSS_SIZE: u32 = 104;

kexec_abi::page_code! {
    /// An entry for each kind of bad shape, named for it; `all` has all of them but IF. `wait` never returns.
    ///
    /// Loaded on a page boundary below 1 GiB with seven zeroed pages behind it, where `map` puts tables that have this page, the
    /// code frame and the stack, at their own addresses, and nothing else.
    pub static HOSTILE: [4096];
    labels {
        20: Code64 "direction",
        21: Code64 "interrupts",
        22: Code64 "flags",
        23: Code64 "selectors",
        24: Code64 "tables",
        25: Code64 "map",
        26: Code64 "cr4",
        27: Code64 "efer",
        28: Code64 "cr0",
        29: Code64 "bases",
        30: Code64 "registers",
        31: Code64 "all",
        38: Code64 "wait",
        32: Code64 "load_selectors",
        33: Code64 "load_map",
        34: Code64 "map_page",
        35: Data "gdt",
        36: Data "tss",
        37: Data "idtr",
        39: Data "line",
    }
    asm {
        "20:",
        "endbr64",
        "std",
        "ret",

        "21:",
        "endbr64",
        "sti",
        "ret",

        "22:",
        "endbr64",
        "push {flags}",
        "popfq",
        "ret",

        "23:",
        "endbr64",
        "call 32f",
        "ret",

        // A GDT, a TSS, no LDT, and an IDT without a gate.
        "24:",
        "endbr64",
        "call 32f",
        "lea rax, [rip + 36f]",
        "lea rdx, [rip + 35f]",
        "mov [rdx + {tss} + 2], ax",
        "shr rax, 16",
        "mov [rdx + {tss} + 4], al",
        "mov [rdx + {tss} + 7], ah",
        "shr rax, 16",
        "mov [rdx + {tss} + 8], eax",
        "mov byte ptr [rdx + {tss} + 5], 0x89",
        "mov eax, {tss}",
        "ltr ax",
        "xor eax, eax",
        "lldt ax",
        "lidt [rip + 37f + 6]",
        "ret",

        "25:",
        "endbr64",
        "mov r12, [rsp]",
        "call 33f",
        "ret",

        "26:",
        "endbr64",
        "mov rax, cr4",
        "or rax, {cr4}",
        "mov cr4, rax",
        "ret",

        // Without NXE, no-execute bits are reserved ones: so tables without them come first.
        "27:",
        "endbr64",
        "mov r12, [rsp]",
        "4:",
        "call 33f",
        "mov ecx, {ia32_efer}",
        "rdmsr",
        "and eax, {not_nxe}",
        "or eax, {sce}",
        "wrmsr",
        "ret",

        "28:",
        "endbr64",
        "mov rax, cr0",
        "and eax, {not_wp}",
        "or eax, {cr0}",
        "mov cr0, rax",
        "ret",

        "29:",
        "endbr64",
        "mov ecx, {ia32_fs_base}",
        "mov eax, 0x5a5a5a5a",
        "mov edx, 0x5a5a",
        "2:",
        "wrmsr",
        "inc ecx",
        "cmp ecx, {ia32_kernel_gs_base}",
        "jbe 2b",
        "ret",

        "30:",
        "endbr64",
        "mov rax, 0xa5a5a5a5a5a5a5a5",
        "mov rbx, rax",
        "mov rcx, rax",
        "mov rdx, rax",
        "mov rsi, rax",
        "mov rdi, rax",
        "mov rbp, rax",
        "mov r8, rax",
        "mov r9, rax",
        "mov r10, rax",
        "mov r11, rax",
        "mov r12, rax",
        "mov r13, rax",
        "mov r14, rax",
        "mov r15, rax",
        "ret",

        "31:",
        "endbr64",
        "mov r12, [rsp]",
        "call 24b",
        "call 4b",
        "call 26b",
        "call 28b",
        "call 29b",
        "call 22b",
        "jmp 30b",

        // Never returns: says so on COM1, and waits.
        "38:",
        "endbr64",
        "lea rsi, [rip + 39f]",
        "2:",
        "mov dx, 0x3fd",
        "in al, dx",
        "test al, 0x20",
        "jz 2b",
        "lodsb",
        "test al, al",
        "jz 3f",
        "mov dx, 0x3f8",
        "out dx, al",
        "jmp 2b",
        "3:",
        "pause",
        "jmp 3b",

        // Other selectors than any of ours.
        "32:",
        "sub rsp, 16",
        "lea rax, [rip + 35f]",
        "mov [rsp + 8], rax",
        "mov word ptr [rsp + 6], {gdt_limit}",
        "lgdt [rsp + 6]",
        "add rsp, 16",
        "mov eax, {data}",
        "mov ds, eax",
        "mov es, eax",
        "mov fs, eax",
        "mov gs, eax",
        "mov ss, eax",
        "lea rax, [rip + 2f]",
        "push {code}",
        "push rax",
        "retfq",
        "2:",
        "ret",

        // Own tables: of 5 and 4 levels, then 3, 2, and up to three of level 1.
        //   in r12 = an address in the code frame
        "33:",
        "lea rdi, [rip + 20b]",
        "and rdi, -4096",
        "lea rax, [rdi + 0x2003]",
        "mov [rdi + 0x1000], rax",
        "lea rax, [rdi + 0x3003]",
        "mov [rdi + 0x2000], rax",
        "lea rax, [rdi + 0x4003]",
        "mov [rdi + 0x3000], rax",
        "lea r8, [rdi + 0x5000]",
        "mov rsi, rdi",
        "call 34f",
        "mov rsi, r12",
        "call 34f",
        "mov rsi, rsp",
        "call 34f",
        "mov rcx, cr4",
        "lea rax, [rdi + 0x1000]",
        "bt ecx, {la57}",
        "jc 2f",
        "lea rax, [rdi + 0x2000]",
        "2:",
        "mov cr3, rax",
        "ret",

        // rsi = an address below 1 GiB to map at itself, rdi = the first page, r8 = the next free table
        "34:",
        "mov rax, rsi",
        "shr rax, 21",
        "lea rdx, [rdi + rax * 8 + 0x4000]",
        "mov rcx, [rdx]",
        "test rcx, rcx",
        "jnz 2f",
        "lea rcx, [r8 + 3]",
        "mov [rdx], rcx",
        "add r8, 0x1000",
        "2:",
        "and rcx, -4096",
        "mov rax, rsi",
        "shr rax, 12",
        "mov rdx, rax",
        "shl rdx, 12",
        "or rdx, 3",
        "and eax, 511",
        "mov [rcx + rax * 8], rdx",
        "ret",

        ".p2align 3, 0xcc",
        "35:", // code and data at selectors of their own, and room for a TSS
        ".quad 0, 0, 0, 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff, {tss_size} - 1, 0",
        "36:",
        ".fill {tss_size}, 1, 0",
        "37:",
        ".quad 0, 0",
        "39:",
        ".asciz \"peer: waiting\\n\"",
    }
    operands {
        flags = const FLAGS,
        cr4 = const CR4,
        cr0 = const CR0,
        not_wp = const !WP as i32,
        not_nxe = const !NXE as i32,
        sce = const SCE,
        la57 = const LA57,
        ia32_efer = const IA32_EFER,
        ia32_fs_base = const IA32_FS_BASE,
        ia32_kernel_gs_base = const IA32_KERNEL_GS_BASE,
        code = const CODE,
        data = const DATA,
        tss = const TSS,
        tss_size = const TSS_SIZE,
        gdt_limit = const TSS + 16 - 1,
    }
}
