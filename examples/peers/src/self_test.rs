//! What Linux's self-test of kexec does (Linux 7615b94b6371), in one page: `int3`, name the other entry, return.

kexec_abi::page_code! {
    /// Two entry points that name each other. Each counts its calls in `calls`, and stops with #UD where the contract is broken.
    pub static SELF_TEST: [4096];
    labels {
        20: Code64 "first",
        21: Code64 "second",
        22: Code64 "common",
        23: Data "calls",
    }
    asm {
        "20:",
        "endbr64",
        "lea rdx, [rip + 20b]",
        "lea rsi, [rip + 21f]",
        "lea rdi, [rip + 23f]",
        "jmp 22f",

        "21:",
        "endbr64",
        "lea rdx, [rip + 21b]",
        "lea rsi, [rip + 20b]",
        "lea rdi, [rip + 23f + 8]",

        // rdx = this entry, rsi = the other one, rdi = where to count
        "22:",
        "cmp [rsp + 8], rdx",
        "je 2f",
        "ud2",
        "2:",
        "int3",
        "inc qword ptr [rdi]",
        "mov [rsp + 8], rsi",
        "ret",

        ".p2align 3, 0xcc",
        "23:",
        ".quad 0, 0",
    }
}
