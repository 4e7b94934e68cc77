//! Logs of the test kernel in QEMU, with plan and dump: what a person is told about them without the kernels' files.

mod common;

use std::path::Path;

use common::assert_says;
use kexec_decode::Dump;
use kexec_decode::dump::State;

fn saved(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/logs").join(name)).unwrap()
}

fn explained(name: &str) -> String {
    let [report] = &kexec_decode::explain(&saved(name), Vec::new(), None)[..] else {
        panic!("one dump in {name}")
    };
    report.to_string()
}

#[test]
fn the_checksum_that_a_machine_printed_is_right() {
    for name in ["qemu-source-that-is-not-there.log", "qemu-fault-in-the-second-kernel.log"] {
        let found = Dump::find_all(&saved(name));
        assert_eq!(found.iter().map(|found| &found.state).collect::<Vec<_>>(), [&State::Complete], "{name}");
    }
}

#[test]
fn a_source_that_is_not_there_is_traced_to_the_entry_of_the_list() {
    assert_says(
        &explained("qemu-source-that-is-not-there.log"),
        &[
            "#PF page fault, vector 14",
            "error code 0x0: read by the supervisor, page not present",
            "label `walk`",
            "rep movsq [rdi], [rsi]",
            "CR2 0x40000000000: page 1 of 1 of the source at hand",
            "operand [rdi] is at 0x400000: destination, segment 0 (0x400000..0x402000) + 0x0, content",
            "as the plan intended: it maps nothing there",
            "entry 1 of its frame",
            "SOURCE: one page from 0x40000000000..0x40000001000 to the cursor",
            "the plan does not map 0x40000000000",
            "returns to piece ENGINE",
        ],
    );
}

#[test]
fn a_fault_in_a_new_kernel_is_traced_to_its_segment() {
    assert_says(
        &explained("qemu-fault-in-the-second-kernel.log"),
        &[
            "error code 0x2: write by the supervisor, page not present",
            "phase leave",
            "RIP 0x80210e3: destination, segment 2 (0x8013000..0x803b000) + 0xe0e3, content",
            "=> 0x80210e3: mov [rax], rax",
            "CR2 0x6eeedeadb000: in no segment, source or control frame of the plan",
            "the walk ends at the PML4E, which is not present: nothing is mapped in 0x6e8000000000..0x6f0000000000",
        ],
    );
}

#[test]
fn a_console_that_faulted_is_named_and_the_rest_is_told() {
    assert_says(
        &explained("qemu-fault-in-the-dumper.log"),
        &[
            "ended by a fault of the dumper",
            "CR2 0x6eeedeadb000",
            "the dumper itself was stopped by #UD invalid opcode",
            "piece FAULTS_ONCE + 0x11, label `put_byte` + 0x9",
        ],
    );
}
