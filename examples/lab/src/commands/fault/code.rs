//! Code that is run elsewhere: the faults, small kernels, and a console with a fault of its own.

use hobby::fault;
use kexec_abi::{Console, ConsoleConfig, page_code};
use kexec_exception::page_code::DebugFrame;

page_code! {
    /// The faults by their names, and small kernels.
    static CODE: [1536];
    labels {
        20: Code64 "divide",
        21: Code64 "debug",
        22: Code64 "nmi",
        23: Code64 "breakpoint",
        24: Code64 "undefined",
        25: Code64 "not-available",
        26: Code64 "double-fault",
        27: Code64 "tss",
        28: Code64 "not-present",
        29: Code64 "bad-ss",
        30: Code64 "non-canonical",
        31: Code64 "non-canonical-jump",
        32: Code64 "bad-selector",
        33: Code64 "vector-above-31",
        35: Code64 "unmapped-read",
        36: Code64 "unmapped-write",
        37: Code64 "read-only",
        38: Code64 "no-execute",
        39: Code64 "reserved-bit",
        40: Code64 "bad-rsp",
        41: Code64 "x87",
        42: Code64 "machine-check",
        43: Code64 "own-gdt",
        44: Code64 "done",
        45: Code64 "return",
    }
    asm {
        "20:", fault!("divide"),
        "21:", fault!("debug"),
        "22:", fault!("nmi"),
        "23:", fault!("breakpoint"),
        "24:", fault!("undefined"),
        "25:", fault!("not-available"),
        "26:", fault!("double-fault"),
        "27:", fault!("tss"),
        "28:", fault!("not-present"),
        "29:", fault!("bad-ss"),
        "30:", fault!("non-canonical"),
        "31:", fault!("non-canonical-jump"),
        "32:", fault!("bad-selector"),
        "33:", fault!("vector-above-31"),
        "35:", fault!("unmapped-read"),
        "36:", fault!("unmapped-write"),
        "37:", fault!("read-only"),
        "38:", fault!("no-execute"),
        "39:", fault!("reserved-bit"),
        "40:", fault!("bad-rsp"),
        "41:", fault!("x87"),
        "42:", fault!("machine-check"),

        // own-gdt: a kernel's first steps, as Linux takes them: its own stack and GDT, and no IDT yet. At the start of a page, with
        // another page behind it; whatever is copied right behind it comes next.
        "43:",
        "lea rsp, [rip + 43b + 0x2000]",
        "lea rax, [rip + 2f]",
        "sub rsp, 16",
        "mov word ptr [rsp + 6], 16 * 8 - 1",
        "mov [rsp + 8], rax",
        "lgdt [rsp + 6]",
        "lea rax, [rip + 3f]",
        "push 0x10",
        "push rax",
        "retfq",
        "2:",
        ".quad 0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff",
        ".fill 12, 8, 0", // slots up to 0x78, as the debug GDT has them
        "3:",
        "mov eax, 0x18",
        "mov ds, eax",
        "mov es, eax",
        "mov ss, eax",

        // done: isa-debug-exit.
        "44:",
        "mov eax, {success}",
        "out 0xf4, eax",
        "2: cli",
        "hlt",
        "jmp 2b",

        // return: a callee with nothing to do.
        "45:",
        "endbr64",
        "ret",
    }
    operands {
        nmi = const DebugFrame::COUNTERS + 8, // the second of the counters
        success = const hobby::exit::SUCCESS,
    }
}

/// The code of a fault.
pub enum Faulty {
    /// Of the piece above.
    Code(&'static [u8]),
    /// An `int`.
    Int([u8; 2]),
}

impl Faulty {
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Code(code) => code,
            Self::Int(int) => int,
        }
    }
}

/// The code of the fault of that name; `int-N` is an `int` of that vector.
pub fn of(cause: &str) -> Option<Faulty> {
    match cause.strip_prefix("int-") {
        Some(vector) => vector.parse().ok().map(|vector| Faulty::Int([0xcd, vector])),
        None => Some(Faulty::Code(region(cause))).filter(|faulty| !faulty.bytes().is_empty()),
    }
}

/// The code of that name; empty if there is none.
pub fn region(name: &str) -> &'static [u8] {
    let region = CODE.regions().find(|region| region.name == name);
    region.and_then(|region| CODE.bytes().get(region.start..region.end)).unwrap_or_default()
}

page_code! {
    /// Writes to COM1, but for one byte in the middle of a dump: there it faults, once. The block: how many bytes are left till then.
    static FAULTS_ONCE: [64];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "dec qword ptr [rdi]",
        "jnz 2f",
        "ud2",
        "2:",
        "mov edx, 0x3fd",
        "3:",
        "in al, dx",
        "test al, 0x20",
        "jz 3b",
        "mov edx, 0x3f8",
        "mov eax, esi",
        "out dx, al",
        "ret",
    }
}

/// A console of this kernel's own, which faults after 1000 bytes.
pub fn console_that_faults() -> Console {
    let mut config = ConsoleConfig([0; 64]);
    config.0[..8].copy_from_slice(&1000_u64.to_le_bytes());
    Console { code: &FAULTS_ONCE, config, mmio: None, live: None }
}
