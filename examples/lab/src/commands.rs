//! The commands, a file a family.

mod bad;
mod fault;
mod identmap;
mod kernels;
mod machine;
mod map;
mod plan;

use hobby::boot::Boot;

pub use kernels::{levels, split};

use crate::CONSOLE;

/// What a command is given: the machine, and the line after the command's name.
type Command = fn(&mut Boot, &str);

const COMMANDS: &[(&str, Command)] = &[
    ("bad", bad::bad),
    ("breakpoints", fault::breakpoints),
    ("breakpoints-and-back", fault::breakpoints_and_back),
    ("damage", fault::damage),
    ("echo", machine::echo),
    ("exit", machine::exit),
    ("fault", fault::fault),
    ("halt", machine::halt),
    ("identmap", identmap::identmap),
    ("linux", kernels::linux),
    ("linux-moved", kernels::linux_moved),
    ("linux-scattered", kernels::linux_scattered),
    ("map", map::map),
    ("map-moved", map::map_moved),
    ("plan", plan::plan),
    ("poweroff", machine::power_off),
    ("reset", machine::reset),
    ("return", crate::return_::run),
    ("second", kernels::second),
    ("second-levels", kernels::second_levels),
    ("single-step", fault::single_step),
    ("spin", machine::spin),
];

/// Does what a line says.
pub fn run(boot: &mut Boot, line: &str) {
    let line = line.trim();
    let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
    match COMMANDS.iter().find(|(command, _)| *command == name) {
        Some((_, command)) => command(boot, arguments.trim_start()),
        None if line.is_empty() => {}
        None => writeln!(CONSOLE, "no command {name}"),
    }
}
