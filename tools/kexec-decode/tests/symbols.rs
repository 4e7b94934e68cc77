//! Addresses become functions, files and lines, wherever the kernel was loaded.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{PLAN, Writer, assert_says};
use kexec_decode::{Kernel, explain};
use object::{Object, ObjectSection, ObjectSymbol};
use tempfile::TempDir;

const SOURCE: &str = include_str!("fixture/kernel.rs");
/// Where a kernel that can be loaded anywhere was put.
const BIAS: u64 = 0xffff_8000_0000_0000;

/// Offset of the fixture's `mov [rsi], rax` in its piece: after 12 bytes of offsets, 6 of the first label, ENDBR64 (4) and a
/// `mov` (3).
const PIECE_FAULT: u64 = 12 + 6 + 4 + 3;

struct Fixture {
    _folder: TempDir,
    path: PathBuf,
    file: Vec<u8>,
}

impl Fixture {
    /// Links the fixture at fixed addresses, or so that it can be loaded anywhere.
    fn link(relocatable: bool) -> Self {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("tiny.elf");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixture/kernel.rs");
        let model = if relocatable { "pie" } else { "static" };
        let output = Command::new(std::env::var_os("RUSTC").unwrap_or("rustc".into()))
            .args(["--edition=2024", "--crate-type=bin", "-Cpanic=abort", "-Cdebuginfo=2", "-Copt-level=1"])
            .args([
                &format!("-Crelocation-model={model}"),
                "-Clink-arg=-nostartfiles",
                "-Clink-arg=-nostdlib",
            ])
            .args(["-Clink-arg=-Wl,--no-gc-sections", "-o"])
            .arg(&path)
            .arg(source)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = std::fs::read(&path).unwrap();
        Fixture { _folder: folder, path, file }
    }

    fn symbol(&self, name: &str) -> u64 {
        let object = object::File::parse(&*self.file).unwrap();
        object.symbols().find(|symbol| symbol.name() == Ok(name)).unwrap().address()
    }

    /// The 16 bytes at an address, as a dump has them.
    fn code(&self, address: u64) -> String {
        let object = object::File::parse(&*self.file).unwrap();
        let bytes = object.sections().find_map(|section| section.data_range(address, 16).ok()?).unwrap();
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A page fault of `touch`, called by `_start`, in a kernel loaded `bias` above where it was linked.
    fn fault(&self, bias: u64) -> String {
        let rip = self.symbol("KERNEL_FAULTS_HERE");
        Writer::page_fault(2, 0x40_0000_0000)
            .set("phase", 4)
            .set("rip", rip.wrapping_add(bias))
            .set("rdi", 0x40_0000_0000)
            .set("pml4e", 0)
            .text("bytes", &self.code(rip))
            .set("stack1", self.symbol("RETURNS_HERE").wrapping_add(bias))
            .set("stack2", self.symbol("touch").wrapping_add(bias))
            .print()
    }

    fn explain(&self, log: &str, bias: Option<u64>) -> String {
        let kernel = Kernel::open(&self.path, bias).unwrap();
        explain(log.as_bytes(), vec![kernel], None).pop().unwrap().to_string()
    }
}

/// `kernel.rs:LINE` of the line that says `mark`.
fn line_of(mark: &str) -> String {
    let line = SOURCE.lines().position(|line| line.contains(mark)).unwrap() + 1;
    format!("tests/fixture/kernel.rs:{line}")
}

#[track_caller]
fn assert_names_the_fault(report: &str) {
    assert_says(
        report,
        &[
            "in kernel::poke at ",
            "inlined into touch at ",
            &line_of("the line of the fault"),
            &line_of("poke(address);"),
            "RIP 0x",
            ": touch + 0x1 (tiny.elf)",
            ": push rax\n  => 0x",
            ": mov qword ptr [rdi], 1",
            "operand [rdi] is at 0x4000000000",
            &line_of("the line of the call"),
            "returns to _start + 0x",
            " (tiny.elf), called at ",
        ],
    );
    // The start of a function is in the text, but not behind a call.
    assert_eq!(report.matches("returns to ").count(), 1, "{report}");
    assert_says(report, &[": touch + 0x0 (tiny.elf)"]);
    assert!(!report.contains("With reservations"), "{report}");
}

#[test]
fn a_fault_in_a_kernel_is_traced_to_its_line_through_inlined_calls() {
    let fixture = Fixture::link(false);
    assert_names_the_fault(&fixture.explain(&fixture.fault(0), None));
}

#[test]
fn the_bias_of_a_kernel_is_given_or_printed_or_found_by_its_bytes() {
    let fixture = Fixture::link(true);
    let dump = fixture.fault(BIAS);
    assert_names_the_fault(&fixture.explain(&dump, Some(BIAS)));
    assert_names_the_fault(&fixture.explain(&dump, None));
    let unreadable = dump.replace(&fixture.code(fixture.symbol("KERNEL_FAULTS_HERE")), &"??".repeat(16));
    let printed = format!("tiny: image base {BIAS:#x}\r\n{unreadable}");
    assert_says(&fixture.explain(&printed, None), &[&line_of("the line of the fault")]);
    let entry = fixture.symbol("_start");
    let planned = |base: u64| {
        format!(
            "plan: version 1\nplan: mode copy  levels 4  entry {:#x}\nplan: segment 0x8000000..0x9000000 content 0x1 bytes\n",
            base + entry
        )
    };
    let second = fixture
        .fault(0x800_0000)
        .replace(&fixture.code(fixture.symbol("KERNEL_FAULTS_HERE")), &"??".repeat(16));
    assert_says(
        &fixture.explain(&(planned(0x800_0000) + &second), None),
        &[&line_of("the line of the fault")],
    );
    let elsewhere = fixture.explain(&(planned(0x8ff_f000) + &second), None);
    assert_says(&elsewhere, &["tiny.elf can be loaded anywhere"]);
    let unknown = fixture.explain(&unreadable, None);
    assert_says(
        &unknown,
        &["tiny.elf can be loaded anywhere, and it is not known where it was: give it as tiny.elf@BIAS"],
    );
}

#[test]
fn a_kernel_and_its_bias_are_named_in_one_argument() {
    let fixture = Fixture::link(true);
    let path = fixture.path.display();
    assert_eq!(Kernel::from_argument(&format!("{path}@0xffff800000000000")).unwrap().bias(), Some(BIAS));
    assert_eq!(Kernel::from_argument(&format!("{path}@1000")).unwrap().bias(), Some(0x1000));
    assert_eq!(Kernel::from_argument(&path.to_string()).unwrap().bias(), None);
    assert!(Kernel::from_argument("no-such-kernel@1000").is_err());
}

#[test]
fn a_piece_in_its_template_is_named_by_the_symbol_and_with_a_plan_by_its_label() {
    let fixture = Fixture::link(false);
    let template = fixture.symbol("page_code_reloc_0.1.0_ENGINE");
    let (rip, offset) = (template + PIECE_FAULT, PIECE_FAULT);
    let dump =
        Writer::page_fault(2, 0).set("phase", 1).set("rip", rip).text("bytes", &fixture.code(rip)).print();
    assert_says(
        &fixture.explain(&dump, None),
        &[&format!("page_code_reloc_0.1.0_ENGINE + {offset:#x} (in the template in the kernel's text)")],
    );
    // The labels lie at 12 and 18, behind three offsets, an ENDBR64 and a two-byte instruction.
    let plan = PLAN.replace("0x7f3a010..0x7f3a180 ENGINE enter", "0x7f3a00c..0x7f3a012 ENGINE enter");
    let plan = plan.replace("0x7f3a180..0x7f3a2f0 ENGINE walk", "0x7f3a012..0x7f3a020 ENGINE walk");
    let report = fixture.explain(&format!("{plan}{dump}"), None);
    assert_says(&report, &[&format!("piece ENGINE + {offset:#x}, label `walk` + 0x7 (in the template")]);
    // And the disassembly begins at the label.
    assert_says(&report, &["mov rax, [rdi]\n  => ", ": endbr64\n"]);
}

#[test]
fn a_piece_in_the_code_frame_is_disassembled_from_its_label_with_the_file() {
    let fixture = Fixture::link(false);
    let offset = PIECE_FAULT;
    let code = fixture.code(fixture.symbol("page_code_reloc_0.1.0_ENGINE") + offset);
    let dump = Writer::page_fault(2, 0).set("rip", 0x7f3_a000 + offset).text("bytes", &code).print();
    let plan = PLAN.replace("0x7f3a180..0x7f3a2f0 ENGINE walk", "0x7f3a012..0x7f3a020 ENGINE walk");
    let report = fixture.explain(&format!("{plan}{dump}"), None);
    assert_says(
        &report,
        &[&format!("0x7f3a016: mov rax, [rdi]\n  => 0x{:x}: mov [rsi], rax", 0x7f3_a000 + offset)],
    );
}

#[test]
fn text_that_is_not_the_files_is_noticed() {
    let fixture = Fixture::link(false);
    let code = fixture.code(fixture.symbol("KERNEL_FAULTS_HERE"));
    let overwritten = fixture.fault(0).replace(&code, "0f0b0000000000000000000000000000");
    assert_says(
        &fixture.explain(&overwritten, None),
        &["The bytes at RIP are not those of the file", "=> ", ": ud2", &line_of("the line of the fault")],
    );
}

#[test]
fn a_file_that_is_no_kernel_is_an_error_that_names_it() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("readme.txt");
    std::fs::write(&path, "no ELF").unwrap();
    let error = Kernel::open(&path, None).err().unwrap().to_string();
    assert!(error.contains("readme.txt"), "{error}");
    assert!(Kernel::open(folder.path().join("missing"), None).is_err());
}
