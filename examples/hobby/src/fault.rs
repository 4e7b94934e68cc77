//! Faults on purpose: code that raises an exception by its real cause, wherever it runs.

/// The assembly that raises the exception of that name, as a string literal for `asm!` and `global_asm!`.
///
/// Position-independent, and works at CPL 0 with 64 bytes of stack under descriptor tables that may be written, such as a
/// transition's. What is returned from ends in `ud2`. docs/faults.md says which exception each name raises, and how.
#[macro_export]
macro_rules! fault {
    ("divide") => {
        "xor ecx, ecx; div ecx"
    };
    // DR0 and DR7.G0: an instruction breakpoint.
    ("debug") => {
        "lea rax, [rip + 2f]; mov dr0, rax; mov rax, dr7; or rax, 2; mov dr7, rax; 2: nop; ud2"
    };
    // The dump of the int3 is the sign to inject an NMI. The IDT lies in the frame with the counters: `nmi` is the offset.
    ("nmi") => {
        "int3; sub rsp, 16; sidt [rsp + 6]; mov rax, [rsp + 8]; and rax, -4096; \
         2: pause; cmp dword ptr [rax + {nmi}], 0; je 2b; ud2"
    };
    ("breakpoint") => {
        "int3; ud2"
    };
    ("undefined") => {
        "ud2"
    };
    // CR0.TS
    ("not-available") => {
        "mov rax, cr0; or rax, 8; mov cr0, rax; fnop"
    };
    // The gate of #DE is marked not present: #NP while #DE is delivered.
    ("double-fault") => {
        "sub rsp, 16; sidt [rsp + 6]; mov rax, [rsp + 8]; and byte ptr [rax + 5], 0x7f; xor ecx, ecx; div ecx"
    };
    // The TSS at 0x70 ends after IST4, and the gate of #BP wants IST6.
    ("tss") => {
        "sub rsp, 16; sgdt [rsp + 6]; mov rdx, [rsp + 8]; mov word ptr [rdx + 0x70], 67; \
         and byte ptr [rdx + 0x75], 0xfd; mov eax, 0x70; ltr ax; int3"
    };
    // A data segment at 0x40, not present.
    ("not-present") => {
        "sub rsp, 16; sgdt [rsp + 6]; mov rdx, [rsp + 8]; movabs rax, 0x00cf12000000ffff; mov [rdx + 0x40], rax; \
         mov eax, 0x40; mov fs, eax"
    };
    ("bad-ss") => {
        "sub rsp, 16; sgdt [rsp + 6]; mov rdx, [rsp + 8]; movabs rax, 0x00cf12000000ffff; mov [rdx + 0x40], rax; \
         mov eax, 0x40; mov ss, eax"
    };
    ("non-canonical") => {
        "movabs rax, 0x8000000000000000; mov rax, [rax]"
    };
    ("non-canonical-jump") => {
        "movabs rax, 0x8000000000000000; jmp rax"
    };
    // An empty slot of the GDT.
    ("bad-selector") => {
        "mov eax, 0x28; mov ds, eax"
    };
    ("vector-above-31") => {
        "int 0x40"
    };
    ("unmapped-read") => {
        "movabs rax, 0x6eeedeadb000; mov rax, [rax]"
    };
    ("unmapped-write") => {
        "movabs rax, 0x6eeedeadb000; mov [rax], rax"
    };
    // The page code: where the gate of #DE leads.
    ("read-only") => {
        "sub rsp, 16; sidt [rsp + 6]; mov rdx, [rsp + 8]; movzx eax, word ptr [rdx]; mov ecx, [rdx + 4]; \
         and ecx, 0xffff0000; or eax, ecx; mov ecx, [rdx + 8]; shl rcx, 32; or rax, rcx; mov [rax], eax"
    };
    // The IDT.
    ("no-execute") => {
        "sub rsp, 16; sidt [rsp + 6]; mov rax, [rsp + 8]; jmp rax"
    };
    // Slot 255 of the top-level table; who starts this sets a reserved bit in it.
    ("reserved-bit") => {
        "movabs rax, 0x7f8000000000; mov rax, [rax]"
    };
    ("bad-rsp") => {
        "movabs rsp, 0x6eeedeadb000; push rax"
    };
    // The square root of -1, with that exception unmasked, and CR0.NE.
    ("x87") => {
        "mov rax, cr0; or rax, 0x20; mov cr0, rax; fninit; push 0x37e; fldcw [rsp]; fld1; fchs; fsqrt; fwait"
    };
    // The dump of the int3 is the sign to inject a machine check.
    ("machine-check") => {
        "int3; 2: pause; jmp 2b"
    };
}
