//! A board for the tests: real loads, stores and port instructions, trapped, decoded and carried out on a model.
//!
//! In user space IN and OUT raise #GP, and a page without access rights #PF; Linux turns both into SIGSEGV. The handler
//! decodes the instruction at RIP with `iced-x86`, asks the board, writes the result into the saved registers, and steps
//! over it. What is under test is thus the machine code as it is.
#![allow(dead_code)] // each test uses its part

pub(crate) mod chip;

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::Once;

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};

/// The eight registers of a device.
pub(crate) trait Chip {
    fn read(&mut self, register: u8) -> u8;
    fn write(&mut self, register: u8, value: u8);
}

impl Chip for vm_superio::Serial<NoInterrupt, vm_superio::serial::NoEvents, Vec<u8>> {
    fn read(&mut self, register: u8) -> u8 {
        self.read(register)
    }

    fn write(&mut self, register: u8, value: u8) {
        self.write(register, value).unwrap();
    }
}

/// The interrupt line of `vm_superio`'s model, connected to nothing.
pub(crate) struct NoInterrupt;

impl vm_superio::Trigger for NoInterrupt {
    type E = std::io::Error;
    fn trigger(&self) -> Result<(), Self::E> {
        Ok(())
    }
}

/// `vm_superio`'s 16550: Firecracker's.
pub(crate) fn vm_superio() -> vm_superio::Serial<NoInterrupt, vm_superio::serial::NoEvents, Vec<u8>> {
    vm_superio::Serial::new(NoInterrupt, Vec::new())
}

/// Where the device sits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place {
    /// At eight I/O ports.
    Ports(u16),
    /// In memory, in a page of its own, `offset` bytes from its start: registers `stride` bytes apart, which answer to
    /// accesses of `width` bytes.
    Memory { offset: usize, stride: usize, width: usize },
}

/// One access, as the board saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) register: u8,
    pub(crate) width: usize,
    /// `None`: a read.
    pub(crate) written: Option<u32>,
}

/// A device at its place, and what was asked of it.
pub(crate) struct Board<C> {
    pub(crate) chip: C,
    pub(crate) place: Place,
    pub(crate) accesses: Vec<Access>,
    /// Accesses to which no device answered: another port or address, another width, across two registers.
    pub(crate) strays: Vec<String>,
}

/// What answers to port instructions, and to loads and stores in the page.
pub(crate) trait Bus {
    fn port(&mut self, port: u16, width: usize, written: Option<u32>) -> u32;
    fn memory(&mut self, offset: usize, width: usize, written: Option<u32>) -> u32;
}

impl<C: Chip> Board<C> {
    pub(crate) fn new(chip: C, place: Place) -> Self {
        Self { chip, place, accesses: Vec::new(), strays: Vec::new() }
    }

    /// Runs `f` on the board; it is given where the device's first register is mapped.
    pub(crate) fn run<R>(&mut self, f: impl FnOnce(NonNull<u8>) -> R) -> R {
        let offset = match self.place {
            Place::Ports(_) => 0,
            Place::Memory { offset, .. } => offset,
        };
        run(self, |page| f(page.map_addr(|address| address.checked_add(offset).unwrap())))
    }

    /// How often `register` was read.
    pub(crate) fn reads(&self, register: u8) -> usize {
        self.accesses.iter().filter(|access| access.register == register && access.written.is_none()).count()
    }

    fn register(&mut self, register: Option<u8>, width: usize, written: Option<u32>, what: String) -> u32 {
        let Some(register) = register else {
            self.strays.push(what);
            return u32::MAX; // an open bus
        };
        self.accesses.push(Access { register, width, written });
        match written {
            Some(value) => {
                self.chip.write(register, value as u8);
                0
            }
            // Only the low byte is the register's: the rest is whatever the bus carries.
            None => 0xa5c3_9600 | u32::from(self.chip.read(register)),
        }
    }
}

impl<C: Chip> Bus for Board<C> {
    fn port(&mut self, port: u16, width: usize, written: Option<u32>) -> u32 {
        let register = match self.place {
            Place::Ports(base) if width == 1 => {
                port.checked_sub(base).and_then(|n| u8::try_from(n).ok()).filter(|&n| n < 8)
            }
            _ => None,
        };
        self.register(register, width, written, format!("port {port:#x}, {width} bytes"))
    }

    fn memory(&mut self, at: usize, width: usize, written: Option<u32>) -> u32 {
        let register = match self.place {
            Place::Memory { offset, stride, width: right } if width == right => at
                .checked_sub(offset)
                .filter(|distance| distance % stride == 0 && distance / stride < 8)
                .map(|distance| (distance / stride) as u8),
            _ => None,
        };
        self.register(register, width, written, format!("memory +{at:#x}, {width} bytes"))
    }
}

/// Runs `f` with `bus` behind every access to a port or to the page, whose address it is given.
pub(crate) fn run<R>(bus: &mut dyn Bus, f: impl FnOnce(NonNull<u8>) -> R) -> R {
    install();
    let page = page();
    // SAFETY: only the lifetime changes; the pointer is taken back before `bus` ends.
    let bus: *mut (dyn Bus + 'static) = unsafe { std::mem::transmute(bus) };
    assert!(BUS.replace(Some(bus)).is_none(), "one bus at a time in a thread");
    let result = f(NonNull::new(page).unwrap());
    BUS.set(None);
    result
}

const PAGE: usize = 4096;

thread_local! {
    static BUS: Cell<Option<*mut (dyn Bus + 'static)>> = const { Cell::new(None) };
    static MEMORY: Cell<*mut u8> = const { Cell::new(std::ptr::null_mut()) };
}

/// The page without access rights, one a thread.
fn page() -> *mut u8 {
    if MEMORY.get().is_null() {
        // SAFETY: a new mapping, of no memory that anyone has.
        let page = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                PAGE,
                libc::PROT_NONE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(page, libc::MAP_FAILED);
        MEMORY.set(page.cast());
    }
    MEMORY.get()
}

fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // iced builds its tables when first used: not in a signal handler.
        decode(&[0xec]);
        // SAFETY: a handler of the right signature, which leaves what is not its own to the default action.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = handler as *const () as usize;
            action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER;
            assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
        }
    });
}

fn decode(bytes: &[u8]) -> Instruction {
    Decoder::new(64, bytes, DecoderOptions::NONE).decode()
}

extern "C" fn handler(_: libc::c_int, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel gives both for SA_SIGINFO, and nothing else refers to them.
    let (info, context) = unsafe { (&*info, &mut *context.cast::<libc::ucontext_t>()) };
    let registers = &mut context.uc_mcontext.gregs;
    let rip = registers[libc::REG_RIP as usize];
    // SAFETY: the instruction at RIP was fetched from there; no template ends closer than this to unmapped memory, since
    // each is followed by padding or other text.
    let bytes = unsafe { std::slice::from_raw_parts(rip as *const u8, 15) };
    // SAFETY: for SIGSEGV the field is there.
    let address = unsafe { info.si_addr() } as usize;
    let done = BUS.get().is_some_and(|bus| {
        // SAFETY: set by `run`, which holds the board borrowed and is interrupted now.
        let bus = unsafe { &mut *bus };
        step(bus, &decode(bytes), address.wrapping_sub(MEMORY.get() as usize), registers)
    });
    if !done {
        // A real fault: taken again, with the default action.
        // SAFETY: no handler is left that could be surprised.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
}

/// Carries out `instruction`, whose memory operand lies `offset` bytes into the page. False: not one that a driver should use.
fn step(bus: &mut dyn Bus, instruction: &Instruction, offset: usize, registers: &mut [i64; 23]) -> bool {
    match instruction.mnemonic() {
        Mnemonic::In => {
            let value = bus.port(port(instruction, 1, registers), instruction.op0_register().size(), None);
            set(registers, instruction.op0_register(), value);
        }
        Mnemonic::Out => {
            let value = get(registers, instruction.op1_register());
            bus.port(port(instruction, 0, registers), instruction.op1_register().size(), Some(value));
        }
        Mnemonic::Mov | Mnemonic::Movzx if offset < PAGE => {
            let width = instruction.memory_size().size();
            if instruction.op0_kind() == OpKind::Register {
                let value = bus.memory(offset, width, None);
                let value = if width == 1 { value & 0xff } else { value };
                set(registers, instruction.op0_register(), value);
            } else {
                let value = match instruction.op1_kind() {
                    OpKind::Register => get(registers, instruction.op1_register()),
                    _ => instruction.immediate(1) as u32,
                };
                bus.memory(offset, width, Some(value));
            }
        }
        _ => return false,
    }
    registers[libc::REG_RIP as usize] += instruction.len() as i64;
    true
}

fn port(instruction: &Instruction, operand: u32, registers: &[i64; 23]) -> u16 {
    match instruction.op_kind(operand) {
        OpKind::Register => registers[libc::REG_RDX as usize] as u16,
        _ => instruction.immediate(operand) as u16,
    }
}

fn slot(register: Register) -> usize {
    (match register.full_register() {
        Register::RAX => libc::REG_RAX,
        Register::RBX => libc::REG_RBX,
        Register::RCX => libc::REG_RCX,
        Register::RDX => libc::REG_RDX,
        Register::RSI => libc::REG_RSI,
        Register::RDI => libc::REG_RDI,
        Register::RBP => libc::REG_RBP,
        Register::R8 => libc::REG_R8,
        Register::R9 => libc::REG_R9,
        Register::R10 => libc::REG_R10,
        Register::R11 => libc::REG_R11,
        Register::R12 => libc::REG_R12,
        Register::R13 => libc::REG_R13,
        Register::R14 => libc::REG_R14,
        Register::R15 => libc::REG_R15,
        other => panic!("no place for {other:?}"),
    }) as usize
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::BH | Register::CH | Register::DH)
}

fn get(registers: &[i64; 23], register: Register) -> u32 {
    let value = registers[slot(register)] as u64;
    let value = if is_high_byte(register) { value >> 8 } else { value };
    match register.size() {
        1 => value as u8 as u32,
        2 => value as u16 as u32,
        _ => value as u32,
    }
}

/// As the processor does it: 8 and 16 bits leave the rest, 32 bits clear the upper half.
fn set(registers: &mut [i64; 23], register: Register, value: u32) {
    let slot = &mut registers[slot(register)];
    let (shift, mask) = match register.size() {
        1 if is_high_byte(register) => (8, 0xff),
        1 => (0, 0xff),
        2 => (0, 0xffff),
        _ => (0, u64::MAX),
    };
    *slot = (*slot as u64 & !(mask << shift) | (u64::from(value) & mask) << shift) as i64;
}
