//! The stubs of all 256 vectors, run as they are, at CPL 3.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod event;

use std::arch::asm;
use std::cell::Cell;
use std::hint::black_box;

use event::{CF, DF, Event, FREE_FLAGS, Machine, Registers, landing};
use kexec_exception::entry::stub;
use kexec_exception::{Handler, RFlags, TrapFrame, Vector};
use proptest::prelude::*;

/// What a handler saw.
#[derive(Clone, Copy, Debug)]
struct Seen {
    frame: TrapFrame,
    rflags: u64,
    aligned: bool,
}

thread_local! {
    static SEEN: Cell<Option<Seen>> = const { Cell::new(None) };
    /// XORed into the program's registers by `Changer`.
    static PATTERN: Cell<u64> = const { Cell::new(0) };
}

fn note(frame: &TrapFrame) {
    #[repr(align(16))]
    struct Aligned(#[expect(dead_code)] u128);
    let local = Aligned(0);
    let aligned = (black_box(&raw const local) as usize).is_multiple_of(16);
    let rflags: u64;
    // SAFETY: reads the flags.
    unsafe { asm!("pushfq", "pop {}", out(reg) rflags) };
    SEEN.set(Some(Seen { frame: *frame, rflags, aligned }));
}

/// Leaves the frame as it is, and every register that it can in disorder.
struct Observer;

impl Handler for Observer {
    fn handle(frame: &mut TrapFrame) {
        note(frame);
        // SAFETY: all that is clobbered is declared.
        unsafe {
            asm!(
                "mov rax, -1", "mov rcx, -1", "mov rdx, -1", "mov rsi, -1", "mov rdi, -1",
                "mov r8, -1", "mov r9, -1", "mov r10, -1", "mov r11, -1", "stc",
                out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _,
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
    }
}

/// Changes every register, and redirects the program to another place, with another stack and other flags.
struct Changer;

impl Handler for Changer {
    fn handle(frame: &mut TrapFrame) {
        note(frame);
        let pattern = PATTERN.get();
        for register in [
            &mut frame.rax,
            &mut frame.rcx,
            &mut frame.rdx,
            &mut frame.rbx,
            &mut frame.rbp,
            &mut frame.rsi,
            &mut frame.rdi,
            &mut frame.r8,
            &mut frame.r9,
            &mut frame.r10,
            &mut frame.r11,
            &mut frame.r12,
            &mut frame.r13,
            &mut frame.r14,
            &mut frame.r15,
        ] {
            *register ^= pattern;
        }
        frame.rflags ^= RFlags::CF | RFlags::DF;
        frame.rip = landing::<3> as *const () as u64;
        frame.rsp += 64;
    }
}

fn registers() -> impl Strategy<Value = Registers> {
    any::<[u64; 15]>().prop_map(|values| {
        let [rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15] = values;
        Registers { rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
    })
}

fn of_frame(frame: &TrapFrame) -> Registers {
    let TrapFrame { rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, .. } = *frame;
    Registers { rax, rcx, rdx, rbx, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 }
}

/// Intel SDM volume 3, table 7-1, and AMD APM volume 2, table 8-1.
const WITH_ERROR_CODE: [u8; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

/// What the processor pushes for a vector.
fn error_code(vector: u8, value: u64) -> Option<u64> {
    WITH_ERROR_CODE.contains(&vector).then_some(value)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn every_stub_hands_over_all_registers_and_gives_them_back(
        before in registers(), flags: u64, live: u64, code: u32, cr2: u64,
    ) {
        for vector in 0..=255_u8 {
            Machine { cr2, kernel_gs: true, ..Machine::default() }.set();
            let rflags = 0x202 | flags & FREE_FLAGS;
            let mut event = Event::new(before, rflags).with_error_code(error_code(vector, code.into()));
            event.rflags_live = 0x202 | live & FREE_FLAGS;
            let event = event.raise(stub::<Observer>(Vector(vector)));

            let seen = SEEN.take().expect("the handler ran");
            prop_assert_eq!(of_frame(&seen.frame), before);
            prop_assert_eq!(seen.frame.vector, Vector(vector));
            prop_assert_eq!(seen.frame.error_code, error_code(vector, code.into()).unwrap_or(0));
            prop_assert_eq!(
                (seen.frame.rip, seen.frame.cs, seen.frame.rflags.bits(), seen.frame.rsp, seen.frame.ss),
                (event.rip, event.cs, event.rflags, event.rsp, event.ss)
            );
            prop_assert_eq!(seen.frame.page_fault_address(), (vector == 14).then_some(cr2));
            prop_assert_eq!(seen.rflags & DF, 0);
            prop_assert!(seen.aligned);

            prop_assert_eq!(event.landed, 2);
            prop_assert_eq!(event.after, before);
            prop_assert_eq!(event.rsp_after, event.rsp);
            prop_assert_eq!(event.rflags_after & FREE_FLAGS, rflags & FREE_FLAGS);

            // CR2 is read for a page fault, and nothing else that is privileged is done at all.
            let machine = Machine::get();
            prop_assert_eq!((machine.mov_cr2, machine.swapgs, machine.rdmsr), (u32::from(vector == 14), 0, 0));
        }
    }

    #[test]
    fn what_a_handler_changes_is_what_the_program_goes_on_with(before in registers(), pattern: u64, flags: u64) {
        for vector in 0..=255_u8 {
            Machine::default().set();
            PATTERN.set(pattern);
            let rflags = 0x202 | flags & FREE_FLAGS;
            let event = Event::new(before, rflags)
                .with_error_code(error_code(vector, 0))
                .raise(stub::<Changer>(Vector(vector)));
            let after = [
                (event.after.rax, before.rax), (event.after.rcx, before.rcx), (event.after.rdx, before.rdx),
                (event.after.rbx, before.rbx), (event.after.rbp, before.rbp), (event.after.rsi, before.rsi),
                (event.after.rdi, before.rdi), (event.after.r8, before.r8), (event.after.r9, before.r9),
                (event.after.r10, before.r10), (event.after.r11, before.r11), (event.after.r12, before.r12),
                (event.after.r13, before.r13), (event.after.r14, before.r14), (event.after.r15, before.r15),
            ];
            for (after, before) in after {
                prop_assert_eq!(after, before ^ pattern);
            }
            prop_assert_eq!(event.landed, 3);
            prop_assert_eq!(event.rsp_after, event.rsp + 64);
            prop_assert_eq!(event.rflags_after & FREE_FLAGS, rflags & FREE_FLAGS ^ (CF | DF));
        }
    }
}
