//! Events on the host: what the processor does when it enters a gate, done by hand, so that the stubs run as they are.
//!
//! IRETQ works at CPL 3 when it stays there. What does not work there (CR2, SWAPGS, RDMSR, a return to CPL 0) faults, and
//! [`Machine`] steps in.
#![cfg(target_arch = "x86_64")]
#![allow(dead_code, unreachable_pub)] // each test file uses its own part

use std::arch::{asm, naked_asm};
use std::cell::Cell;
use std::mem::offset_of;
use std::sync::Once;

use kexec_exception::entry::Stub;

/// General registers but RSP, in the order of their numbers.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// How the program's vector registers are loaded before and stored after the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum VectorImage {
    /// Not at all.
    None,
    /// By FXRSTOR and FXSAVE.
    Fx,
    /// By XRSTOR and XSAVE, with AVX.
    Avx,
}

/// The image of the vector registers in memory: Intel SDM volume 1, 10.5.1 and 13.4.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vectors(pub [u8; 832]);

/// An event, and what the interrupted program finds after it.
#[repr(C)]
#[derive(Debug)]
pub struct Event {
    pub before: Registers,
    pub rflags: u64,
    pub rip: u64,
    pub rsp: u64,
    pub cs: u64,
    pub ss: u64,
    pub has_error_code: u64,
    pub error_code: u64,
    /// RFLAGS when the stub starts.
    pub rflags_live: u64,
    /// How far below a multiple of 64 the event's stack begins.
    pub stack_offset: u64,
    stub: u64,
    event_stack: u64,
    host_rsp: u64,

    pub after: Registers,
    pub rflags_after: u64,
    pub rsp_after: u64,
    /// The number of the landing that was reached.
    pub landed: u64,

    pub image: VectorImage,
    pub vectors: Vectors,
    pub vectors_after: Vectors,
}

pub const CF: u64 = 1 << 0;
pub const DF: u64 = 1 << 10;
/// The flags that a program may set freely and see again: CF PF AF ZF SF DF OF ID.
pub const FREE_FLAGS: u64 = 0x20_0cd5;

/// The event's stack and the program's.
#[repr(C, align(64))]
struct Stacks {
    event: [u8; 65536],
    program: [u64; 64],
}

impl Event {
    /// An event at [`landing`] 2 of a program with this state.
    pub fn new(before: Registers, rflags: u64) -> Self {
        let (cs, ss): (u64, u64);
        // SAFETY: reads two selectors.
        unsafe { asm!("mov {:x}, cs", "mov {:x}, ss", out(reg) cs, out(reg) ss, options(nomem, nostack)) };
        Self {
            before,
            rflags,
            rip: landing::<2> as *const () as u64,
            rsp: 0,
            cs: cs & 0xffff,
            ss: ss & 0xffff,
            has_error_code: 0,
            error_code: 0,
            rflags_live: rflags,
            stack_offset: 0,
            stub: 0,
            event_stack: 0,
            host_rsp: 0,
            after: Registers::default(),
            rflags_after: 0,
            rsp_after: 0,
            landed: 0,
            image: VectorImage::None,
            vectors: Vectors([0; _]),
            vectors_after: Vectors([0; _]),
        }
    }

    pub fn with_error_code(mut self, error_code: Option<u64>) -> Self {
        self.has_error_code = u64::from(error_code.is_some());
        self.error_code = error_code.unwrap_or(0);
        self
    }

    /// Enters the stub; back when the program has landed.
    pub fn raise(mut self, stub: Stub) -> Self {
        let mut stacks = Box::new(Stacks { event: [0xcc; _], program: [0; _] });
        self.stub = stub as usize as u64;
        self.event_stack = (&raw const stacks.program) as u64 - self.stack_offset; // the end of the event's
        // Both words where a program may land point to this, so a handler may move RSP from the one to the other.
        self.rsp = (&raw const stacks.program[32]) as u64;
        let this = &raw mut self;
        stacks.program[32] = this as u64;
        stacks.program[40] = this as u64;
        // SAFETY: the stub returns to a landing, which returns here.
        unsafe { enter(this) };
        self
    }
}

/// `enter(event)`: pushes the hardware frame, loads the program's registers, and jumps to the stub.
#[unsafe(naked)]
unsafe extern "sysv64" fn enter(event: *mut Event) {
    naked_asm!(
        "push rbx", "push rbp", "push r12", "push r13", "push r14", "push r15",
        "mov [rdi + {host_rsp}], rsp",
        "mov rsp, [rdi + {event_stack}]",
        "push [rdi + {ss}]", "push [rdi + {rsp}]", "push [rdi + {rflags}]", "push [rdi + {cs}]", "push [rdi + {rip}]",
        "cmp qword ptr [rdi + {has_error_code}], 0",
        "je 2f",
        "push [rdi + {error_code}]",
        "2:",
        "cmp qword ptr [rdi + {image}], 1",
        "jb 3f",
        "jne 2f",
        "fxrstor64 [rdi + {vectors}]",
        "jmp 3f",
        "2:",
        "mov eax, 7",
        "xor edx, edx",
        "xrstor64 [rdi + {vectors}]",
        "3:",
        "push [rdi + {stub}]",
        "push [rdi + {rflags_live}]",
        "popfq",
        "mov rax, [rdi + 0x00]", "mov rcx, [rdi + 0x08]", "mov rdx, [rdi + 0x10]", "mov rbx, [rdi + 0x18]",
        "mov rbp, [rdi + 0x20]", "mov rsi, [rdi + 0x28]", "mov r8, [rdi + 0x38]", "mov r9, [rdi + 0x40]",
        "mov r10, [rdi + 0x48]", "mov r11, [rdi + 0x50]", "mov r12, [rdi + 0x58]", "mov r13, [rdi + 0x60]",
        "mov r14, [rdi + 0x68]", "mov r15, [rdi + 0x70]", "mov rdi, [rdi + 0x30]",
        "ret", // to the stub
        host_rsp = const offset_of!(Event, host_rsp),
        event_stack = const offset_of!(Event, event_stack),
        ss = const offset_of!(Event, ss),
        rsp = const offset_of!(Event, rsp),
        rflags = const offset_of!(Event, rflags),
        cs = const offset_of!(Event, cs),
        rip = const offset_of!(Event, rip),
        has_error_code = const offset_of!(Event, has_error_code),
        error_code = const offset_of!(Event, error_code),
        rflags_live = const offset_of!(Event, rflags_live),
        stub = const offset_of!(Event, stub),
        image = const offset_of!(Event, image),
        vectors = const offset_of!(Event, vectors),
    )
}

/// Where an interrupted program goes on: notes its registers and returns from [`enter`]. The event's address is at RSP.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn landing<const NUMBER: u64>() {
    naked_asm!(
        "xchg rdi, [rsp]",
        "mov qword ptr [rdi + {landed}], {number}",
        "mov [rdi + {after} + 0x00], rax", "mov [rdi + {after} + 0x08], rcx", "mov [rdi + {after} + 0x10], rdx",
        "mov [rdi + {after} + 0x18], rbx", "mov [rdi + {after} + 0x20], rbp", "mov [rdi + {after} + 0x28], rsi",
        "mov [rdi + {after} + 0x38], r8", "mov [rdi + {after} + 0x40], r9", "mov [rdi + {after} + 0x48], r10",
        "mov [rdi + {after} + 0x50], r11", "mov [rdi + {after} + 0x58], r12", "mov [rdi + {after} + 0x60], r13",
        "mov [rdi + {after} + 0x68], r14", "mov [rdi + {after} + 0x70], r15",
        "mov rax, [rsp]",
        "mov [rdi + {after} + 0x30], rax",
        "mov [rdi + {rsp_after}], rsp",
        "pushfq",
        "pop [rdi + {rflags_after}]",
        "cld",
        "cmp qword ptr [rdi + {image}], 1",
        "jb 3f",
        "jne 2f",
        "fxsave64 [rdi + {vectors_after}]",
        "jmp 4f",
        "2:",
        "mov eax, 7",
        "xor edx, edx",
        "xsave64 [rdi + {vectors_after}]",
        "4:",
        "fninit",
        "push 0x1f80",
        "ldmxcsr [rsp]",
        "3:",
        "mov rsp, [rdi + {host_rsp}]",
        "pop r15", "pop r14", "pop r13", "pop r12", "pop rbp", "pop rbx",
        "ret",
        number = const NUMBER,
        landed = const offset_of!(Event, landed),
        after = const offset_of!(Event, after),
        rsp_after = const offset_of!(Event, rsp_after),
        rflags_after = const offset_of!(Event, rflags_after),
        image = const offset_of!(Event, image),
        vectors_after = const offset_of!(Event, vectors_after),
        host_rsp = const offset_of!(Event, host_rsp),
    )
}

/// What the stubs' privileged instructions act on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Machine {
    pub cr2: u64,
    /// Whose GS base is active.
    pub kernel_gs: bool,
    pub kernel_gs_base: u64,
    pub user_gs_base: u64,
    /// How many privileged instructions were executed.
    pub swapgs: u32,
    pub rdmsr: u32,
    pub mov_cr2: u32,
    /// The CPL that a privileged IRETQ returned to.
    pub cs_after: u64,
}

thread_local! {
    pub static MACHINE: Cell<Machine> = const {
        Cell::new(Machine {
            cr2: 0,
            kernel_gs: true,
            kernel_gs_base: 0,
            user_gs_base: 0,
            swapgs: 0,
            rdmsr: 0,
            mov_cr2: 0,
            cs_after: 0,
        })
    };
}

impl Machine {
    /// Puts this machine in place for the calling thread.
    pub fn set(self) {
        static SIGNAL: Once = Once::new();
        SIGNAL.call_once(|| {
            // SAFETY: installs a handler that has the signature that SA_SIGINFO asks for.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = step_in as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                assert_eq!(libc::sigaction(libc::SIGSEGV, &action, std::ptr::null_mut()), 0);
            }
        });
        MACHINE.set(self);
    }

    pub fn get() -> Self {
        MACHINE.get()
    }
}

extern "C" fn step_in(_signal: i32, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: the kernel passes a ucontext_t to a handler with SA_SIGINFO.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let mut machine = MACHINE.get();
    let rip = registers[libc::REG_RIP as usize] as *const u8;
    // SAFETY: the instruction at RIP was fetched; each is compared from its first byte on, as far as it matches.
    let starts_with =
        |code: &[u8]| code.iter().enumerate().all(|(i, byte)| unsafe { rip.add(i).read() } == *byte);
    if starts_with(&[0x0f, 0x20, 0xd0]) {
        // mov rax, cr2
        machine.mov_cr2 += 1;
        registers[libc::REG_RAX as usize] = machine.cr2 as i64;
        registers[libc::REG_RIP as usize] += 3;
    } else if starts_with(&[0x0f, 0x01, 0xf8]) {
        machine.swapgs += 1;
        machine.kernel_gs = !machine.kernel_gs;
        registers[libc::REG_RIP as usize] += 3;
    } else if starts_with(&[0x0f, 0x32]) && registers[libc::REG_RCX as usize] as u32 == 0xc000_0101 {
        machine.rdmsr += 1;
        let base = if machine.kernel_gs { machine.kernel_gs_base } else { machine.user_gs_base };
        registers[libc::REG_RAX as usize] = i64::from(base as u32);
        registers[libc::REG_RDX as usize] = (base >> 32) as i64;
        registers[libc::REG_RIP as usize] += 2;
    } else if starts_with(&[0x48, 0xcf]) {
        // iretq to a CPL that the host does not let it
        let frame = registers[libc::REG_RSP as usize] as *const [u64; 5];
        // SAFETY: the IRETQ read these five words before it faulted.
        let [rip, cs, rflags, rsp, _ss] = unsafe { frame.read() };
        machine.cs_after = cs;
        registers[libc::REG_RIP as usize] = rip as i64;
        registers[libc::REG_RSP as usize] = rsp as i64;
        registers[libc::REG_EFL as usize] = rflags as i64;
    } else {
        // SAFETY: the default action; the fault happens again and ends the process.
        unsafe { libc::signal(libc::SIGSEGV, libc::SIG_DFL) };
    }
    MACHINE.set(machine);
}
