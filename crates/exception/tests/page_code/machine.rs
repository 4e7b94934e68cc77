//! A model of a processor at CPL 0, for page code that runs in this process.
//!
//! What is not privileged runs natively. What is faults, and is decoded and applied to the model. Faults of memory are
//! delivered as the manual says (SDM Vol. 3A, 7.14): through the IDT, GDT and TSS that the test's `DebugFrame` holds, which are read
//! here byte by byte. A policy may look on, single-step the code and inject an event at any boundary.

use std::arch::asm;
use std::cell::Cell;
use std::ptr;
use std::sync::Once;

use iced_x86::{Code, Decoder, DecoderOptions, OpKind, Register};
use kexec_abi::page_code::PageCode;
use kexec_abi::{Progress, VirtAddr};
use kexec_exception::page_code::{
    After, Captured, Counters, DUMP, DebugFrame, DebugSetup, DumpState, EXCEPTION, OnDebug,
};

const SIZE: usize = 0x40000;
const CODE: usize = 0;
const FRAME: usize = 0x1000;
const DATA: usize = 0x2000;
/// A page of HLT, and behind it one that is not mapped: the interrupted code.
pub(crate) const TEXT: usize = 0x3000;
/// A page of stack, and behind it one that is not mapped.
pub(crate) const STACK: usize = 0x5000;
const OUTPUT: usize = 0x8000;
const OUTPUT_END: usize = 0xf000;
/// What stands for physical memory, from its address 0 on; behind it a page that is not mapped.
pub(crate) const PHYS: usize = 0x10000;
pub(crate) const PHYS_SIZE: usize = 0x10000;
const UNMAPPED: [usize; 4] = [TEXT + 0x1000, STACK + 0x1000, OUTPUT_END, PHYS + PHYS_SIZE];

const CONFIG: usize = DATA + 0x100;
/// More instructions than any run has; one that reaches them is a loop.
const MOST_STEPS: u64 = 1_000_000;

kexec_abi::page_code! {
    /// A console that does all that its contract allows: it clobbers each register and the 64 bytes of stack, and wants
    /// the stack aligned and DF clear. Its block: where the next byte goes; when to fault (bytes left, less one); whether to
    /// call the model at each byte.
    static RECORDER: [192];
    labels { 20: Code64 "put_byte" }
    asm {
        "20:",
        "endbr64",
        "cmp qword ptr [rdi + 16], 0",
        "je 2f",
        "cli", // not of the contract: here the model looks in, if there is a policy
        "2:",
        "pushfq",
        "pop rax",
        "test eax, 1 << 10", // DF
        "jnz 3f",
        "lea rax, [rsp + 8]",
        "test al, 15",
        "jnz 3f",
        "dec qword ptr [rdi + 8]",
        "js 3f",
        "mov rax, [rdi]",
        "mov [rax], sil",
        "inc qword ptr [rdi]",
        ".irp below, 8, 16, 24, 32, 40, 48, 56, 64",
        "mov [rsp - \\below], rdi",
        ".endr",
        "mov rax, 0x5a5a5a5a5a5a5a5a",
        "mov rcx, rax",
        "mov rdx, rax",
        "mov rsi, rax",
        "mov rdi, rax",
        "mov r8, rax",
        "mov r9, rax",
        "mov r10, rax",
        "mov r11, rax",
        "cmp al, -1", // sets CF
        "ret",
        "3:",
        "mov rax, [{unmapped}]",
        "ret",
    }
    operands { unmapped = const 8 }
}

/// The general registers in the order of `NAMES`, and what an interrupt saves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Registers {
    pub(crate) general: [u64; 15],
    pub(crate) rip: u64,
    pub(crate) rflags: u64,
    pub(crate) rsp: u64,
}

const GENERAL: [libc::c_int; 15] = [
    libc::REG_RAX,
    libc::REG_RBX,
    libc::REG_RCX,
    libc::REG_RDX,
    libc::REG_RSI,
    libc::REG_RDI,
    libc::REG_RBP,
    libc::REG_R8,
    libc::REG_R9,
    libc::REG_R10,
    libc::REG_R11,
    libc::REG_R12,
    libc::REG_R13,
    libc::REG_R14,
    libc::REG_R15,
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub(crate) efer: u64,
}

/// An event for the processor to deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) vector: u8,
    pub(crate) error: Option<u32>,
}

impl Event {
    /// As the processor raises it: with an error code for the vectors that have one (SDM Vol. 3A, table 7-1; AMD for 29 and 30).
    pub(crate) fn raised(vector: u8, error: u32) -> Self {
        let has_one = [8, 10, 11, 12, 13, 14, 17, 21, 29, 30].contains(&vector);
        Self { vector, error: has_one.then_some(error) }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// HLT in the interrupted code: the handlers returned.
    Returned,
    /// HLT in the handlers.
    Halted,
    /// An exception without an IDT.
    Shutdown,
}

/// What a policy is told at an instruction boundary.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Boundary {
    /// The offset of the next instruction in EXCEPTION, if it lies there.
    pub(crate) in_exception: Option<u64>,
    /// Whether the instruction before was an IRETQ.
    pub(crate) after_iret: bool,
    pub(crate) nmi_blocked: bool,
}

type Gregs = [libc::greg_t; 23];

/// Called wherever the model is: at each boundary while it has [`Machine::stepping`] set, else after each fault and privileged
/// instruction, of which the console has one a byte. May name an event to deliver.
pub(crate) type Policy = Box<dyn FnMut(&mut Machine, Boundary) -> Option<Event>>;

pub(crate) struct Machine {
    base: *mut u8,
    pub(crate) registers: Registers,
    pub(crate) control: Control,
    pub(crate) policy: Option<Policy>,
    pub(crate) stepping: bool,
    stepped: bool,
    /// Bytes written to ports, and `(0x80, 0)` for a read of it: the first few, and how many there were.
    pub(crate) writes: Vec<(u16, u8)>,
    pub(crate) reads: Vec<u64>,
    pub(crate) steps: u64,
    pub(crate) lowest_rsp: u64,
    idt: (u64, u16),
    nmi_blocked: bool,
    previous: u64,
    event: Option<Event>,
    host: Option<Gregs>,
    end: Option<End>,
    failure: Option<String>,
}

/// What a test may set up apart from the defaults.
pub(crate) struct Setup {
    pub(crate) ist: bool,
    pub(crate) console: bool,
    pub(crate) on_debug: OnDebug,
    pub(crate) after: After,
    pub(crate) phys: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self { ist: true, console: true, on_debug: OnDebug::Dump, after: After::Halt, phys: true }
    }
}

thread_local! {
    static MACHINE: Cell<*mut Machine> = const { Cell::new(ptr::null_mut()) };
}

impl Machine {
    pub(crate) fn new(setup: &Setup) -> Self {
        // SAFETY: a fresh mapping.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                SIZE,
                libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert_ne!(base, libc::MAP_FAILED);
        let base = base.cast::<u8>();
        for page in UNMAPPED {
            // SAFETY: a page of the mapping.
            assert_eq!(0, unsafe { libc::mprotect(base.add(page).cast(), 0x1000, libc::PROT_NONE) });
        }
        let mut machine = Self {
            base,
            registers: Registers::default(),
            control: Control::default(),
            policy: None,
            stepping: false,
            stepped: false,
            writes: Vec::new(),
            reads: Vec::new(),
            steps: 0,
            lowest_rsp: u64::MAX,
            idt: (0, 0),
            nmi_blocked: false,
            previous: 0,
            event: None,
            host: None,
            end: None,
            failure: None,
        };

        let mut next = CODE;
        let mut lay = |piece: &PageCode| {
            let at = next;
            machine.write(at, piece.bytes());
            next = (at + piece.bytes().len()).next_multiple_of(16);
            at
        };
        let [stubs, dump, recorder] = [lay(&EXCEPTION), lay(&DUMP), lay(&RECORDER)];
        assert!(next <= FRAME);
        let put_byte = recorder + RECORDER.find("put_byte").unwrap();
        machine.write(TEXT, &[0xf4; 0x1000]);
        machine.write(CONFIG, &machine.address(OUTPUT).to_le_bytes());
        machine.break_console_after(u64::MAX >> 1);

        let at = |offset| VirtAddr::new(machine.address(offset));
        let frame = DebugFrame::new(&DebugSetup {
            frame: at(FRAME),
            stubs: at(stubs),
            dump: at(dump),
            console: setup.console.then_some((at(put_byte), at(CONFIG))),
            progress: at(DATA),
            gate_selector: DebugFrame::CODE_SELECTOR,
            ist: setup.ist,
            on_debug: setup.on_debug,
            after: setup.after,
            phys_offset: setup.phys.then_some(at(PHYS)),
        })
        .unwrap();
        machine.write(FRAME, frame.as_bytes());
        machine.registers.rip = machine.address(TEXT);
        machine.registers.rsp =
            machine.address(if setup.ist { STACK + 0x800 } else { FRAME + DebugFrame::STACK_TOP });
        machine.registers.rflags = 0x202;
        machine
    }

    pub(crate) fn address(&self, offset: usize) -> u64 {
        self.base as u64 + offset as u64
    }

    pub(crate) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= SIZE);
        // SAFETY: inside the mapping; nothing else has a reference into it.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base.add(offset), bytes.len()) };
    }

    pub(crate) fn read(&self, offset: usize, len: usize) -> Vec<u8> {
        assert!(offset + len <= SIZE);
        // SAFETY: inside the mapping; the code that writes it does not run now.
        unsafe { std::slice::from_raw_parts(self.base.add(offset), len) }.to_vec()
    }

    pub(crate) fn word(&self, offset: usize) -> u64 {
        u64::from_le_bytes(self.read(offset, 8).try_into().unwrap())
    }

    pub(crate) fn frame_word(&self, offset: usize) -> u64 {
        self.word(FRAME + offset)
    }

    pub(crate) fn frame_bytes(&self) -> Vec<u8> {
        self.read(FRAME, 4096)
    }

    pub(crate) fn paint_frame(&mut self, range: std::ops::Range<usize>, byte: u8) {
        self.write(FRAME + range.start, &vec![byte; range.len()]);
    }

    pub(crate) fn set_progress(&mut self, progress: Progress) {
        let words = [progress.phase, progress.entry, progress.entry_address, progress.code];
        self.write(DATA, &words.map(u64::to_le_bytes).concat());
    }

    /// Has the state name a place without memory.
    pub(crate) fn lose_progress(&mut self) {
        let at = FRAME + std::mem::offset_of!(DumpState, progress);
        self.write(at, &self.address(TEXT + 0x1000).to_le_bytes());
    }

    /// The end of the stack that the gate of `vector` switches to, as an offset in the frame.
    pub(crate) fn ist_top(&self, vector: u8) -> u64 {
        let table = |at: usize| self.frame_word(at + 2) - self.address(FRAME);
        let gate = table(DebugFrame::IDTR) as usize + usize::from(vector) * 16;
        let ist = usize::from(self.frame_bytes()[gate + 4]);
        let descriptor = table(DebugFrame::GDTR) as usize + usize::from(DebugFrame::TSS_SELECTOR);
        let [low, high] = [self.frame_word(descriptor), self.frame_word(descriptor + 8)];
        let tss = (low >> 16 & 0xff_ffff | low >> 56 << 24 | high << 32) - self.address(FRAME);
        self.frame_word(tss as usize + 0x24 + (ist - 1) * 8) - self.address(FRAME)
    }

    pub(crate) fn fixup(&self) -> u64 {
        self.frame_word(std::mem::offset_of!(DumpState, fixup))
    }

    /// Has the console fault from its `bytes + 1`-th byte on.
    pub(crate) fn break_console_after(&mut self, bytes: u64) {
        self.write(CONFIG + 8, &bytes.to_le_bytes());
    }

    pub(crate) fn counters(&self) -> Counters {
        let word = |offset| self.frame_word(DebugFrame::COUNTERS + offset);
        Counters {
            debug: word(std::mem::offset_of!(Counters, debug)),
            nmi: word(std::mem::offset_of!(Counters, nmi)),
            breakpoint: word(std::mem::offset_of!(Counters, breakpoint)),
        }
    }

    /// What the console was given.
    pub(crate) fn output(&self) -> String {
        let len = self.word(CONFIG) - self.address(OUTPUT);
        String::from_utf8(self.read(OUTPUT, len as usize)).expect("ASCII")
    }

    /// Whether all of a dump but its last byte is printed.
    pub(crate) fn dump_is_over(&self) -> bool {
        let output = self.output();
        output.contains("crc32=") && output.ends_with(['\r', '\n'])
    }

    /// Delivers the event and runs until the end.
    pub(crate) fn take(&mut self, event: Event) -> End {
        self.event = Some(event);
        self.run()
    }

    /// Has dumps skipped, or printed again.
    pub(crate) fn skip_dumps(&mut self, skip: bool) {
        let entry = if skip {
            CODE + EXCEPTION.find("silent").unwrap()
        } else {
            EXCEPTION.bytes().len().next_multiple_of(16) + DUMP.find("dump").unwrap()
        };
        self.write(FRAME, &self.address(entry).to_le_bytes()); // the first word of the state
    }

    /// Enters EXCEPTION at its label `fatal`, with a machine captured elsewhere.
    pub(crate) fn enter_fatal(&mut self, captured: &Captured) -> End {
        let stubs = CODE + EXCEPTION.find("fatal").unwrap();
        // SAFETY: 256 bytes of plain words.
        let bytes = unsafe { &*(&raw const *captured).cast::<[u8; 256]>() };
        self.write(FRAME + DebugFrame::CAPTURED, bytes);
        self.registers.rip = self.address(stubs);
        self.registers.general[5] = self.address(FRAME);
        self.registers.general[4] = self.address(FRAME + DebugFrame::CAPTURED);
        self.run()
    }

    fn run(&mut self) -> End {
        static INSTALL: Once = Once::new();
        INSTALL.call_once(|| {
            for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP] {
                // SAFETY: an all-zero sigaction is one; the handler has the signature of SA_SIGINFO.
                unsafe {
                    let mut action: libc::sigaction = std::mem::zeroed();
                    action.sa_sigaction = on_signal as *const () as usize;
                    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                    assert_eq!(0, libc::sigaction(signal, &action, ptr::null_mut()));
                }
            }
        });
        let mut alternate = vec![0_u8; 1 << 20];
        let stack =
            libc::stack_t { ss_sp: alternate.as_mut_ptr().cast(), ss_flags: 0, ss_size: alternate.len() };
        let pointer = self.word(FRAME + DebugFrame::IDTR - 6 + 8);
        self.idt = (pointer, u16::from_le_bytes(self.read(FRAME + DebugFrame::IDTR, 2).try_into().unwrap()));
        self.end = None;
        self.write(CONFIG + 16, &u64::from(self.policy.is_some()).to_le_bytes());
        // SAFETY: UD2 enters `on_signal`, which saves every register, runs the model and restores them behind the UD2. The stack
        // for signals outlives the run.
        unsafe {
            let mut before: libc::stack_t = std::mem::zeroed();
            assert_eq!(0, libc::sigaltstack(&stack, &mut before));
            MACHINE.set(self);
            asm!("ud2");
            MACHINE.set(ptr::null_mut());
            assert_eq!(0, libc::sigaltstack(&before, ptr::null_mut()));
        }
        if let Some(failure) = self.failure.take() {
            panic!("{failure}: {}", self.output());
        }
        self.end.expect("the run has ended")
    }

    /// The bytes at an address of the region.
    fn peek<const N: usize>(&self, address: u64) -> Option<[u8; N]> {
        let offset = address.checked_sub(self.base as u64)? as usize;
        let mapped = offset.checked_add(N)? <= SIZE
            && !UNMAPPED.iter().any(|page| offset < page + 0x1000 && *page < offset + N);
        // SAFETY: inside the mapping, and readable.
        mapped.then(|| unsafe { self.base.add(offset).cast::<[u8; N]>().read_unaligned() })
    }

    fn push(&mut self, gregs: &mut Gregs, value: u64) {
        let rsp = gregs[libc::REG_RSP as usize] as u64 - 8;
        gregs[libc::REG_RSP as usize] = rsp as i64;
        let offset = rsp.checked_sub(self.base as u64).filter(|offset| *offset < SIZE as u64 - 8);
        let Some(offset) = offset else {
            panic!("a push to {rsp:#x}, outside of memory: a double fault");
        };
        self.write(offset as usize, &value.to_le_bytes());
    }

    /// SDM Vol. 3A, 7.14.
    fn deliver(&mut self, gregs: &mut Gregs, event: Event) {
        let (base, limit) = self.idt;
        if limit < u16::from(event.vector) * 16 + 15 {
            return self.stop(gregs, End::Shutdown);
        }
        let gate: [u8; 16] = self.peek(base + u64::from(event.vector) * 16).expect("the IDT is mapped");
        assert_eq!(gate[5], 0x8e, "a present 64-bit interrupt gate");
        let word = |at: usize| u64::from(u16::from_le_bytes([gate[at], gate[at + 1]]));
        let handler =
            word(0) | word(6) << 16 | u64::from(u32::from_le_bytes(gate[8..12].try_into().unwrap())) << 32;
        let gdtr: [u8; 10] = self.peek(self.address(FRAME + DebugFrame::GDTR)).unwrap();
        let gdt = u64::from_le_bytes(gdtr[2..].try_into().unwrap());
        let descriptor = |selector: u64| u64::from_le_bytes(self.peek(gdt + selector).unwrap());
        assert_eq!(descriptor(word(2)) >> 40 & 0xff, 0x9b, "present, code");
        assert_eq!(descriptor(word(2)) >> 53 & 3, 1, "64-bit");

        let interrupted = *gregs;
        let reg = |index: libc::c_int| interrupted[index as usize] as u64;
        if gate[4] != 0 {
            let tss = descriptor(DebugFrame::TSS_SELECTOR.into());
            let base = tss >> 16 & 0xff_ffff
                | tss >> 56 << 24
                | descriptor(u64::from(DebugFrame::TSS_SELECTOR) + 8) << 32;
            let ist = u64::from_le_bytes(self.peek(base + 0x24 + 8 * u64::from(gate[4] - 1)).unwrap());
            gregs[libc::REG_RSP as usize] = ist as i64;
        }
        gregs[libc::REG_RSP as usize] &= !15;
        let selectors = reg(libc::REG_CSGSFS);
        self.push(gregs, selectors >> 48);
        self.push(gregs, reg(libc::REG_RSP));
        self.push(gregs, reg(libc::REG_EFL) & !TRAP_FLAG);
        self.push(gregs, selectors & 0xffff);
        self.push(gregs, reg(libc::REG_RIP));
        if let Some(error) = event.error {
            self.push(gregs, error.into());
        }
        gregs[libc::REG_RIP as usize] = handler as i64;
        self.nmi_blocked |= event.vector == 2;
    }

    fn stop(&mut self, gregs: &mut Gregs, end: End) {
        for (value, index) in self.registers.general.iter_mut().zip(GENERAL) {
            *value = gregs[index as usize] as u64;
        }
        self.registers.rip = gregs[libc::REG_RIP as usize] as u64;
        self.registers.rflags = gregs[libc::REG_EFL as usize] as u64 & !(TRAP_FLAG | RESUME_FLAG);
        self.registers.rsp = gregs[libc::REG_RSP as usize] as u64;
        self.end = Some(end);
        *gregs = self.host.take().expect("a run began");
        gregs[libc::REG_RIP as usize] += 2;
    }

    fn start(&mut self, gregs: &mut Gregs) {
        self.host = Some(*gregs);
        for (value, index) in self.registers.general.iter().zip(GENERAL) {
            gregs[index as usize] = *value as i64;
        }
        gregs[libc::REG_RIP as usize] = self.registers.rip as i64;
        gregs[libc::REG_EFL as usize] = self.registers.rflags as i64;
        gregs[libc::REG_RSP as usize] = self.registers.rsp as i64;
        if let Some(event) = self.event.take() {
            self.deliver(gregs, event);
        }
    }

    /// Applies the instruction at RIP to the model, if it is privileged.
    fn privileged(&mut self, gregs: &mut Gregs) -> bool {
        let rip = gregs[libc::REG_RIP as usize] as u64;
        let Some(bytes) = self.peek::<15>(rip) else { return false };
        let instruction = Decoder::with_ip(64, &bytes, rip, DecoderOptions::NONE).decode();
        let mut set = |index: libc::c_int, value: u64| gregs[index as usize] = value as i64;
        match instruction.code() {
            Code::Mov_r64_cr => {
                assert_eq!(instruction.op0_register(), Register::RAX);
                let value = match instruction.op1_register() {
                    Register::CR0 => self.control.cr0,
                    Register::CR2 => self.control.cr2,
                    Register::CR3 => self.control.cr3,
                    Register::CR4 => self.control.cr4,
                    Register::CR8 => self.control.cr8,
                    other => panic!("{other:?}"),
                };
                set(libc::REG_RAX, value);
            }
            Code::Rdmsr => {
                assert_eq!(gregs[libc::REG_RCX as usize] as u32, 0xc000_0080, "the only MSR that is read");
                gregs[libc::REG_RAX as usize] = i64::from(self.control.efer as u32);
                gregs[libc::REG_RDX as usize] = (self.control.efer >> 32) as i64;
            }
            Code::Cli => {}
            Code::In_AL_imm8 => {
                assert_eq!(instruction.immediate8(), 0x80);
                match self.reads.last_mut() {
                    Some(count) => *count += 1,
                    None => self.reads.push(1),
                }
            }
            Code::Out_imm8_AL | Code::Out_DX_AL => {
                let port = match instruction.op0_kind() {
                    OpKind::Immediate8 => instruction.immediate8().into(),
                    _ => gregs[libc::REG_RDX as usize] as u16,
                };
                self.writes.push((port, gregs[libc::REG_RAX as usize] as u8));
                self.reads.push(0);
            }
            Code::Lidt_m1664 => {
                let operand: [u8; 10] = self.peek(gregs[libc::REG_RSP as usize] as u64).unwrap();
                self.idt = (
                    u64::from_le_bytes(operand[2..].try_into().unwrap()),
                    u16::from_le_bytes([operand[0], operand[1]]),
                );
            }
            Code::Hlt => {
                let text = self.address(TEXT)..self.address(TEXT + 0x1000);
                self.stop(gregs, if text.contains(&rip) { End::Returned } else { End::Halted });
                return true;
            }
            _ => return false,
        }
        gregs[libc::REG_RIP as usize] += instruction.len() as i64;
        true
    }

    /// One signal of the code under test.
    fn event(&mut self, gregs: &mut Gregs) {
        self.steps += 1;
        if self.steps > MOST_STEPS {
            self.failure = Some("the handlers loop".into());
            return self.stop(gregs, End::Halted);
        }
        let vector = gregs[libc::REG_TRAPNO as usize] as u8;
        match vector {
            1 => {}
            12..=14 if self.privileged(gregs) => {}
            _ => {
                let error = gregs[libc::REG_ERR as usize] as u32 & !4; // not from CPL 3
                if vector == 14 {
                    self.control.cr2 = gregs[libc::REG_CR2 as usize] as u64;
                }
                self.deliver(gregs, Event::raised(vector, error));
            }
        }
    }

    /// A boundary between two instructions, before the next one.
    fn boundary(&mut self, gregs: &mut Gregs) {
        let rsp = gregs[libc::REG_RSP as usize] as u64;
        if (self.address(FRAME)..self.address(FRAME + 4096)).contains(&rsp) {
            self.lowest_rsp = self.lowest_rsp.min(rsp - self.address(FRAME));
        }
        let Some(mut policy) = self.policy.take() else { return };
        let rip = gregs[libc::REG_RIP as usize] as u64;
        let after_iret =
            self.stepped && self.peek(self.previous) == Some([0x48, 0xcf]) && self.previous != rip;
        self.nmi_blocked &= self.stepped && !after_iret; // No handler of an NMI is left where the model is not called meanwhile.
        let piece = self.address(CODE)..self.address(CODE + EXCEPTION.used());
        let boundary = Boundary {
            in_exception: piece.contains(&rip).then(|| rip - piece.start),
            after_iret,
            nmi_blocked: self.nmi_blocked,
        };
        let event = policy(self, boundary);
        if let Some(event) = event {
            self.deliver(gregs, event);
        }
        self.previous = gregs[libc::REG_RIP as usize] as u64;
        self.stepped = self.stepping;
        if self.stepping {
            gregs[libc::REG_EFL as usize] |= TRAP_FLAG as i64;
        } else {
            gregs[libc::REG_EFL as usize] &= !TRAP_FLAG as i64;
        }
        self.policy = Some(policy);
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; nothing refers to it any more.
        unsafe { libc::munmap(self.base.cast(), SIZE) };
    }
}

const TRAP_FLAG: u64 = 1 << 8;
/// Set in what a fault pushes, so also when HLT faults here.
const RESUME_FLAG: u64 = 1 << 16;

extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let machine = MACHINE.get();
    if machine.is_null() {
        // SAFETY: not ours: the instruction is executed again, and now ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel passes a ucontext; the machine is the one of `run`, which does nothing else meanwhile. The code that
    // was interrupted is page code or the UD2 of `run`: never the allocator.
    let (machine, gregs) =
        unsafe { (&mut *machine, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    if machine.host.is_none() {
        machine.start(gregs);
    } else {
        machine.event(gregs);
    }
    if machine.end.is_none() {
        machine.boundary(gregs);
    }
}
