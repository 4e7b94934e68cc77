//! A peer: reports the state in which it is entered, changes its own data, names its other entry point, and returns.
//!
//! Called, it gets the physical address of a [`Report`] in RSI. Entered for good, RSI is 0, and it ends the machine when it has
//! reported. It has no tables of its own and runs on the stack that came with the entry.
#![no_std]
#![no_main]

mod state;

use core::arch::naked_asm;
use core::panic::PanicInfo;

use hobby::{Console, exit};
use peers::Report;

use crate::state::Entered;

const CONSOLE: Console = Console::of("peer");

/// The registers of the last entry.
static mut ENTERED: Entered = Entered::NOTHING;

/// Words that change with each round.
static mut DATA: [u64; 4096] = [1; 4096];

static mut ROUNDS: u64 = 0;

/// The digest of the data as it was left.
static mut LEFT: u64 = 0;

/// Rounds whose entry state is printed.
const PRINTED: u64 = 2;

/// An entry point: takes its registers, then calls `main` with the stack and its own number. In: docs/entry-state.md.
macro_rules! entry {
    ($name:ident, $number:literal) => {
        #[unsafe(no_mangle)]
        #[unsafe(naked)]
        extern "C" fn $name() {
            naked_asm!(
                // `push rax` would change a stack that is part of what is reported.
                "mov [rip + {entered}], rax",
                "lea rax, [rip + {entered}]",
                "mov [rax + 8], rbx",
                "mov [rax + 16], rcx",
                "mov [rax + 24], rdx",
                "mov [rax + 32], rsi",
                "mov [rax + 40], rdi",
                "mov [rax + 48], rbp",
                "mov [rax + 56], rsp",
                "mov [rax + 64], r8",
                "mov [rax + 72], r9",
                "mov [rax + 80], r10",
                "mov [rax + 88], r11",
                "mov [rax + 96], r12",
                "mov [rax + 104], r13",
                "mov [rax + 112], r14",
                "mov [rax + 120], r15",
                "pushfq",
                "pop [rax + 128]",
                "lea rcx, [rip + {name}]",
                "mov [rax + 136], rcx",
                "mov rdi, rsp",
                "mov esi, {number}",
                "sub rsp, 8",
                "call {main}",
                "add rsp, 8",
                "ret",
                entered = sym ENTERED,
                name = sym $name,
                number = const $number,
                main = sym main,
            )
        }
    };
}

entry!(_start, 1);
entry!(second, 2);

extern "sysv64" fn main(stack: &mut [u64; 2], number: u64) {
    let (entered, data, rounds, left) = (&raw const ENTERED, &raw mut DATA, &raw mut ROUNDS, &raw mut LEFT);
    // SAFETY: one processor, with interrupts off, runs this, and nothing else names the statics while it does.
    let (entered, data, rounds, left) = unsafe { (*entered, &mut *data, &mut *rounds, &mut *left) };
    let report = entered.rsi as *mut Report;
    let called = !report.is_null();
    if *rounds < PRINTED {
        writeln!(CONSOLE, "{} at entry {number}", if called { "called" } else { "entered" });
        state::print(&entered, stack, called);
    }
    if !called {
        exit::exit(exit::SUCCESS);
    }

    let digest = |data: &[u64]| Report::digest(data.iter().copied());
    let changed = *rounds > 0 && digest(data) != *left;
    *rounds += 1;
    for (word, index) in data.iter_mut().zip(0..) {
        *word = word.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ (*rounds + index);
    }
    *left = digest(data);
    let last = Report {
        rounds: *rounds,
        data: data.as_ptr() as u64,
        len: size_of_val(data) as u64,
        digest: *left,
        changed: changed.into(),
    };
    // SAFETY: the caller gave a page for it, which the map has.
    unsafe { report.write(last) };
    stack[1] = if number == 1 { second as *const () as u64 } else { _start as *const () as u64 };
}

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    writeln!(CONSOLE, "{info}");
    exit::exit(exit::FAILURE)
}
