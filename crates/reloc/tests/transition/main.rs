//! The transition harness: the real page code runs in this process, single-stepped. Each instruction is decoded before it runs;
//! what touches privileged state is applied to a model of the processor instead, whose rules are the manual's; each address
//! is translated by the model's tables first. A forbidden step ends the run with the instruction and the rule.
//!
//! So what an emulator does not model is tested too: CET, FRED, LASS, PCID, protection keys, a TDX guest.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

mod callee;
mod events;
mod kernel;
mod memory;
mod model;
mod operands;
mod paging;
mod pitfalls;
mod process;
mod processor;
mod round_trips;
