//! `identmap`: a map that identmap made is in force, and each edge of it is tried.
//!
//! It holds what this kernel runs on, as its own tables say it, and ranges at every kind of edge. With it in CR3 the first and
//! the last byte of each leaf are read, written and executed, and so are the bytes on both sides of each range. What has to come
//! of it is told from the request alone: the tables are not asked.

mod probe;

use core::fmt;

use hobby::Memory;
use hobby::boot::Boot;
use identmap::{Attributes, Error, Map, Mapping, Options, Plan, Tables};
use kexec_abi::{
    Frame, FrameAllocator, Levels, MemoryRegion, PAGE_SIZE, PhysAddr, PhysMemory, PhysRange, VirtAddr,
};
use reloc::Cpu;
use x86_64::registers::control::Cr3;
use x86_64::structures::paging::PhysFrame;

use crate::CONSOLE;
use probe::{Access, Fault};

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Memory whose bytes the probes may change: 6 MiB from a multiple of 2 MiB on.
const GROUND: u64 = 6 * MIB;

/// Where a GiB of RAM is seen: in one leaf, if the processor can.
const GIANT: u64 = 0x7e80_0000_0000;

/// Mappings at most: what the boot loader made takes some hundred.
const SLOTS: usize = 1024;

/// What did not come as it had to.
enum Wrong {
    Map(Error),
    NoMemory,
    TooMany,
    /// A leaf that nobody asked for.
    Leaf(VirtAddr),
    Probe {
        access: Access,
        address: u64,
        wanted: Result<u8, Fault>,
        came: Result<u8, Fault>,
    },
    /// What was written at the address did not arrive in that frame.
    Elsewhere(u64, PhysAddr),
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Map(error) => error.fmt(f),
            Self::NoMemory => f.write_str("no memory"),
            Self::TooMany => write!(f, "more than {SLOTS} mappings"),
            Self::Leaf(virt) => write!(f, "a leaf at {virt}, for which nobody asked"),
            Self::Probe { access, address, wanted, came } => {
                write!(f, "{access:?} at {address:#x}: {came:x?} instead of {wanted:x?}")
            }
            Self::Elsewhere(address, phys) => {
                write!(f, "what was written at {address:#x} did not arrive at {phys}")
            }
        }
    }
}

impl From<Error> for Wrong {
    fn from(error: Error) -> Self {
        Self::Map(error)
    }
}

/// `identmap`
pub fn identmap(boot: &mut Boot, _: &str) {
    let free = boot.memory.frames.free_count();
    let result = with_ground(boot);
    assert_eq!(boot.memory.frames.free_count(), free, "frames were lost");
    match result {
        Ok(()) => writeln!(CONSOLE, "all as asked for"),
        Err(wrong) => writeln!(CONSOLE, "wrong: {wrong}"),
    }
}

/// Takes the memory for the probes, and gives it back.
fn with_ground(boot: &mut Boot) -> Result<(), Wrong> {
    let frames = (GROUND + 2 * MIB) / PAGE_SIZE;
    let first = boot.memory.allocate_run(frames, PhysAddr::new(4 * GIB)).ok_or(Wrong::NoMemory)?;
    let start = first.start().as_u64().next_multiple_of(2 * MIB);
    let ground = PhysRange::from_len(PhysAddr::new(start), GROUND).ok_or(Wrong::NoMemory)?;
    let result = with_map(boot, ground);
    (0..frames).filter_map(|n| first.checked_add(n)).for_each(|frame| boot.memory.free(frame));
    result
}

/// Builds the map, tries it, and gives its frames back.
fn with_map(boot: &mut Boot, ground: PhysRange) -> Result<(), Wrong> {
    // SAFETY: a kernel runs at CPL 0 in 64-bit mode.
    let cpu = unsafe { Cpu::read() };
    let mut request = Request::new();
    request.running_kernel(&cpu, &boot.memory)?;
    request.edges(ground.start.as_u64())?;
    request.giant(&boot.memory_map)?;
    let options = Options {
        levels: cpu.levels(),
        giant_pages: cpu.giant_pages,
        nx: cpu.nx(),
        phys_bits: cpu.phys_bits,
        ..Options::default()
    };
    let plan = Plan::new(&mut request.slots[..request.len], &options)?;
    let census = *plan.census();
    let map = plan.build(&mut boot.memory)?;
    writeln!(CONSOLE, "{} levels: {census}", map.levels().count());

    mark(&mut boot.memory, ground);
    let tried = Trial {
        request: &request,
        memory: &boot.memory,
        map: &map,
        ground,
        ram: &boot.memory_map,
        counts: [0; 2],
    }
    .run();
    map.free(&mut boot.memory)?;
    let [done, refused] = tried?;
    writeln!(CONSOLE, "{done} accesses done, {refused} refused");
    Ok(())
}

/// Other bytes in each frame, at its start and its end.
fn mark(memory: &mut Memory, ground: PhysRange) {
    for (n, frame) in ground.frames().enumerate() {
        let word = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for index in [0, 511] {
            memory.write_word(frame, index, word.rotate_left(index as u32)).expect("RAM is mapped");
        }
    }
}

/// What is asked for.
struct Request {
    slots: [Mapping; SLOTS],
    len: usize,
}

impl Request {
    const fn new() -> Self {
        const NOTHING: PhysRange = PhysRange::new(PhysAddr::new(0), PhysAddr::new(0));
        Self { slots: [Mapping::identity(NOTHING, Attributes::R); SLOTS], len: 0 }
    }

    fn push(&mut self, mapping: Mapping) -> Result<(), Wrong> {
        *self.slots.get_mut(self.len).ok_or(Wrong::TooMany)? = mapping;
        self.len += 1;
        Ok(())
    }

    /// All that is mapped now.
    fn running_kernel(&mut self, cpu: &Cpu, memory: &Memory) -> Result<(), Wrong> {
        let tables = Tables::new(Frame::containing(PhysAddr::new(cpu.cr3)), cpu.levels());
        for run in tables.runs(memory).filter_map(Result::ok) {
            let range = PhysRange::from_len(run.phys, run.len()).ok_or(Wrong::Leaf(run.virt))?;
            self.push(Mapping::alias(run.virt, range, run.attributes))?;
        }
        Ok(())
    }

    /// Ragged ends around a 2 MiB leaf, a hole of a page, neighbours of other attributes; the ends of both halves of the space.
    fn edges(&mut self, ground: u64) -> Result<(), Wrong> {
        let range = |start, end| PhysRange::new(PhysAddr::new(ground + start), PhysAddr::new(ground + end));
        let page = |number: u64| range(number * PAGE_SIZE, (number + 1) * PAGE_SIZE);
        for (range, attributes) in [
            (range(0x1000, 0x40_3000), Attributes::RWX),
            (range(0x40_4000, 0x40_5000), Attributes::R),
            (range(0x40_5000, 0x40_6000), Attributes::RX),
            (range(0x40_6000, 0x40_8000), Attributes::RW),
        ] {
            self.push(Mapping::identity(range, attributes))?;
        }
        for (virt, range, attributes) in [
            (0x7fff_ffff_f000, page(0x500), Attributes::RW),
            (0xffff_8000_0000_0000, page(0x501), Attributes::RX),
            (0xffff_ffff_ffff_f000, page(0x502), Attributes::RWX),
            // A leaf of 2 MiB elsewhere than at home, and one that its address allows, but not that of the frame.
            (0x7e00_0020_0000, range(0x20_0000, 0x40_0000), Attributes::RW),
            (0x7e00_0060_0000, range(0x1000, 0x20_1000), Attributes::R),
        ] {
            self.push(Mapping::alias(VirtAddr::new(virt), range, attributes))?;
        }
        Ok(())
    }

    /// A GiB of RAM, where there is one, to be read only: parts of it are in use.
    fn giant(&mut self, ram: &[MemoryRegion]) -> Result<(), Wrong> {
        let giant = ram.iter().filter(|region| region.kind.is_ram()).find_map(|region| {
            let start = PhysAddr::new(region.range.start.as_u64().next_multiple_of(GIB));
            PhysRange::from_len(start, GIB).filter(|giant| region.range.contains_range(giant))
        });
        match giant {
            Some(range) => self.push(Mapping::alias(VirtAddr::new(GIANT), range, Attributes::R)),
            None => Ok(()),
        }
    }

    fn mappings(&self) -> &[Mapping] {
        &self.slots[..self.len]
    }

    /// Where the address is to be, and with what rights.
    fn find(&self, address: u64) -> Option<(PhysAddr, Attributes)> {
        self.mappings().iter().find_map(|mapping| {
            let at = address.checked_sub(mapping.virt.as_u64()).filter(|at| *at < mapping.phys.len())?;
            Some((mapping.phys.start.checked_add(at)?, mapping.attributes))
        })
    }
}

/// A map in force.
struct Trial<'a> {
    request: &'a Request,
    memory: &'a Memory,
    map: &'a Map,
    ground: PhysRange,
    ram: &'a [MemoryRegion],
    /// Accesses done, and refused.
    counts: [u64; 2],
}

impl Trial<'_> {
    /// Tries all, with the map in force and the probes' exception handler.
    fn run(mut self) -> Result<[u64; 2], Wrong> {
        probe::install();
        let (kernel, flags) = Cr3::read_raw();
        let ours = PhysFrame::containing_address(x86_64::PhysAddr::new(self.map.cr3()));
        // SAFETY: it maps all that the running kernel's map does, to the same frames, with the same rights.
        unsafe { Cr3::write_raw(ours, 0) };
        let result = self.all();
        // SAFETY: the kernel's own, unchanged.
        unsafe { Cr3::write_raw(kernel, flags) };
        probe::uninstall();
        result.map(|()| self.counts)
    }

    fn all(&mut self) -> Result<(), Wrong> {
        for leaf in self.map.tables().leaves(self.memory).filter_map(Result::ok) {
            let first = leaf.virt.as_u64();
            if self.request.find(first).is_none() {
                return Err(Wrong::Leaf(leaf.virt));
            }
            self.byte(first)?;
            self.byte(first + (leaf.size.bytes() - 1))?;
        }
        for mapping in self.request.mappings() {
            let first = mapping.virt.as_u64();
            self.byte(first.wrapping_sub(1))?;
            self.byte(first.wrapping_add(mapping.phys.len()))?;
        }
        Ok(())
    }

    /// Tries one byte.
    fn byte(&mut self, address: u64) -> Result<(), Wrong> {
        if !is_canonical(address, self.map.levels()) {
            return self.refused(Access::Read, address, Fault::PROTECTION);
        }
        for access in [Access::Read, Access::Write, Access::Execute] {
            let (phys, attributes) = match self.request.find(address) {
                Some(found) => found,
                None => {
                    self.refused(access, address, Fault::page(address, access, false))?;
                    continue;
                }
            };
            // A device's registers are left alone.
            if !self.ram.iter().any(|region| region.kind.is_ram() && region.range.contains(phys)) {
                continue;
            }
            let allowed = match access {
                Access::Read => true,
                Access::Write => attributes.writable,
                Access::Execute => attributes.executable,
            };
            if !allowed {
                self.refused(access, address, Fault::page(address, access, true))?;
            } else if access == Access::Read {
                self.done(access, address, self.peek(phys))?;
            } else if self.ground.contains(phys) {
                self.change(access, address, phys)?;
            }
        }
        Ok(())
    }

    /// Writes another byte and finds it in the frame; or has a RET there, and calls it. Leaves the byte as it was.
    fn change(&mut self, access: Access, address: u64, phys: PhysAddr) -> Result<(), Wrong> {
        let byte = self.peek(phys);
        if access == Access::Execute {
            self.poke(phys, probe::RET);
            self.done(access, address, probe::RET)?;
        } else {
            self.done(access, address, !byte)?;
            if self.peek(phys) != !byte {
                return Err(Wrong::Elsewhere(address, phys));
            }
        }
        self.poke(phys, byte);
        Ok(())
    }

    fn done(&mut self, access: Access, address: u64, byte: u8) -> Result<(), Wrong> {
        self.counts[0] += 1;
        expect(access, address, byte, Ok(byte))
    }

    fn refused(&mut self, access: Access, address: u64, fault: Fault) -> Result<(), Wrong> {
        self.counts[1] += 1;
        expect(access, address, 0, Err(fault))
    }

    /// The byte at a physical address, as the kernel sees it.
    fn peek(&self, phys: PhysAddr) -> u8 {
        // SAFETY: RAM, all of which is mapped there; nothing else runs.
        unsafe { self.at(phys).read_volatile() }
    }

    fn poke(&self, phys: PhysAddr, byte: u8) {
        // SAFETY: as above; memory that was taken for the probes.
        unsafe { self.at(phys).write_volatile(byte) };
    }

    fn at(&self, phys: PhysAddr) -> *mut u8 {
        (self.memory.offset.as_u64() + phys.as_u64()) as *mut u8
    }
}

fn expect(access: Access, address: u64, byte: u8, wanted: Result<u8, Fault>) -> Result<(), Wrong> {
    // SAFETY: the probes' handler is installed. What is written is memory that was taken for it; what is called is a RET there;
    // the rest is to fault.
    let came = unsafe { probe::attempt(access, address, byte) };
    if came == wanted { Ok(()) } else { Err(Wrong::Probe { access, address, wanted, came }) }
}

fn is_canonical(address: u64, levels: Levels) -> bool {
    let shift = 64 - (12 + 9 * u32::from(levels.count()));
    ((address << shift) as i64 >> shift) as u64 == address
}
