//! A kernel that looks at its faults and goes on: `kexec-exception` alone, without kexec.
//!
//! Four faults on purpose. For each the handler prints the frame, with a register that the faulting code had set, and sees
//! to it that the code goes on: behind an instruction that it skips, or at a place that the code had named.
#![no_std]
#![no_main]

use core::arch::asm;
use core::fmt::{self, Write};
use core::panic::PanicInfo;

use bootloader_api::{BootInfo, entry_point};
use kexec_exception::{Handler, Tables, TrapFrame, Vector};
use uart_16550::Uart16550;

entry_point!(main);

/// What the faulting code leaves in R12.
const MARK: u64 = 0x0123_4567_89ab_cdef;

/// Nothing is mapped there: the boot loader uses the lower half.
const NOWHERE: u64 = 0xffff_9000_dead_b000;

struct Kernel;

impl Handler for Kernel {
    fn handle(frame: &mut TrapFrame) {
        print(format_args!("{frame}"));
        print(format_args!("r12 was {:#018x}\n", frame.r12));
        match frame.vector {
            // Two bytes of ud2.
            Vector::INVALID_OPCODE => frame.rip += 2,
            // RIP is behind the int3 already.
            Vector::BREAKPOINT => {}
            // The code left the place to go on in R13, and for the lost stack its RSP in R14.
            Vector::PAGE_FAULT => frame.rip = frame.r13,
            Vector::DOUBLE_FAULT => (frame.rip, frame.rsp) = (frame.r13, frame.r14),
            _ => exit(0x11),
        }
        frame.rax = u64::from(frame.vector.0);
    }
}

static mut TABLES: Tables = Tables::new();

fn main(_info: &'static mut BootInfo) -> ! {
    let tables = &raw mut TABLES;
    // SAFETY: once, at CPL 0, with interrupts off, as the boot loader leaves them; nothing else names TABLES, which lies in
    // the kernel's writable data for good. 16 KiB suffice to print a frame, and this target has no vector registers.
    unsafe { (*tables).install::<Kernel>() };
    print(format_args!("tables installed\n"));

    let mut seen: u64;
    // SAFETY: the handler skips the ud2 and answers in RAX; all else is as it was.
    unsafe { asm!("ud2", out("rax") seen, in("r12") MARK) };
    check("skipped", Vector::INVALID_OPCODE, seen);

    // SAFETY: the handler answers in RAX; all else is as it was.
    unsafe { asm!("int3", out("rax") seen, in("r12") MARK) };
    check("continued", Vector::BREAKPOINT, seen);

    // SAFETY: the write faults, and the handler goes on at 2.
    unsafe {
        asm!(
            "lea r13, [rip + 2f]",
            "mov [rcx], rcx",
            "2:",
            out("rax") seen, in("rcx") NOWHERE, in("r12") MARK, out("r13") _,
        );
    }
    check("redirected", Vector::PAGE_FAULT, seen);

    // SAFETY: the page fault of the push finds no stack either; the double fault has one of its own, and its handler gives
    // RSP back.
    unsafe {
        asm!(
            "lea r13, [rip + 2f]",
            "mov r14, rsp",
            "mov rsp, rcx",
            "push rcx",
            "2:",
            out("rax") seen, in("rcx") NOWHERE, in("r12") MARK, out("r13") _, out("r14") _,
        );
    }
    check("back on the stack", Vector::DOUBLE_FAULT, seen);

    print(format_args!("all four survived\n"));
    exit(0x10)
}

/// The faulting code's own word that its exception was handled.
fn check(what: &str, vector: Vector, seen: u64) {
    if seen == u64::from(vector.0) {
        print(format_args!("{what} after {vector}\n"));
    } else {
        print(format_args!("{seen} in RAX after {vector}\n"));
        exit(0x11);
    }
}

/// Prints lines, each with the kernel's name before it.
fn print(lines: fmt::Arguments<'_>) {
    let _ = Console { at_line_start: true }.write_fmt(lines);
}

/// COM1, as the firmware left it.
struct Console {
    at_line_start: bool,
}

impl Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // SAFETY: COM1 is where a PC has it; one processor writes to it, and a handler's lines follow the ones that it interrupts.
        let mut uart = unsafe { Uart16550::new_port(0x3f8) }.map_err(|_| fmt::Error)?;
        for line in text.split_inclusive('\n') {
            if self.at_line_start {
                uart.send_bytes_exact(b"exceptions: ");
            }
            let (line, end) = line.strip_suffix('\n').map_or((line, ""), |line| (line, "\r\n"));
            uart.send_bytes_exact(line.as_bytes());
            uart.send_bytes_exact(end.as_bytes());
            self.at_line_start = !end.is_empty();
        }
        Ok(())
    }
}

/// Leaves QEMU through isa-debug-exit; QEMU's exit status is `2 * code + 1`.
fn exit(code: u32) -> ! {
    // SAFETY: the port is isa-debug-exit's, or nobody's; then the processor halts, interrupts off.
    unsafe {
        asm!("out 0xf4, eax", in("eax") code);
        loop {
            asm!("cli", "hlt");
        }
    }
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    print(format_args!("{info}\n"));
    exit(0x11)
}
