//! A writer of dumps, made from docs/dump-format.md alone, and the plan of a transition.

#![allow(dead_code, reason = "each test binary uses what it needs")]

/// The names of the lines, in the order of the documentation.
const ORDER: &[&str] = &[
    "error",
    "vector",
    "rip",
    "cs",
    "rflags",
    "rsp",
    "ss",
    "cr0",
    "cr2",
    "cr3",
    "cr4",
    "cr8",
    "efer",
    "ds",
    "es",
    "fs",
    "gs",
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rsi",
    "rdi",
    "rbp",
    "r8",
    "r9",
    "r10",
    "r11",
    "r12",
    "r13",
    "r14",
    "r15",
    "debug",
    "nmi",
    "breakpoint",
    "phase",
    "entry",
    "entry_address",
    "code_frame",
    "bytes",
    "stack0",
    "stack1",
    "stack2",
    "stack3",
    "stack4",
    "stack5",
    "stack6",
    "stack7",
    "pml5e",
    "pml4e",
    "pdpte",
    "pde",
    "pte",
];
const OPTIONAL: &[&str] = &["error", "pml5e", "pml4e", "pdpte", "pde", "pte"];

pub(crate) struct Writer {
    values: Vec<(&'static str, String)>,
}

impl Writer {
    /// An exception in the code frame at 0x7f3a000, while a list was walked under the tables at 0x7f30000.
    pub(crate) fn new(vector: u64) -> Self {
        let mut writer = Writer { values: Vec::new() };
        for name in ORDER.iter().filter(|name| !OPTIONAL.contains(name)) {
            writer = writer.set(name, 0);
        }
        writer
            .set("vector", vector)
            .set("rip", 0x7f3_a1c4)
            .set("rsp", 0x7f3_bf40)
            .set("rflags", 0x1_0046)
            .set("cs", 0x10)
            .set("cr0", 0x8001_0033)
            .set("cr3", 0x7f3_0000)
            .set("cr4", 0x60)
            .set("efer", 0xd00)
            .set("phase", 3)
            .set("code_frame", 0x7f3_a000)
            .text("bytes", "f348a54889d8c3cccccccccccccccccc")
    }

    pub(crate) fn page_fault(error: u64, cr2: u64) -> Self {
        Self::new(14).set("error", error).set("cr2", cr2)
    }

    pub(crate) fn set(self, name: &str, value: u64) -> Self {
        self.text(name, &format!("{value:016x}"))
    }

    pub(crate) fn text(mut self, name: &str, value: &str) -> Self {
        let name = ORDER.iter().find(|known| **known == name).expect("a name of the documentation");
        self.values.retain(|(old, _)| old != name);
        self.values.push((name, value.to_owned()));
        self
    }

    /// The dump as it goes over the wire.
    pub(crate) fn print(&self) -> String {
        let line = |name: &&str| {
            let (_, value) = self.values.iter().find(|(set, _)| set == name)?;
            Some(format!("{name}={value}\r\n"))
        };
        let body: String = ORDER.iter().filter_map(line).collect();
        let crc = crc32(body.as_bytes());
        format!("\r\nkexec-dump begin version=1\r\n{body}kexec-dump end crc32={crc:08x}\r\n")
    }
}

/// Bit by bit, as the documentation says it.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

/// The plan of a copy to two segments, as a kernel's log shows it.
pub(crate) const PLAN: &str = "first: plan: version 1\r
first: plan: mode copy  levels 4  entry 0x100000\r
first: plan: segment 0x100000..0x200000 content 0xfe000 bytes\r
first: plan: segment 0x1000000..0x1400000 content 0x400000 bytes\r
first: plan: pages moved 1270 in-place 8 zero 2\r
first: plan: list head 0x7f40000 frames 3\r
first: plan: tables root 0x7f30000 frames 9\r
first: plan: frame 0x7f3a000 r-x code\r
first: plan: frame 0x7f3b000 rw- control\r
first: plan: frame 0x7f3c000 rw- debug\r
first: plan: piece 0x7f3a000..0x7f3a400 ENGINE\r
first: plan: piece 0x7f3a400..0x7f3a600 EXCEPTION\r
first: plan: label 0x7f3a010..0x7f3a180 ENGINE enter\r
first: plan: label 0x7f3a180..0x7f3a2f0 ENGINE walk\r
first: plan: map 0x0..0x9f000 rwx wb\r
first: plan: map 0x100000..0x8000000 rwx wb\r
first: plan: alias 0xffff800000200000..0xffff800000201000 -> 0x5200000 r-x wb\r
first: plan: end\r
";

/// All reports on a log, without kernels.
pub(crate) fn explain(log: &str) -> Vec<String> {
    kexec_decode::explain(log.as_bytes(), Vec::new(), None).iter().map(ToString::to_string).collect()
}

/// The report on the only dump in a log.
pub(crate) fn explain_one(log: &str) -> String {
    let mut reports = explain(log);
    assert_eq!(reports.len(), 1, "one dump in the log");
    reports.remove(0)
}

/// Fails with the whole report if a sentence is missing.
#[track_caller]
pub(crate) fn assert_says(report: &str, sentences: &[&str]) {
    for sentence in sentences {
        assert!(report.contains(sentence), "not said: {sentence}\n---\n{report}");
    }
}
