//! From a dump to a report: each section answers one question.

use kexec_abi::Phase;
use kexec_abi::list::{Entry, EntryFlags, Item};
use kexec_exception::{Cr0, Cr4, Efer, ErrorCode, RFlags, Vector};

use crate::cause;
use crate::disassembly::{self, Disassembly};
use crate::dump::{Dump, Found, State, Value};
use crate::kernel::{Frame, Kernel};
use crate::place::World;
use crate::plan::{Plan, Run};
use crate::report::{Report, Section};
use crate::walk;

const GENERAL: [&str; 16] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "r8", "r9", "r10", "r11", "r12", "r13", "r14",
    "r15",
];

/// Finds and explains all dumps of a log. The kernels' biases are found where they can be. Takes the plan from `plan` (the last
/// one there) if that is given, otherwise from the log (the last one before the dump).
#[must_use]
pub fn explain(log: &[u8], mut kernels: Vec<Kernel>, plan: Option<&[u8]>) -> Vec<Report> {
    let found = Dump::find_all(log);
    let code: Vec<_> =
        found.iter().filter_map(|found| Some((found.dump.number("rip")?, found.dump.code()))).collect();
    let given = plan.map(Plan::find_all);
    let printed = Plan::find_all(log);
    for kernel in &mut kernels {
        kernel.find_bias(log, given.as_ref().unwrap_or(&printed), &code);
    }
    let explain = |found: &Found| {
        let before = printed.iter().rfind(|plan| plan.offset < found.range.start);
        let plan = given.as_ref().map_or(before, |plans| plans.last());
        Report::new(found, &kernels, plan)
    };
    found.iter().map(explain).collect()
}

impl Report {
    /// Explains a dump, as well as the kernels (their biases found, see [`Kernel::find_bias`]) and the plan allow.
    #[must_use]
    pub fn new(found: &Found, kernels: &[Kernel], plan: Option<&Plan>) -> Self {
        let world = World::new(&found.dump, kernels, plan);
        let disassembly = Disassembly::around_rip(&world);
        let state = match found.state {
            State::Complete => "complete",
            State::Damaged { .. } => "damaged",
            State::Truncated => "truncated",
            State::DumperFault { .. } => "ended by a fault of the dumper",
        };
        let heading = format!("Dump at line {} of the log, {state}", found.line);
        let mut report = Report { heading, sections: Vec::new() };
        report.push(what_happened(&world, found));
        report.push(where_it_was(&world, &disassembly));
        report.push(code(&world, &disassembly));
        report.push(cause(&world, &disassembly));
        report.push(walked(&world));
        report.push(list(&world));
        report.push(registers(&world));
        report.push(stack(&world));
        report.push(processor(&world));
        report.push(reservations(&world, found));
        report
    }
}

fn what_happened(world: &World<'_>, found: &Found) -> Section {
    let mut section = Section::new("What happened");
    let dump = world.dump;
    match dump.vector() {
        Some(vector) => {
            section.main(format!("{vector}, vector {}", vector.0));
            match dump.number("error") {
                Some(code) => section.main(match ErrorCode::new(vector, code) {
                    Some(words) => format!("error code {code:#x}: {words}"),
                    None => format!("error code {code:#x}, though the vector has none"),
                }),
                None if vector.has_error_code() && found.state == State::Complete => {
                    section.say(
                        "without the error code that the processor pushes: raised by an `int` instruction",
                    );
                }
                None => {}
            }
            if let Some(cause) = cause::usual(vector) {
                section.say(cause);
            }
        }
        None => section.main(match dump.number("vector") {
            Some(vector) => format!("vector {vector:#x}, which does not exist"),
            None => "the vector is not in what is left of the dump".into(),
        }),
    }
    match (dump.number("phase"), dump.phase()) {
        (_, Some(phase)) => section.say(format!("phase {}: {}", phase.name(), phase_words(phase))),
        (Some(0), None) => section.say("before the first phase of the transition"),
        (Some(other), None) => section.say(format!("phase {other}, which is not known here")),
        (None, None) => section.say("the phase is not in the dump"),
    }
    for (name, what) in [("nmi", "NMI"), ("debug", "debug exception"), ("breakpoint", "breakpoint")] {
        if let Some(count @ 1..) = dump.number(name) {
            section.say(format!("{} so far in this view", counted(count, what)));
        }
    }
    section
}

fn phase_words(phase: Phase) -> &'static str {
    match phase {
        Phase::Enter => "under the old map, while the transition's descriptor tables were being loaded",
        Phase::Identity => "under the transition map, while the control registers were being set",
        Phase::Move => "while the list was walked and pages were moved",
        Phase::Leave => {
            "at the jump into the new kernel, or in it, before it had descriptor tables of its own"
        }
        Phase::Reenter => "after the callee had returned, while the control registers were being set",
        Phase::MoveBack => "while the list was walked on the way back",
        Phase::Restore => "while the old kernel's map and registers were being restored",
        _ => "not described here",
    }
}

fn where_it_was(world: &World<'_>, disassembly: &Disassembly) -> Section {
    let mut section = Section::new("Where");
    let Some(rip) = world.dump.number("rip") else {
        section.main("RIP is not in what is left of the dump");
        return section;
    };
    let mut known = false;
    if let Some(place) = world.page_code(rip) {
        section.main(format!("RIP {rip:#x}: {}", place.words));
        known = true;
    }
    for kernel in world.kernels.iter().filter(|kernel| kernel.linked(rip).is_some()) {
        // The same symbol was named above already.
        let frames = kernel.frames(rip);
        if known && frames.is_empty() {
            continue;
        }
        section.main(format!("RIP {rip:#x}: {}", symbol(kernel, rip)));
        frame_lines(&mut section, &frames);
        if !kernel.is_text(rip) {
            section.main("which is not text: data was run, or the jump went astray");
        }
        known = true;
    }
    if !known {
        let places = world.describe(rip);
        section.main(match places.as_slice() {
            [] if world.kernels.is_empty() => {
                format!("RIP {rip:#x}: name the kernels' files for a place in them")
            }
            [] => format!("RIP {rip:#x}: in no kernel that was given, and in nothing that is known"),
            places => format!("RIP {rip:#x}: {}", places.join("; ")),
        });
        if world.plan.and_then(|plan| plan.entry) == Some(rip) {
            section.say("that is the entry of the new kernel");
        }
    }
    if disassembly.same_as_file == Some(false) {
        section.main("The bytes at RIP are not those of the file: another build, another bias, or the text was overwritten");
    }
    section
}

/// Function, file and line, one line a frame.
fn frame_lines(section: &mut Section, frames: &[Frame]) {
    for (index, frame) in frames.iter().enumerate() {
        let word = if index == 0 { "in" } else { "inlined into" };
        let name = if frame.function.is_empty() { "a function without a name" } else { &frame.function };
        section.main(format!("{word} {name}{}", location(frame)));
    }
}

fn location(frame: &Frame) -> String {
    match &frame.location {
        Some((file, Some(line))) => format!(" at {file}:{line}"),
        Some((file, None)) => format!(" at {file}"),
        None => String::new(),
    }
}

fn symbol(kernel: &Kernel, address: u64) -> String {
    match kernel.near(address) {
        Some(near) => format!("{} + {:#x} ({})", near.name, near.offset, kernel.name()),
        None => kernel.name().to_owned(),
    }
}

fn code(world: &World<'_>, disassembly: &Disassembly) -> Section {
    let mut section = Section::new("Code");
    let line = |instruction| {
        let target = disassembly::target(instruction).map(|target| target_words(world, target));
        let text = disassembly::text(instruction);
        let target =
            target.filter(|words| !words.is_empty()).map_or(String::new(), |words| format!("  ; {words}"));
        format!("{:#x}: {text}{target}", instruction.ip())
    };
    for instruction in &disassembly.before {
        section.say(format!("   {}", line(instruction)));
    }
    match &disassembly.at {
        Some(at) => section.main(format!("=> {}", line(at))),
        None if world.dump.get("bytes").is_some() => section.main("the bytes at RIP could not be read"),
        None => section.main("the bytes at RIP are not in what is left of the dump"),
    }
    for instruction in &disassembly.after {
        section.say(format!("   {}", line(instruction)));
    }
    section
}

fn target_words(world: &World<'_>, target: u64) -> String {
    let symbol = || world.kernel(target).map(|(kernel, _)| symbol(kernel, target));
    world.page_code(target).map(|place| place.words).or_else(symbol).unwrap_or_default()
}

/// What the instruction touched, and what the plan has there.
fn cause(world: &World<'_>, disassembly: &Disassembly) -> Section {
    let mut section = Section::new("The address at fault");
    let dump = world.dump;
    let vector = dump.vector();
    if vector == Some(Vector::PAGE_FAULT) && dump.number("cr2").is_none() {
        section.main("CR2 is not in what is left of the dump");
    }
    if vector == Some(Vector::PAGE_FAULT)
        && let Some(cr2) = dump.number("cr2")
    {
        section.main(format!("CR2 {}", accessed_words(world, cr2)));
        if cr2 < 4096 {
            section.say("in the page at 0: a null pointer, or a register that was never set");
        }
        if Some(cr2) == dump.number("rip") {
            section.say("CR2 is RIP: the code itself could not be fetched");
        }
        section.say(planned(world, cr2));
    }
    let Some(at) = disassembly
        .at
        .as_ref()
        .filter(|_| vector.is_some_and(|vector| !matches!(vector, Vector::DEBUG | Vector::BREAKPOINT)))
    else {
        return section;
    };
    for (name, address) in disassembly::memory_operands(at, dump) {
        section.say(format!("operand {name} is at {}", accessed_words(world, address)));
    }
    if let Some((name, target)) = disassembly::indirect_target(at, dump) {
        section.say(format!("it goes to {name}, {}", place_words(world, target)));
    }
    section
}

fn place_words(world: &World<'_>, address: u64) -> String {
    match world.describe(address).as_slice() {
        [] => format!("{address:#x}"),
        places => format!("{address:#x}: {}", places.join("; ")),
    }
}

/// As [`place_words`], for an address that the transition itself went to: one that the plan does not know tells something.
fn accessed_words(world: &World<'_>, address: u64) -> String {
    if world.plan.is_some() && world.describe(address).is_empty() {
        return format!("{address:#x}: in no segment, source or control frame of the plan");
    }
    place_words(world, address)
}

/// What the plan's map has at a virtual address.
fn planned(world: &World<'_>, address: u64) -> String {
    let Some(plan) = world.plan else {
        return "no plan was given: what the map was to have there is not known".into();
    };
    let foreign = match (plan.tables_root, world.dump.number("cr3")) {
        (Some(root), Some(cr3)) if root != cr3 & 0x000f_ffff_ffff_f000 => {
            ". CR3 is not the root of that map: other tables are in force"
        }
        _ => "",
    };
    if let Some(run) = plan.run(address) {
        let kind = if run.alias { "the alias" } else { "the run" };
        return format!("the plan maps it, in {kind} {run}{foreign}");
    }
    let (below, above) = plan.neighbours(address);
    let near = |run: Option<&Run>, word| run.map(|run| format!("; next {word}: {run}"));
    let near = [near(below, "below"), near(above, "above")].into_iter().flatten().collect::<String>();
    format!("the plan maps nothing there{near}{foreign}")
}

fn walked(world: &World<'_>) -> Section {
    let mut section = Section::new("The walk of CR2");
    let Some(walk) = &world.walk else { return section };
    if let Some(cr3) = world.dump.number("cr3") {
        section.say(format!("CR3 {cr3:#x}"));
    }
    for step in &walk.steps {
        let entry = step.entry.map_or("unreadable".into(), |entry| format!("{entry:#018x}"));
        section.say(format!(
            "{:5} {:3} of the table at {:#x}: {entry}  {}",
            step.name(),
            step.index,
            step.table,
            walk::flags(step)
        ));
    }
    section.main(walk.verdict(world.dump));
    let run = world.plan.and_then(|plan| plan.run(walk.address));
    match (run, walk.end) {
        (Some(run), walk::End::NotPresent(_) | walk::End::Unreadable(_)) => {
            section.main(format!(
                "the plan intended {run}: the tables were changed or overwritten, or others are in force"
            ));
        }
        (Some(run), walk::End::Leaf(_, page, size)) => {
            let here = page + (walk.address & (size - 1));
            let planned = run.translate(walk.address);
            let rights = walk.rights();
            let same = run.rights.contains('w') == rights.write && run.rights.contains('x') == rights.execute;
            section.say(match (planned == here, same) {
                (false, _) => format!("the plan intended physical {planned:#x} there"),
                (true, true) => "as the plan intended".into(),
                (true, false) => {
                    format!("the plan intended the rights {}, the tables have {rights}", run.rights)
                }
            });
        }
        (None, walk::End::NotPresent(_)) if world.plan.is_some() => {
            section.say("as the plan intended: it maps nothing there");
        }
        (None, walk::End::Leaf(..)) if world.plan.is_some() => section.say("the plan maps nothing there"),
        _ => {}
    }
    section
}

fn list(world: &World<'_>) -> Section {
    let mut section = Section::new("The list");
    let (entry, at) = (world.dump.number("entry"), world.dump.number("entry_address"));
    let Some(entry) = entry.filter(|&entry| entry != 0 || at.is_some_and(|at| at != 0)) else {
        if world.dump.get("entry") == Some(&Value::Unreadable) {
            section.say("the entry at hand could not be read");
        }
        return section;
    };
    let place = match at {
        Some(0) => "the head".to_owned(),
        Some(at) => format!("at {at:#x}, entry {} of its frame", at % 4096 / 8),
        None => "at an address that is not in the dump".into(),
    };
    section.say(format!("entry {entry:#x}, {place}"));
    section.main(item_words(Entry::from(entry)));
    let flags = EntryFlags::from_bits_truncate(entry);
    if flags.iter().count() > 1 {
        section.main("more than one flag is set: the first in the walker's order counts");
    }
    if entry & 0xfe0 != 0 {
        section.main("bits 11:5 are set, which mean nothing: this is no entry that a planner made");
    }
    if entry >> 52 != 0
        && !matches!(
            Entry::from(entry).decode(),
            Item::Source { .. } | Item::Zero { .. } | Item::InPlace { .. }
        )
    {
        section.main("bits 63:52 are set, which are a run length in other kinds of entry only");
    }
    let named = match Entry::from(entry).decode() {
        Item::Source { frame, .. } | Item::Destination(frame) | Item::Indirection(frame) => Some(frame),
        _ => None,
    };
    if let (Some(frame), Some(plan)) = (named, world.plan) {
        let start = frame.start().as_u64();
        section.say(match plan.run(start) {
            Some(run) => format!("the plan maps {start:#x}, in {run}"),
            None => format!("the plan does not map {start:#x}"),
        });
        if let (Item::Destination(_), None) = (Entry::from(entry).decode(), plan.segment(start)) {
            section.main("no segment of the plan has that destination");
        }
        if let (Item::Source { .. }, Some(frame)) = (Entry::from(entry).decode(), plan.frame(start)) {
            section.main(format!("that is the control frame `{}`, which is no source", frame.name));
        }
    }
    section
}

fn item_words(entry: Entry) -> String {
    let pages = |pages: u64| if pages == 1 { "one page".to_owned() } else { format!("{pages} pages") };
    match entry.decode() {
        Item::Destination(frame) => {
            format!("DESTINATION: the next pages go to {:#x}", frame.start().as_u64())
        }
        Item::Indirection(frame) => format!("INDIRECTION: the list goes on at {:#x}", frame.start().as_u64()),
        Item::Done => "DONE: the list ends".into(),
        Item::Source { frame, pages: count } => {
            let start = frame.start().as_u64();
            format!("SOURCE: {} from {start:#x}..{:#x} to the cursor", pages(count), start + count * 4096)
        }
        Item::Zero { pages: count } => format!("ZERO: {} at the cursor become zero", pages(count)),
        Item::InPlace { frame, pages: count } => {
            format!(
                "no flag, nothing happens: {} from {:#x} on lie where they belong",
                pages(count),
                frame.start().as_u64()
            )
        }
    }
}

fn registers(world: &World<'_>) -> Section {
    let mut section = Section::new("Registers that point somewhere");
    for name in GENERAL {
        let Some(value) = world.dump.number(name).filter(|&value| value >= 4096) else { continue };
        let places = world.describe(value);
        if !places.is_empty() {
            section.say(format!("{name:3} {value:#x}: {}", places.join("; ")));
        }
    }
    if let Some((plan, cr3)) = world.plan.zip(world.dump.number("cr3")) {
        let own = plan.tables_root == Some(cr3 & 0x000f_ffff_ffff_f000);
        let what = if own { "the transition map" } else { "not the transition map" };
        section.say(format!("cr3 {cr3:#x}: {what}"));
    }
    section
}

fn stack(world: &World<'_>) -> Section {
    let mut section = Section::new("Stack");
    let Some(rsp) = world.dump.number("rsp") else { return section };
    if !world.is_canonical(rsp) {
        section.main(format!("RSP {rsp:#x} is not a canonical address"));
    }
    for (index, word) in world.dump.stack() {
        let at = rsp.wrapping_add(8 * index as u64);
        let Some(word) = word else {
            if world.dump.get(&format!("stack{index}")) == Some(&Value::Unreadable) {
                section.quiet(format!("{at:#x}: unreadable"));
            }
            continue;
        };
        match return_address(world, word) {
            Some(words) => section.main(format!("{at:#x}: {word:#x} {words}")),
            None if word < 4096 => section.quiet(format!("{at:#x}: {word:#x}")),
            None => section.quiet(format!("{at:#x}: {}", place_words(world, word))),
        }
    }
    section
}

/// `word` as a return address, if it can be one: it lies in code, behind a call where that can be told.
fn return_address(world: &World<'_>, word: u64) -> Option<String> {
    if !world.is_code(word) {
        return None;
    }
    // The call is before it: the line of the call, not of what follows, and not the next function's.
    let call = word.wrapping_sub(1);
    if let Some(place) = world.page_code(call) {
        return Some(format!("returns to {}", world.page_code(word).unwrap_or(place).words));
    }
    let (kernel, frames) = world.kernel(call)?;
    let back =
        (2..=7).rev().find_map(|back| Some((back, kernel.bytes(word.wrapping_sub(back as u64), back)?)));
    if back.is_some_and(|(_, bytes)| !disassembly::ends_with_call(bytes)) {
        return None;
    }
    let symbol = match kernel.near(call) {
        Some(near) => format!("{} + {:#x} ({})", near.name, near.offset + 1, kernel.name()),
        None => kernel.name().to_owned(),
    };
    Some(match frames.first() {
        Some(frame) => format!("returns to {symbol}, called{}", location(frame)),
        None => format!("returns to {symbol}"),
    })
}

/// The registers that are made of flags, and the selectors.
fn processor(world: &World<'_>) -> Section {
    let mut section = Section::new("Processor");
    let mut flags = |name: &str, words: &dyn Fn(u64) -> String| {
        if let Some(bits) = world.dump.number(name) {
            section.quiet(format!("{name:6} {bits:#x}: {}", words(bits)));
        }
    };
    flags("rflags", &|bits| RFlags::from_bits_retain(bits).to_string());
    flags("cr0", &|bits| Cr0::from_bits_retain(bits).to_string());
    flags("cr4", &|bits| Cr4::from_bits_retain(bits).to_string());
    flags("efer", &|bits| Efer::from_bits_retain(bits).to_string());
    let selectors = ["cs", "ss", "ds", "es", "fs", "gs"];
    let selector = |name| Some(format!("{name} {:#x}", world.dump.number(name)?));
    let selectors: Vec<_> = selectors.into_iter().filter_map(selector).collect();
    if !selectors.is_empty() {
        section.quiet(selectors.join("  "));
    }
    section
}

/// What makes the rest doubtful.
fn reservations(world: &World<'_>, found: &Found) -> Section {
    let mut section = Section::new("With reservations");
    match &found.state {
        State::Complete => {}
        State::Damaged { printed, computed } => {
            let printed = printed.map_or("none that can be read".into(), |printed| format!("{printed:08x}"));
            section.main(format!(
                "the dump is damaged: its checksum is {printed}, its lines give {computed:08x}"
            ));
        }
        State::Truncated => section.main("the dump is truncated: its last line is missing"),
        State::DumperFault { vector, rip } => {
            let vector = vector.map_or("an unknown vector".into(), |vector| {
                u8::try_from(vector)
                    .map_or(format!("vector {vector:#x}"), |vector| Vector(vector).to_string())
            });
            let rip = rip.map_or(String::new(), |rip| format!(" at {}", place_words(world, rip)));
            section.main(format!("the dumper itself was stopped by {vector}{rip}: the dump ends there"));
        }
    }
    if found.foreign_lines > 0 {
        section.say(format!(
            "{} in it spoilt or of others, left out",
            counted(found.foreign_lines as u64, "line")
        ));
    }
    match world.dump.version() {
        Some(1) => {}
        Some(version) => {
            section.main(format!("version {version} of the dump is not known here: read as version 1"))
        }
        None => section.main("the dump's version cannot be read: read as version 1"),
    }
    if let Some(plan) = world.plan {
        if !plan.complete {
            section.say("the plan's last line is missing: it may have said more");
        }
        if let Some(version @ (0 | 2..)) = plan.version {
            section.main(format!("version {version} of the plan is not known here: read as version 1"));
        }
        for defect in &plan.defects {
            section.main(format!("the plan says of itself: {defect}"));
        }
        let code = plan.code_frame().map(|frame| frame.start);
        if let (Some(planned), Some(printed)) = (code, world.dump.number("code_frame").filter(|&at| at != 0))
            && planned != printed
        {
            section.main(format!(
                "the plan's code frame is {planned:#x}, the dump's {printed:#x}: the plan is another transition's"
            ));
        }
    }
    for kernel in world.kernels.iter().filter(|kernel| kernel.bias().is_none()) {
        let name = kernel.name();
        section.main(format!(
            "{name} can be loaded anywhere, and it is not known where it was: give it as {name}@BIAS"
        ));
    }
    if world.dump.vector() == Some(Vector::PAGE_FAULT) && world.walk.is_none() {
        section.say("the dump has no walk of CR2");
    }
    section
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
