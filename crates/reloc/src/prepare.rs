//! From an image to a transition that can only work: frames, tables, list, page code, and the checks.

use core::fmt;

use identmap::{Attributes, Mapping, Tables};
use kexec_abi::list::Entry;
use kexec_abi::{
    Console, EntryState, Frame, FrameAllocator, Levels, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange,
    Unreachable, VirtAddr,
};
use kexec_exception::page_code::{After, DebugFrame, DebugSetup, DebugSetupError, OnDebug};

use crate::breakpoints::Breakpoints;
use crate::check::{CheckError, check};
use crate::control::{Constants, Control, ControlFrame, Descriptor};
use crate::cpu::{Cpu, cr4};
use crate::detour;
use crate::engine::{RFLAGS_CLEAR, RFLAGS_TF, label};
use crate::image::{Image, Mode};
use crate::list;
use crate::manifest::Manifest;
use crate::pieces::{Piece, Pieces};
use crate::prepared::{ControlFrames, Prepared};
use crate::settle::{Outside, settle};
use crate::source_map::NodeError;
use crate::transition_map::{Full, TransitionMap};

/// What a plan has to know of the machine, beside its memory map.
#[derive(Clone, Copy, Debug)]
pub struct Machine<'a> {
    /// The processor, as it is now and will be on the jump.
    pub cpu: Cpu,
    /// Where the next kernel finds the firmware's tables, if the memory map does not call them ACPI memory: EFI system table
    /// and configuration table, RSDP. Mapped by whole pages.
    pub firmware: &'a [PhysRange],
    /// Where dumps go.
    pub console: Option<Console>,
    /// Where the running kernel maps physical address 0, if it maps all of physical memory: a dump taken before the CR3 switch
    /// shows the walk of a page fault then.
    pub physical_memory: Option<VirtAddr>,
}

/// How an image is entered, and what happens on the way.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The new kernel's first registers.
    pub entry: EntryState,
    /// Where the transition stops for a dump, and goes on.
    pub breakpoints: Breakpoints,
    /// What follows a fatal dump.
    pub after: After,
    /// Debug exceptions: dumped, or counted.
    pub on_debug: OnDebug,
    /// Runs the transition with the trap flag on.
    pub single_step: bool,
    /// Whether 1 GiB pages may be used, where the processor has them.
    pub giant_pages: bool,
}

impl Options {
    /// Enters at `entry`; halts after a fatal dump.
    #[must_use]
    pub const fn new(entry: EntryState) -> Self {
        Self {
            entry,
            breakpoints: Breakpoints::empty(),
            after: After::Halt,
            on_debug: OnDebug::Dump,
            single_step: false,
            giant_pages: true,
        }
    }
}

/// Why an image was not prepared. All its frames have been given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrepareError {
    /// No frame was left for a page of the image, the list, the tables, or a control frame.
    OutOfMemory,
    /// A frame cannot be reached.
    Unreachable(Unreachable),
    /// The allocator has no run of that many frames: page code that does not fit in one, or a frame that has to lie low.
    NoRun {
        /// Frames in a row that are needed.
        frames: u64,
        /// Where they have to end.
        below: PhysAddr,
    },
    /// The transition has more mappings than the slice given holds; its length.
    TooManyMappings(usize),
    /// The tables of the transition could not be built.
    Map(identmap::Error),
    /// The console's registers lie in the destination of a segment.
    ConsoleInDestination {
        /// The registers.
        console: PhysRange,
        /// The segment.
        segment: PhysRange,
    },
    /// An address of the running kernel's that has to be mapped is not mapped now.
    NotMapped(VirtAddr),
    /// An address of the running kernel's that has to be mapped elsewhere than at itself is one of RAM's.
    AliasOverMemory {
        /// The kernel's address.
        virt: VirtAddr,
        /// The range that is mapped at its own addresses there.
        memory: PhysRange,
    },
    /// The kernel's code segment selector cannot be used for the debug tables.
    Selector(DebugSetupError),
    /// The image wants a paging depth that the processor does not have.
    Levels(Levels),
    /// The entry point lies in no segment.
    EntryOutside(VirtAddr),
    /// The finished plan does not pass the independent check. A defect in this crate, or of the memory given.
    Check(CheckError),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OutOfMemory => f.write_str(
                "out of memory: no frame left for the image, its list, its tables or the control frames",
            ),
            Self::Unreachable(error) => error.fmt(f),
            Self::NoRun { frames, below } => {
                write!(
                    f,
                    "the allocator has no {frames} frames in a row below {below} for page code or tables"
                )
            }
            Self::TooManyMappings(slots) => {
                write!(f, "the transition has more mappings than the {slots} slots given")
            }
            Self::Map(error) => write!(f, "the transition's tables: {error}"),
            Self::ConsoleInDestination { console, segment } => {
                write!(f, "the console's registers {console} lie in segment {segment}")
            }
            Self::NotMapped(virt) => write!(f, "{virt} of the running kernel is not mapped"),
            Self::AliasOverMemory { virt, memory } => {
                write!(
                    f,
                    "{virt} of the running kernel is in the way of {memory}, which has to be mapped at its own addresses"
                )
            }
            Self::Selector(error) => error.fmt(f),
            Self::Levels(levels) => {
                write!(
                    f,
                    "the image wants {} levels of paging, which the processor does not have",
                    levels.count()
                )
            }
            Self::EntryOutside(virt) => write!(f, "the entry point {virt} lies in no segment"),
            Self::Check(error) => write!(f, "the plan is unsound: {error}"),
        }
    }
}

impl core::error::Error for PrepareError {}

impl From<NodeError> for PrepareError {
    fn from(error: NodeError) -> Self {
        match error {
            NodeError::OutOfMemory => Self::OutOfMemory,
            NodeError::Unreachable(error) => Self::Unreachable(error),
        }
    }
}

impl From<Unreachable> for PrepareError {
    fn from(error: Unreachable) -> Self {
        Self::Unreachable(error)
    }
}

impl From<Full> for PrepareError {
    fn from(full: Full) -> Self {
        Self::TooManyMappings(full.0)
    }
}

impl Image<'_> {
    /// Plans the transition to this image: takes all further frames, builds tables and list, copies the page code, and checks
    /// the whole.
    ///
    /// `mappings` is room for the list of what to map, about one a region of the memory map and two a segment; what it holds
    /// does not matter. About 10 KiB of stack are used.
    ///
    /// A frame that `memory` gives below 640 KiB is used as any other. But Linux's decompressor writes a trampoline there, for which
    /// that memory can be executed during the transition; so a good allocator gives none. Elsewhere tables, list and sources cannot be.
    ///
    /// # Errors
    ///
    /// [`PrepareError`]; the image is gone then and all its frames are given back.
    pub fn prepare<M>(
        mut self,
        memory: &mut M,
        machine: &Machine<'_>,
        options: &Options,
        mappings: &mut [Mapping],
    ) -> Result<Prepared, PrepareError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let mut draft = Draft::default();
        let result = draft.prepare(&mut self, memory, machine, options, mappings);
        if result.is_err() {
            draft.free(memory);
        }
        self.release(memory, result.is_err());
        result
    }
}

/// What has been taken so far.
#[derive(Default)]
struct Draft {
    frames: ControlFrames,
    map: Option<identmap::Map>,
    list: Entry,
    manifest: Manifest,
}

impl Draft {
    fn free<M: PhysMemory + FrameAllocator>(self, memory: &mut M) {
        if let Some(map) = self.map {
            // The tables have just been built in memory that can be reached.
            let _ = map.free(memory);
        }
        list::free(memory, self.list);
        self.manifest.free(memory);
        self.frames.free(memory);
    }

    fn prepare<M>(
        &mut self,
        image: &mut Image<'_>,
        memory: &mut M,
        machine: &Machine<'_>,
        options: &Options,
        mappings: &mut [Mapping],
    ) -> Result<Prepared, PrepareError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let cpu = &machine.cpu;
        let peer = options.entry.levels.unwrap_or(cpu.levels());
        if peer == Levels::Five && !cpu.la57 && cpu.levels() == Levels::Four {
            return Err(PrepareError::Levels(peer));
        }
        let detour = peer != cpu.levels();
        if image.find(PhysAddr::new(options.entry.rip.as_u64())).is_none() {
            return Err(PrepareError::EntryOutside(options.entry.rip));
        }
        let console = machine.console.as_ref();
        check_console(image, console)?;

        settle(image, memory, image.mode == Mode::Preserve)?;
        let pieces = Pieces::new(console, detour);
        let mut outside = Outside { image, memory };
        self.frames.take(&mut outside, pieces.size.div_ceil(PAGE_SIZE), detour)?;
        let live = self.frames.pin(&mut outside)?;

        let mut wanted = TransitionMap::new(mappings);
        wanted.memory(outside.image.memory_map, machine.firmware)?;
        wanted.destinations(outside.image)?;
        if let Some(registers) = console.and_then(|console| console.mmio) {
            wanted.console(registers)?;
        }
        wanted.control(self.frames.code_range(), Attributes::RX)?;
        for frame in self.frames.data() {
            wanted.control(frame.range(), Attributes::RW)?;
        }
        alias_text(&mut wanted, &outside, cpu, &pieces)?;
        alias(&mut wanted, &outside, live.control, self.frames.control, Attributes::RW)?;
        alias(&mut wanted, &outside, live.outgoing, self.frames.outgoing, Attributes::RW)?;
        if let Some((virt, registers)) = console.and_then(|c| Some((c.live.as_ref()?.1, c.mmio?))) {
            let registers = registers.round_out();
            no_memory_at(&wanted, virt, registers)?;
            wanted.alias(virt, registers, Attributes::RW.with_cache(identmap::Cache::Uncached))?;
        }
        let map_options = identmap::Options {
            levels: cpu.levels(),
            giant_pages: options.giant_pages && cpu.giant_pages,
            nx: cpu.nx(),
            phys_bits: cpu.phys_bits,
            ..identmap::Options::default()
        };
        let plan = identmap::Plan::new(wanted.into_mappings(), &map_options).map_err(PrepareError::Map)?;
        let map = self.map.insert(plan.build(&mut outside).map_err(PrepareError::Map)?);

        self.manifest = Manifest::write(&mut outside)?;
        // Last of all that takes frames: each may put one more page in place, and so change the list.
        let list = list::write(&mut outside)?;
        self.list = list.head;

        let Outside { image, memory } = outside;
        if let Some(roots) = self.frames.roots {
            write_roots(memory, map.root(), cpu.levels(), roots)?;
        }
        let control =
            self.frames.control_block(&live, &pieces, machine, options, image.mode, list.head, map.root());
        self.frames.fill(memory, &live, &pieces, machine, options, &control)?;

        let prepared = Prepared {
            frames: self.frames,
            live,
            pieces,
            list,
            manifest: self.manifest,
            map: self.map.take().ok_or(PrepareError::OutOfMemory)?,
            mode: image.mode,
            peer,
            cpu: *cpu,
            entry: options.entry,
        };
        match check(memory, &prepared) {
            Ok(()) => Ok(prepared),
            Err(error) => {
                self.map = Some(prepared.map);
                Err(PrepareError::Check(error))
            }
        }
    }
}

fn check_console(image: &Image<'_>, console: Option<&Console>) -> Result<(), PrepareError> {
    let Some(registers) = console.and_then(|console| console.mmio) else { return Ok(()) };
    let pages = registers.round_out();
    match image.segments().iter().find(|segment| segment.destination.overlaps(&pages)) {
        Some(segment) => {
            Err(PrepareError::ConsoleInDestination { console: registers, segment: segment.destination })
        }
        None => Ok(()),
    }
}

/// Aliases the pages of the running kernel's text that run, or are called, while its map and the transition's change.
fn alias_text<M: PhysMemory>(
    wanted: &mut TransitionMap<'_>,
    outside: &Outside<'_, '_, M>,
    cpu: &Cpu,
    pieces: &Pieces,
) -> Result<(), PrepareError> {
    let tables = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
    for piece in pieces.linked() {
        let bytes = piece.code.bytes().as_ptr_range();
        let (first, last) = (bytes.start as u64 / PAGE_SIZE, (bytes.end as u64 - 1) / PAGE_SIZE);
        for page in first..=last {
            let virt = VirtAddr::new(page * PAGE_SIZE);
            let frame =
                tables.translate(outside.memory, virt).frame().ok_or(PrepareError::NotMapped(virt))?;
            alias(wanted, outside, virt, frame, Attributes::RX)?;
        }
    }
    Ok(())
}

/// Maps `frame` at the running kernel's address for it.
fn alias<M>(
    wanted: &mut TransitionMap<'_>,
    outside: &Outside<'_, '_, M>,
    virt: VirtAddr,
    frame: Frame,
    attributes: Attributes,
) -> Result<(), PrepareError> {
    if virt.as_u64() == frame.start().as_u64() {
        // The kernel runs where its memory is. A destination stays one: it is written before it is run.
        let start = frame.start();
        if outside.image.segments().iter().any(|segment| segment.destination.contains(start)) {
            return Ok(());
        }
    } else {
        no_memory_at(wanted, virt, frame.range())?;
    }
    Ok(wanted.alias(virt, frame.range(), attributes)?)
}

fn no_memory_at(wanted: &TransitionMap<'_>, virt: VirtAddr, range: PhysRange) -> Result<(), PrepareError> {
    for page in 0..range.frame_count() {
        let virt = VirtAddr::new(virt.as_u64().wrapping_add(page * PAGE_SIZE));
        if let Some(memory) = wanted.identity_at(virt) {
            return Err(PrepareError::AliasOverMemory { virt, memory });
        }
    }
    Ok(())
}

/// Where the running kernel sees the control frames that it fills in before each jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Live {
    pub(crate) control: VirtAddr,
    pub(crate) outgoing: VirtAddr,
    pub(crate) debug: VirtAddr,
}

const fn other(levels: Levels) -> Levels {
    match levels {
        Levels::Four => Levels::Five,
        Levels::Five => Levels::Four,
    }
}

impl ControlFrames {
    /// The address of the detour's table of that many levels; 0 without a detour.
    fn root(&self, levels: Levels) -> u64 {
        self.roots.map_or(0, |[four, five]| if levels == Levels::Four { four } else { five }.start().as_u64())
    }

    /// Takes the frames; below 4 GiB if the detour leads through them.
    fn take<M>(
        &mut self,
        outside: &mut Outside<'_, '_, M>,
        code_frames: u64,
        detour: bool,
    ) -> Result<(), PrepareError>
    where
        M: PhysMemory + FrameAllocator,
    {
        let below = PhysAddr::new(if detour { 1 << 32 } else { kexec_abi::PHYS_ADDR_LIMIT });
        let mut run = |frames| match frames {
            1 if !detour => outside.allocate().ok_or(PrepareError::OutOfMemory),
            frames => outside.allocate_run(frames, below).ok_or(PrepareError::NoRun { frames, below }),
        };
        self.code = run(code_frames)?;
        self.code_frames = code_frames;
        for frame in [&mut self.control, &mut self.stack, &mut self.outgoing, &mut self.debug] {
            *frame = run(1)?;
            self.taken += 1;
        }
        if detour {
            let four = run(1)?;
            match run(1) {
                Ok(five) => self.roots = Some([four, five]),
                Err(error) => {
                    outside.free(four);
                    return Err(error);
                }
            }
        }
        let roots = self.roots.iter().flatten();
        self.data().iter().chain(roots).try_for_each(|frame| outside.zero(*frame)).map_err(PrepareError::from)
    }

    fn pin<M: PhysMemory>(&self, memory: &mut M) -> Result<Live, Unreachable> {
        Ok(Live {
            control: memory.pin(self.control)?,
            outgoing: memory.pin(self.outgoing)?,
            debug: memory.pin(self.debug)?,
        })
    }

    #[expect(clippy::too_many_arguments, reason = "the block joins all that was planned")]
    fn control_block(
        &self,
        live: &Live,
        pieces: &Pieces,
        machine: &Machine<'_>,
        options: &Options,
        mode: Mode,
        head: Entry,
        root: Frame,
    ) -> Control {
        let code = self.code.start();
        let entry = &options.entry;
        // The top of the frame less 8, where a zero stands: a purgatory reads it (Linux 786a45757dcd).
        let stack = self.stack.start().as_u64() + PAGE_SIZE - 8;
        let rsp = entry.rsp.filter(|_| mode == Mode::Replace).map_or(stack, VirtAddr::as_u64);
        Control {
            progress: kexec_abi::Progress { code: code.as_u64(), ..Default::default() },
            identity: self.control.start().as_u64(),
            live: live.control.as_u64(),
            outgoing: live.outgoing.as_u64(),
            debug: self.debug.start().as_u64(),
            stack,
            identity_entry: pieces.engine.at(code, label::IDENTITY),
            restore_entry: Piece::linked(pieces.engine.code, label::RESTORE),
            reenter_entry: pieces.engine.at(code, label::REENTER),
            head: head.as_u64(),
            preserve: u64::from(mode == Mode::Preserve),
            breakpoints: options.breakpoints.bits(),
            rflags: if options.single_step { RFLAGS_CLEAR | RFLAGS_TF } else { RFLAGS_CLEAR },
            cr0: machine.cpu.transition_cr0(),
            cr3: root.start().as_u64(),
            cr4: machine.cpu.transition_cr4(),
            detour: pieces.detour.map_or(0, |piece| piece.at(code, detour::label::SWITCH)),
            peer_cr3: self.root(other(machine.cpu.levels())),
            peer_cr4: machine.cpu.transition_cr4() ^ cr4::LA57,
            low_cr3: self.root(machine.cpu.levels()),
            dump32: pieces.detour.map_or(0, |piece| piece.at(code, detour::label::DUMP)),
            fatal: pieces.exception.at(code, 0) - pieces.exception.code.offset(0) as u64
                + pieces.exception.code.find("fatal").unwrap_or_default() as u64,
            idt32r: Descriptor::new(
                size_of::<[u64; 32]>() as u16 - 1,
                self.control.start().as_u64() + ControlFrame::GATES as u64,
            ),
            entry: crate::control::Registers {
                rip: entry.rip.as_u64(),
                rsp,
                rdi: entry.rdi,
                rsi: entry.rsi,
                rdx: entry.rdx,
                rcx: entry.rcx,
            },
            saved: Default::default(),
        }
    }

    /// Writes the code frame and the data frames. Nothing writes the code frame after this.
    fn fill<M: PhysMemory>(
        &self,
        memory: &mut M,
        live: &Live,
        pieces: &Pieces,
        machine: &Machine<'_>,
        options: &Options,
        control: &Control,
    ) -> Result<(), PrepareError> {
        let code = self.code.start();
        // The map that a callee was entered with, and returns to.
        let (cr3, cr4) = if control.detour == 0 {
            (control.cr3, control.cr4)
        } else {
            (control.peer_cr3, control.peer_cr4)
        };
        let constants =
            Constants { control: control.identity, cr0: control.cr0, cr3, cr4, efer: machine.cpu.efer };
        for piece in pieces.iter() {
            write(memory, self.code, piece.offset, piece.code.bytes())?;
        }
        let at = pieces.engine.offset + pieces.engine.code.offset(label::CONSTANTS) as u64;
        write(memory, self.code, at, constants.as_bytes())?;

        let console = machine.console.as_ref();
        let config = console.map(|console| console.config);
        let live_config = match console {
            Some(Console { live: Some((config, _)), .. }) => Some(*config),
            Some(Console { mmio: Some(_), .. }) | None => None,
            Some(console) => Some(console.config),
        };
        let gates = pieces.detour.map(|piece| detour::gates(code.as_u64() + piece.offset));
        write(memory, self.control, 0, ControlFrame::new(control, config, live_config, gates).as_bytes())?;

        let setup = DebugSetup {
            frame: VirtAddr::new(self.debug.start().as_u64()),
            stubs: VirtAddr::new(code.as_u64() + pieces.exception.offset),
            dump: VirtAddr::new(code.as_u64() + pieces.dump.offset),
            console: pieces.console.map(|piece| {
                (
                    VirtAddr::new(piece.at(code, 0)),
                    VirtAddr::new(control.identity + ControlFrame::CONSOLE as u64),
                )
            }),
            progress: VirtAddr::new(control.identity),
            gate_selector: DebugFrame::CODE_SELECTOR,
            ist: true,
            on_debug: options.on_debug,
            after: options.after,
            phys_offset: Some(VirtAddr::new(0)),
        };
        let frame = DebugFrame::new(&setup).map_err(PrepareError::Selector)?;
        write(memory, self.debug, 0, frame.as_bytes())?;

        let linked = |piece: Piece| VirtAddr::new(piece.code.bytes().as_ptr() as u64);
        let setup = DebugSetup {
            frame: live.outgoing,
            stubs: linked(pieces.exception),
            dump: linked(pieces.dump),
            console: pieces.console.filter(|_| live_config.is_some()).map(|piece| {
                (
                    VirtAddr::new(Piece::linked(piece.code, 0)),
                    VirtAddr::new(control.live + ControlFrame::LIVE_CONSOLE as u64),
                )
            }),
            progress: live.control,
            gate_selector: machine.cpu.cs,
            ist: false,
            phys_offset: machine.physical_memory,
            ..setup
        };
        let frame = DebugFrame::new(&setup).map_err(PrepareError::Selector)?;
        write(memory, self.outgoing, 0, frame.as_bytes())?;
        Ok(())
    }
}

/// Makes the top-level tables of the detour: both have the first 128 TiB of the map at `root`, and nothing else of it.
fn write_roots<M: PhysMemory>(
    memory: &mut M,
    root: Frame,
    levels: Levels,
    [four, five]: [Frame; 2],
) -> Result<(), Unreachable> {
    /// The flags of an entry that leads to a table; bits 52 and up stay clear (Linux eb2266312507).
    const FLAGS: u64 = 0xfff;
    let entry = memory.read_word(root, 0)?;
    let top = match levels {
        Levels::Four => root,
        Levels::Five => Frame::containing(PhysAddr::new(entry)),
    };
    for index in 0..256 {
        let word = memory.read_word(top, index)?;
        memory.write_word(four, index, word)?;
    }
    memory.write_word(five, 0, four.start().as_u64() | entry & FLAGS)
}

/// Writes `bytes` to `offset` bytes after the start of a run of frames.
fn write<M: PhysMemory>(memory: &mut M, first: Frame, offset: u64, bytes: &[u8]) -> Result<(), Unreachable> {
    let (mut offset, mut bytes) = (offset, bytes);
    while !bytes.is_empty() {
        // The run was allocated, so it ends below 2^52.
        let frame = Frame::containing(PhysAddr::new(first.start().as_u64() + offset));
        let count = memory.write_bytes(frame, (offset % PAGE_SIZE) as usize, bytes)?;
        offset += count as u64;
        bytes = &bytes[count..];
    }
    Ok(())
}
