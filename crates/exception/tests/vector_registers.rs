//! Vector registers around a handler that uses them.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod event;

use std::arch::asm;
use std::cell::Cell;
use std::ops::Range;

use event::{Event, Registers, VectorImage, Vectors};
use kexec_exception::entry::{Stub, stub};
use kexec_exception::{Handler, TrapFrame, Vector, VectorRegisters};
use proptest::prelude::*;

thread_local! {
    /// MXCSR and the x87 control word that the handler found.
    static CONTROL: Cell<(u32, u16)> = const { Cell::new((0, 0)) };
}

/// Notes the control words, and overwrites what FXSAVE saves.
fn overwrite_sse() {
    let (mut mxcsr, mut control) = (0_u32, 0_u16);
    let other = 0x7f80_u32;
    // SAFETY: stores to two locals; the rest is what the entry has saved, MXCSR included.
    unsafe {
        asm!(
            "stmxcsr [{mxcsr}]", "fnstcw [{control}]",
            "fninit", "fldpi", "fldz", "push 0x0f7f", "fldcw [rsp]", "pop {other}",
            "pcmpeqd xmm0, xmm0", "pcmpeqd xmm1, xmm1", "pcmpeqd xmm2, xmm2", "pcmpeqd xmm3, xmm3",
            "pcmpeqd xmm4, xmm4", "pcmpeqd xmm5, xmm5", "pcmpeqd xmm6, xmm6", "pcmpeqd xmm7, xmm7",
            "pcmpeqd xmm8, xmm8", "pcmpeqd xmm9, xmm9", "pcmpeqd xmm10, xmm10", "pcmpeqd xmm11, xmm11",
            "pcmpeqd xmm12, xmm12", "pcmpeqd xmm13, xmm13", "pcmpeqd xmm14, xmm14", "pcmpeqd xmm15, xmm15",
            mxcsr = in(reg) &raw mut mxcsr, control = in(reg) &raw mut control, other = inout(reg) u64::from(other) => _,
            out("xmm0") _, out("xmm1") _, out("xmm2") _, out("xmm3") _, out("xmm4") _, out("xmm5") _, out("xmm6") _,
            out("xmm7") _, out("xmm8") _, out("xmm9") _, out("xmm10") _, out("xmm11") _, out("xmm12") _, out("xmm13") _,
            out("xmm14") _, out("xmm15") _,
        );
        asm!("ldmxcsr [{}]", in(reg) &raw const other);
    }
    CONTROL.set((mxcsr, control));
}

struct Fxsave;

impl Handler for Fxsave {
    const VECTOR_REGISTERS: VectorRegisters = VectorRegisters::Fxsave;
    fn handle(_frame: &mut TrapFrame) {
        overwrite_sse();
    }
}

struct Xsave;

impl Handler for Xsave {
    // x87 and SSE are saved unasked.
    const VECTOR_REGISTERS: VectorRegisters = VectorRegisters::Xsave { components: 4, size: 832 };
    fn handle(_frame: &mut TrapFrame) {
        overwrite_sse();
        // SAFETY: run only where AVX is.
        unsafe { asm!("vzeroall", options(nomem, nostack)) };
    }
}

/// Bytes of an image that hold program state: Intel SDM volume 1, table 10-2.
fn state(avx: bool) -> impl Iterator<Item = Range<usize>> {
    let (control, mxcsr, xmm, ymm_high) = (0..5, 24..28, 160..416, 576..832);
    let x87 = (0..8).map(|register| 32 + 16 * register..42 + 16 * register);
    x87.chain([control, mxcsr, xmm]).chain(avx.then_some(ymm_high))
}

/// An image of full registers, with control words that are not the default ones.
fn image() -> impl Strategy<Value = Vectors> {
    (any::<[[u8; 32]; 26]>(), 0..4_u32, 0..4_u16).prop_map(|(bytes, rounding, x87_rounding)| {
        let mut image = Vectors([0; 832]);
        image.0.copy_from_slice(bytes.as_flattened());
        image.0[..32].fill(0);
        image.0[0..2].copy_from_slice(&(0x037f | x87_rounding << 10).to_le_bytes());
        image.0[4] = 0xff; // all of x87's registers are in use
        image.0[24..28].copy_from_slice(&(0x1f80 | rounding << 13 | 0x21).to_le_bytes());
        image.0[512..576].fill(0);
        image.0[512] = 7; // XSTATE_BV: x87, SSE, AVX
        image
    })
}

fn round_trip(before: Vectors, image: VectorImage, stack_offset: u64, stub: Stub) -> Vectors {
    let mut event = Event::new(Registers::default(), 0x202);
    event.stack_offset = stack_offset;
    event.image = image;
    event.vectors = before;
    event.raise(stub).vectors_after
}

proptest! {
    #[test]
    fn fxsave_keeps_x87_and_sse(before in image(), vector in 32..=255_u8, words in 0..4_u64) {
        let after = round_trip(before, VectorImage::Fx, 16 * words, stub::<Fxsave>(Vector(vector)));
        for range in state(false) {
            prop_assert_eq!(&after.0[range.clone()], &before.0[range.clone()], "bytes {:?}", range);
        }
        prop_assert_eq!(CONTROL.get(), (0x1f80, 0x037f), "the handler has the ABI's control words");
    }

    #[test]
    fn xsave_keeps_avx_too(before in image(), vector in 32..=255_u8, words in 0..4_u64) {
        if !is_x86_feature_detected!("avx") {
            return Ok(());
        }
        let after = round_trip(before, VectorImage::Avx, 16 * words, stub::<Xsave>(Vector(vector)));
        for range in state(true) {
            prop_assert_eq!(&after.0[range.clone()], &before.0[range.clone()], "bytes {:?}", range);
        }
        prop_assert_eq!(CONTROL.get(), (0x1f80, 0x037f), "the handler has the ABI's control words");
    }
}

#[test]
fn a_target_with_sse_saves_it_unasked() {
    struct Default;
    impl Handler for Default {
        fn handle(_frame: &mut TrapFrame) {}
    }
    assert_ne!(Default::VECTOR_REGISTERS, VectorRegisters::None);
    assert_eq!(Default::VECTOR_REGISTERS, VectorRegisters::OF_TARGET);
}
