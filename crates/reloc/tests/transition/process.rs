//! The process as a processor: single-steps code of its own, and calls the model before each instruction.

use std::arch::asm;
use std::cell::Cell;
use std::ptr;
use std::sync::Once;

use crate::operands::{Gregs, set};
use crate::processor::{Machine, Next, Stopped};

const TRAP_FLAG: i64 = 1 << 8;
const HLT: u8 = 0xf4;

thread_local! {
    static RUN: Cell<*mut Run> = const { Cell::new(ptr::null_mut()) };
}

struct Run {
    machine: *mut Machine,
    /// The registers at the start, and where to go on after the end.
    host: Option<(Gregs, u64)>,
    stopped: Option<Stopped>,
    /// A page for copies of single instructions, each with a HLT behind it: far cheaper than the trap flag, whose exceptions a
    /// hypervisor intercepts.
    copies: u64,
    /// The address of that HLT, and of the instruction after the one copied.
    resume: Option<(u64, u64)>,
}

impl Machine {
    /// Calls `f` at what it believes to be CPL 0.
    pub(crate) fn run<F: FnOnce() -> R, R>(&mut self, f: F) -> Result<R, Stopped> {
        install();
        let mut call = Call { f: Some(f), result: None };
        let mut alternate = vec![0_u8; 1 << 20];
        let stack =
            libc::stack_t { ss_sp: alternate.as_mut_ptr().cast(), ss_flags: 0, ss_size: alternate.len() };
        // SAFETY: a new anonymous mapping, anywhere.
        let copies = unsafe {
            let all = libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC;
            libc::mmap(ptr::null_mut(), 4096, all, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1, 0)
        };
        assert_ne!(copies, libc::MAP_FAILED);
        let mut run = Run { machine: self, host: None, stopped: None, copies: copies as u64, resume: None };
        // SAFETY: the first UD2 enters `on_signal`, which steps what follows; the second, or a forbidden step, has it end behind
        // the second with the registers of the first. Either way the asm is left with the stack and the callee-saved registers with
        // which it was entered. `trampoline` matches the type of `call`. The stack for signals outlives the run.
        unsafe {
            let mut before: libc::stack_t = std::mem::zeroed();
            assert_eq!(0, libc::sigaltstack(&stack, &mut before));
            RUN.set(&mut run);
            asm!(
                "lea rax, [rip + 2f]",
                "ud2",
                "call rsi",
                "ud2",
                "2:",
                inout("rdi") &raw mut call => _,
                inout("rsi") trampoline::<F, R> as *const () => _,
                clobber_abi("sysv64"),
            );
            RUN.set(ptr::null_mut());
            assert_eq!(0, libc::sigaltstack(&before, ptr::null_mut()));
            assert_eq!(0, libc::munmap(copies, 4096));
        }
        match run.stopped {
            None => Ok(call.result.expect("the function has returned")),
            Some(stopped) => Err(stopped),
        }
    }
}

struct Call<F, R> {
    f: Option<F>,
    result: Option<R>,
}

extern "sysv64" fn trampoline<F: FnOnce() -> R, R>(call: &mut Call<F, R>) {
    if let Some(f) = call.f.take() {
        call.result = Some(f());
    }
}

fn install() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGILL, libc::SIGTRAP, libc::SIGFPE] {
            // SAFETY: an all-zero sigaction is one; the handler has the signature of SA_SIGINFO.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = on_signal as *const () as usize;
                action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
                assert_eq!(0, libc::sigaction(signal, &action, ptr::null_mut()));
            }
        }
    });
}

extern "C" fn on_signal(signal: libc::c_int, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let run = RUN.get();
    if run.is_null() {
        // SAFETY: not ours: the instruction is executed again, and now ends the process.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    // SAFETY: the kernel passes a ucontext; the run and the machine are those of `run`, which does nothing else meanwhile. What was
    // interrupted is code under test, which neither allocates nor touches the machine.
    let (run, gregs) = unsafe { (&mut *run, &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs) };
    // SAFETY: as above.
    let machine = unsafe { &mut *run.machine };
    let rip = gregs[libc::REG_RIP as usize] as u64;
    let trap = gregs[libc::REG_TRAPNO as usize];
    let Some((host, end)) = run.host else {
        run.host = Some((*gregs, gregs[libc::REG_RAX as usize] as u64));
        set(gregs, libc::REG_RIP, rip + 2);
        return step(machine, run, gregs);
    };
    let resume = run.resume.take();
    if let Some((_, next)) = resume.filter(|(halt, _)| *halt == rip) {
        set(gregs, libc::REG_RIP, next);
        return step(machine, run, gregs);
    }
    match trap {
        1 => step(machine, run, gregs),
        6 if rip + 2 == end => finish(&host, end, gregs),
        _ => {
            let address = gregs[libc::REG_CR2 as usize];
            run.stopped = Some(Stopped::Forbidden(format!(
                "{rip:#x}: exception {trap} of the process, which the model did not see coming, CR2 {address:#x}"
            )));
            finish(&host, end, gregs);
        }
    }
}

/// Up to the next instruction that the process executes itself.
fn step(machine: &mut Machine, run: &mut Run, gregs: &mut Gregs) {
    loop {
        match machine.step(gregs) {
            Next::InPlace => break gregs[libc::REG_EFL as usize] |= TRAP_FLAG,
            Next::Copy(len) => {
                gregs[libc::REG_EFL as usize] &= !TRAP_FLAG;
                let rip = gregs[libc::REG_RIP as usize] as u64;
                // SAFETY: the instruction was decoded there; the page has room, and is this run's alone.
                unsafe {
                    ptr::copy_nonoverlapping(rip as *const u8, run.copies as *mut u8, len);
                    (run.copies as *mut u8).add(len).write(HLT);
                }
                run.resume = Some((run.copies + len as u64, rip + len as u64));
                break set(gregs, libc::REG_RIP, run.copies);
            }
            Next::Done | Next::Branched => {}
            Next::Stop(stopped) => {
                run.stopped = Some(stopped);
                if let Some((host, end)) = run.host {
                    finish(&host, end, gregs);
                }
                break;
            }
        }
    }
}

fn finish(host: &Gregs, end: u64, gregs: &mut Gregs) {
    *gregs = *host;
    set(gregs, libc::REG_RIP, end);
}
