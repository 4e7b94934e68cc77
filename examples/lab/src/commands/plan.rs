//! `plan`: what a transition to the bundle's Linux would be. Nothing of it is done.

use hobby::boot::Boot;

use super::kernels::{prepare_linux, split};
use crate::CONSOLE;

/// `plan [COMMAND LINE]`
pub fn plan(boot: &mut Boot, command_line: &str) {
    let free = boot.memory.frames.free_count();
    let (around, memory, bundle) = split(boot);
    match prepare_linux(&around, memory, &bundle, command_line) {
        Ok(prepared) => {
            write!(CONSOLE, "{}", prepared.plan(memory));
            prepared.free(memory);
        }
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
    assert_eq!(boot.memory.frames.free_count(), free, "frames were lost");
    writeln!(CONSOLE, "{free} frames free, before and after");
}
