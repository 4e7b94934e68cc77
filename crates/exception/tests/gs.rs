//! SWAPGS: the handler has the kernel's GS base, the interrupted program gets its own back.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod event;

use std::cell::Cell;

use event::{Event, Machine, Registers};
use kexec_exception::entry::stub;
use kexec_exception::{Handler, TrapFrame, Vector};
use proptest::prelude::*;

thread_local! {
    /// Whether the handler had the kernel's base.
    static KERNEL_GS: Cell<Option<bool>> = const { Cell::new(None) };
    /// The CS that the handler leaves in the frame.
    static REDIRECT: Cell<Option<u64>> = const { Cell::new(None) };
}

struct Swapping;

impl Handler for Swapping {
    const SWAPGS: bool = true;
    const IST: &'static [(Vector, u8)] =
        &[(Vector::NMI, 1), (Vector::DOUBLE_FAULT, 2), (Vector::MACHINE_CHECK, 3), (Vector(0x40), 7)];

    fn handle(frame: &mut TrapFrame) {
        KERNEL_GS.set(Some(Machine::get().kernel_gs));
        if let Some(cs) = REDIRECT.get() {
            frame.cs = cs;
        }
    }
}

const KERNEL_CS: u64 = 0x08;
/// The host's own: IRETQ goes there without help.
const USER_CS: u64 = 0x33;

/// Vectors that may come when kernel code has the user's base: on a stack of the TSS here, at any boundary, or from an IRETQ to the user.
const ANYWHERE: [u8; 9] = [1, 2, 8, 11, 12, 13, 18, 21, 0x40];
const WITH_ERROR_CODE: [u8; 10] = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_handler_has_the_kernels_base_and_the_program_its_own(
        from_user: bool, to_user: Option<bool>, user_gs_in_kernel: bool, kernel_base: u64, user_base: u64, negative: bool,
    ) {
        for vector in 0..=255_u8 {
            let user_gs_in_kernel = user_gs_in_kernel && ANYWHERE.contains(&vector);
            let kernel_gs = !from_user && !user_gs_in_kernel;
            Machine {
                kernel_gs,
                kernel_gs_base: kernel_base | 1 << 63,
                // With CR4.FSGSBASE a user may have any base; from CPL 3 it must not matter.
                user_gs_base: if from_user && negative { user_base | 1 << 63 } else { user_base & !(1 << 63) },
                ..Machine::default()
            }
            .set();
            REDIRECT.set(to_user.map(|user| if user { USER_CS } else { KERNEL_CS }));
            let mut event = Event::new(Registers::default(), 0x202)
                .with_error_code(WITH_ERROR_CODE.contains(&vector).then_some(0));
            event.cs = if from_user { USER_CS } else { KERNEL_CS };
            let event = event.raise(stub::<Swapping>(Vector(vector)));

            prop_assert_eq!(event.landed, 2);
            prop_assert_eq!(KERNEL_GS.take(), Some(true), "vector {}", vector);
            let gs_after = match (from_user, to_user.unwrap_or(from_user)) {
                (_, true) => false,                  // the user goes on with the user's
                (true, false) => true,               // redirected into the kernel
                (false, false) => kernel_gs,         // as it was
            };
            prop_assert_eq!(Machine::get().kernel_gs, gs_after, "vector {}", vector);
        }
    }
}
