//! The exceptions of a kexec transition, as page code: what a triple fault leaves behind otherwise is nothing.
//!
//! While one kernel replaces another, neither one's handlers can run. [`DebugFrame`] is one 4 KiB frame with everything
//! that exceptions need in between: GDT, TSS, IDT, stacks and a little state. Its gates lead into the piece [`EXCEPTION`],
//! which captures the machine ([`Captured`]) and calls the piece [`DUMP`], which prints what was captured on the console
//! that the setup names. The text is described in docs/dump-format.md; `kexec-decode` explains it.
//!
//! | vector | what happens |
//! |---|---|
//! | 2, NMI | counted, returned from |
//! | 1, #DB | counted; dumped, or not ([`OnDebug`]); returned from |
//! | 3, #BP | counted, dumped, returned from |
//! | any other | dumped; then the processor halts, or resets ([`After`]) |
//!
//! # How it holds together
//!
//! - **Every stack lies in the frame** (the IST stacks, the dumper's, the engine's), so a handler finds its state by
//!   rounding RSP down to 4 KiB: no register, no absolute address, and the same bytes run at the template's address and
//!   in the code frame.
//! - **What was captured is copied off the stack of the exception at once**, to the top of the dumper's own stack. So
//!   the stack of the exception is free for the next one: a read that may fail (bytes at RIP, words at RSP, table entries)
//!   simply faults, and the handler makes the load return with CF set ([`DumpState`] says how).
//! - **Depth.** 0: nothing is dumped. 1: a dump is under way; a guarded read may fault; anything else prints a mark, and
//!   that is depth 2: what faults there halts in silence. NMIs are outside of this: they touch one counter and their own stack.
//! - **IRETQ** is the only way back: it ends the blocking of NMIs, and restores TF. After a #DB it sets RF, since an instruction
//!   breakpoint would be taken again, for ever.
//!
//! What it does not cover: with supervisor shadow stacks on (until the engine clears CR4.CET), a guarded read that faults ends in
//! a mark, since IRETQ then goes by the shadow stack's copy of RIP; a second machine check is a shutdown by itself.

mod captured;
mod dump;
mod exception;
mod frame;

pub use captured::Captured;
pub use dump::{DUMP, DumpState};
pub use exception::EXCEPTION;
pub use frame::{After, Counters, DebugFrame, DebugSetup, DebugSetupError, OnDebug};
