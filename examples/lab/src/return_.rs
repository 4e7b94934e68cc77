//! `return CASE`: calls a peer, and looks at what is there when it has returned.

mod called;
mod detour;
mod digest;
mod entry;
mod exclusions;
mod frames;
mod gdt;
mod hostile;
mod interrupted;
mod rounds;
mod self_test;
mod state;
mod stepped;
mod traps;

use hobby::boot::Boot;
use hobby::{Bundle, Failure, Memory};

use crate::CONSOLE;
use crate::commands::{levels, split};
use crate::transition::Around;

/// What a case is given: the machine, the bundle, and the line after its name. It prints `wrong: ` where something is not as it
/// should be.
type Case = fn(&Around<'_>, &mut Memory, &Bundle, &str) -> Result<(), Failure>;

const CASES: &[(&str, Case)] = &[
    ("called", entry::called),
    ("detour", detour::detour),
    ("entered", entry::entered),
    ("frames", frames::frames),
    ("hostile", hostile::hostile),
    ("mce", interrupted::machine_check),
    ("nmi", interrupted::nmi),
    ("rounds", rounds::rounds),
    ("self-test", self_test::self_test),
    ("stepped", stepped::stepped),
];

/// `return [levels=N] CASE [ARGUMENTS]`: with a peer that is entered with N levels of paging.
pub fn run(boot: &mut Boot, line: &str) {
    let with_levels = line.strip_prefix("levels=").and_then(|rest| rest.split_once(' '));
    let (depth, line) = with_levels.map_or((None, line), |(word, rest)| (levels(word), rest));
    let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
    let Some((_, case)) = CASES.iter().find(|(case, _)| *case == name) else {
        return writeln!(CONSOLE, "no case {name}");
    };
    let free = boot.memory.frames.free_count();
    let (mut around, memory, bundle) = split(boot);
    around.levels = depth;
    match case(&around, memory, &bundle, arguments) {
        Ok(()) => writeln!(CONSOLE, "done"),
        Err(failure) => writeln!(CONSOLE, "error: {failure}"),
    }
    assert_eq!(boot.memory.frames.free_count(), free, "frames were lost");
}

/// Says that something is not as it should be.
macro_rules! wrong {
    ($($text:tt)*) => { writeln!($crate::CONSOLE, "wrong: {}", format_args!($($text)*)) };
}
use wrong;
