//! The virtual machine: its options, its process, its serial port, its monitor.

use std::ffi::OsString;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::card::{Card, Width};
use crate::qmp::Qmp;
use crate::setup::in_path;

/// Which QEMU, and how it runs guests.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// The QEMU to use [default: qemu-system-x86_64 in PATH]
    #[arg(long, value_name = "PATH", global = true)]
    pub(crate) qemu: Option<PathBuf>,
    /// What executes the guest: tcg, kvm, …
    #[arg(long, default_value = "tcg", global = true)]
    pub(crate) accel: String,
}

/// A QEMU with its firmware.
#[derive(Clone, Debug)]
pub(crate) struct Qemu {
    /// The program, and arguments that must come first (a QEMU in a tree of its own is run by that tree's loader).
    pub(crate) program: Vec<OsString>,
    /// OVMF's code volume.
    pub(crate) firmware: PathBuf,
    pub(crate) accel: String,
}

impl Qemu {
    /// What it says of itself; and the proof that it runs.
    pub(crate) fn version(&self) -> Result<String> {
        let (program, leading) = self.program.split_first().context("no QEMU")?;
        let output = Command::new(program).args(leading).arg("--version").output()?;
        if !output.status.success() {
            bail!("{} does not run: {}", program.display(), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().to_owned())
    }

    /// Whether it has a device of that name.
    pub(crate) fn has_device(&self, name: &str) -> Result<bool> {
        let (program, leading) = self.program.split_first().context("no QEMU")?;
        let output = Command::new(program).args(leading).args(["-device", "help"]).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).contains(&format!("name \"{name}\"")))
    }
}

/// A machine's options, as far as scenarios differ in them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Machine {
    /// QEMU's -cpu.
    pub(crate) cpu: String,
    /// RAM in MiB.
    pub(crate) memory: u32,
    pub(crate) processors: u32,
    /// Which serial port is listened to, and typed on.
    pub(crate) console: Port,
    /// Further arguments of QEMU, as they are.
    pub(crate) arguments: Vec<String>,
}

/// A serial port of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Port {
    /// A PC's first.
    Com1,
    /// Its second; COM1 is there too, and leads nowhere.
    Com2,
    /// QEMU's pci-serial, with an I/O BAR.
    Pci,
    /// The card's, in memory. It cannot be typed on, and a machine with it cannot be saved in a snapshot.
    Card(Width),
}

impl Default for Machine {
    /// What fits most scenarios: all that TCG can emulate, but 4 levels of page tables.
    fn default() -> Self {
        Machine {
            cpu: "max,la57=off".to_owned(),
            memory: 512,
            processors: 1,
            console: Port::Com1,
            arguments: Vec::new(),
        }
    }
}

impl Machine {
    pub(crate) fn cpu(self, cpu: &str) -> Self {
        Machine { cpu: cpu.to_owned(), ..self }
    }

    pub(crate) fn memory(self, memory: u32) -> Self {
        Machine { memory, ..self }
    }

    pub(crate) fn processors(self, processors: u32) -> Self {
        Machine { processors, ..self }
    }

    pub(crate) fn console(self, console: Port) -> Self {
        Machine { console, ..self }
    }

    /// Adds arguments of QEMU.
    pub(crate) fn with<'a>(mut self, arguments: impl IntoIterator<Item = &'a str>) -> Self {
        self.arguments.extend(arguments.into_iter().map(str::to_owned));
        self
    }
}

/// What a machine starts from.
#[derive(Clone, Debug)]
pub(crate) enum Start<'a> {
    /// Power on, with this disk.
    Boot { image: &'a Path },
    /// As a snapshot left it; its disk is still there.
    Restore { image: &'a Path, snapshot: &'a Path },
    /// Power on, and the firmware starts this Linux by itself.
    Linux { kernel: &'a Path, initrd: &'a Path, append: &'a str },
}

fn arguments(qemu: &Qemu, machine: &Machine, start: &Start, socket: &Path) -> Vec<OsString> {
    // A comma in an option's value is written twice.
    let path = |path: &Path| path.display().to_string();
    let escaped = |name: &Path| path(name).replace(',', ",,");
    let mut arguments: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| arguments.extend(words.iter().map(OsString::from));
    add(&["-nodefaults", "-display", "none", "-no-reboot", "-S"]);
    add(&["-machine", "q35", "-accel", &qemu.accel, "-cpu", &processor(qemu, machine)]);
    add(&["-m", &machine.memory.to_string(), "-smp", &machine.processors.to_string()]);
    // The code volume alone: without a variable store OVMF keeps its variables in memory, and nothing is left to write.
    add(&["-drive", &format!("if=pflash,format=raw,readonly=on,file={}", escaped(&qemu.firmware))]);
    add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
    if !matches!(machine.console, Port::Card(_)) {
        add(&["-chardev", "stdio,id=port,signal=off"]);
    }
    match machine.console {
        Port::Com1 => add(&["-serial", "chardev:port"]),
        Port::Com2 => add(&["-serial", "null", "-serial", "chardev:port"]),
        Port::Pci => add(&["-serial", "null", "-device", "pci-serial,chardev=port"]),
        // The card comes as a device of its own, with its own output.
        Port::Card(_) => add(&["-serial", "null"]),
    }
    add(&["-qmp", &format!("unix:{},server=on,wait=off", escaped(socket))]);
    match start {
        Start::Boot { image } | Start::Restore { image, .. } => {
            add(&["-drive", &format!("if=none,id=boot,format=raw,readonly=on,file={}", escaped(image))]);
            add(&["-device", "virtio-blk-pci,drive=boot,bootindex=0"]);
        }
        Start::Linux { kernel, initrd, append } => {
            add(&["-kernel", &path(kernel), "-initrd", &path(initrd), "-append", append]);
        }
    }
    if let Start::Restore { snapshot, .. } = start {
        add(&["-incoming", &format!("exec:cat {}", quoted(snapshot))]);
    }
    arguments.extend(machine.arguments.iter().map(OsString::from));
    arguments
}

/// The processor, without CMPXCHG16B unless a machine asks for it. QEMU 7.2's TCG now and then leaves RAX in RFLAGS
/// after one, and Linux 6.12, whose allocator lives on it, dies of that with a double fault, kexec or not.
fn processor(qemu: &Qemu, machine: &Machine) -> String {
    let cpu = &machine.cpu;
    if qemu.accel != "tcg" || cpu.contains("cx16") { cpu.clone() } else { format!("{cpu},cx16=off") }
}

/// For the shell that QEMU runs `exec:` with.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Something that a machine did.
#[derive(Debug)]
pub(crate) enum Event {
    /// Bytes from the serial port.
    Serial(Vec<u8>),
    /// The machine is no more.
    Ended(End),
    /// Nothing, for as long as was asked.
    Quiet,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// Through isa-debug-exit, with this code.
    Exit(u8),
    PowerOff,
    /// A triple fault, or a reset that the guest asked for.
    Reset,
    /// QEMU itself gave up.
    Qemu(String),
}

enum Message {
    Serial(Vec<u8>),
    Shutdown(String),
    Error(String),
    Closed,
}

/// A running machine. Dropping it ends it.
pub(crate) struct Vm {
    child: Child,
    input: ChildStdin,
    qmp: Qmp,
    messages: Receiver<Message>,
    shutdown: Option<String>,
    errors: String,
    /// Of the threads that send messages, how many are still at it.
    senders: usize,
    // Holds the monitor's socket, whose path must be short.
    _folder: TempDir,
}

impl Vm {
    /// Starts a machine, with the card where its console is that.
    pub(crate) fn start(
        qemu: &Qemu,
        machine: &Machine,
        start: &Start,
        card: Option<&mut Card>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("vm").tempdir()?;
        let socket = folder.path().join("qmp");
        let (program, _) = qemu.program.split_first().context("no QEMU")?;
        let mut child = mortal(&qemu.program)
            .args(arguments(qemu, machine, start, &socket))
            .args(card.iter().flat_map(|card| card.device()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let (Some(input), Some(stdout), Some(stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("QEMU has no standard streams");
        };
        let (sender, messages) = channel();
        match card {
            Some(card) => forward(card.heard()?, sender.clone(), Message::Serial),
            None => forward(stdout, sender.clone(), Message::Serial),
        }
        forward(stderr, sender.clone(), |bytes| Message::Error(String::from_utf8_lossy(&bytes).into_owned()));
        let event = move |event: Value| {
            if event["event"] == "SHUTDOWN" {
                let reason = event["data"]["reason"].as_str().unwrap_or_default().to_owned();
                // A send fails only when the machine is no longer of interest.
                let _ = sender.send(Message::Shutdown(reason));
            }
        };
        let qmp = match Qmp::connect(&socket, || matches!(child.try_wait(), Ok(None)), event) {
            Ok(qmp) => qmp,
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let said = messages.try_iter().filter_map(|message| match message {
                    Message::Error(text) => Some(text),
                    _ => None,
                });
                return Err(error.context(said.collect::<String>().trim().to_owned()));
            }
        };
        let mut vm = Vm {
            child,
            input,
            qmp,
            messages,
            shutdown: None,
            errors: String::new(),
            senders: 2,
            _folder: folder,
        };
        // A restored machine comes up as it was saved: stopped.
        while vm.qmp.command("query-status", json!({}))?["status"] == "inmigrate" {
            thread::sleep(Duration::from_millis(5));
        }
        vm.qmp.command("cont", json!({}))?;
        Ok(vm)
    }

    /// The next thing that happens, within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> Result<Event> {
        let until = Instant::now() + patience;
        while self.senders > 0 {
            match self.messages.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(Message::Serial(bytes)) => return Ok(Event::Serial(bytes)),
                Ok(Message::Shutdown(reason)) => self.shutdown = Some(reason),
                Ok(Message::Error(text)) => self.errors.push_str(&text),
                Ok(Message::Closed) => self.senders -= 1,
                Err(RecvTimeoutError::Timeout) => return Ok(Event::Quiet),
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = self.child.wait()?;
        // The monitor's last event may still be on its way.
        let grace = Instant::now() + Duration::from_millis(500);
        while self.shutdown.is_none() && status.success() {
            match self.messages.recv_timeout(grace.saturating_duration_since(Instant::now())) {
                Ok(Message::Shutdown(reason)) => self.shutdown = Some(reason),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Ok(Event::Ended(end(status, self.shutdown.as_deref(), &self.errors)))
    }

    /// Types text on the serial port.
    pub(crate) fn type_text(&mut self, text: &str) -> Result<()> {
        self.input.write_all(text.as_bytes())?;
        Ok(self.input.flush()?)
    }

    /// A non-maskable interrupt on every processor.
    pub(crate) fn nmi(&mut self) -> Result<()> {
        self.qmp.command("inject-nmi", json!({})).map(drop)
    }

    /// A line for QEMU's human monitor: `mce 0 0 0xb200000000000000 0 0 0`, `info registers`, `pmemsave …`.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<String> {
        self.qmp.monitor(line)
    }

    /// Whether every processor has halted with interrupts off: nothing but an NMI can come after that.
    pub(crate) fn halted(&mut self) -> Result<bool> {
        Ok(halted(&self.monitor("info registers -a")?))
    }

    /// Writes the stopped machine to a file. A migration, not `savevm`: that needs a disk to be kept in, and many
    /// machines can start from one file at once.
    pub(crate) fn snapshot(&mut self, path: &Path) -> Result<()> {
        self.qmp.command("stop", json!({}))?;
        self.qmp.command("migrate-set-parameters", json!({ "max-bandwidth": 1u64 << 40 }))?;
        self.qmp.command("migrate", json!({ "uri": format!("exec:cat > {}", quoted(path)) }))?;
        loop {
            let state = self.qmp.command("query-migrate", json!({}))?;
            match state["status"].as_str() {
                Some("completed") => return Ok(()),
                Some("failed" | "cancelled") => bail!("QEMU cannot write a snapshot: {state}"),
                _ => thread::sleep(Duration::from_millis(10)),
            }
        }
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that does not outlive this process, should that be killed: util-linux's setpriv sees to it where it is.
pub(crate) fn mortal(program: &[OsString]) -> Command {
    let mut words = Vec::new();
    if let Some(setpriv) = in_path("setpriv") {
        words.extend([setpriv.into(), "--pdeathsig".into(), "KILL".into(), "--".into()]);
    }
    words.extend_from_slice(program);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]);
    command
}

fn forward(
    mut from: impl Read + Send + 'static,
    to: Sender<Message>,
    message: impl Fn(Vec<u8>) -> Message + Send + 'static,
) {
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(len @ 1..) = from.read(&mut buffer) {
            if to.send(message(buffer[..len].to_vec())).is_err() {
                return;
            }
        }
        let _ = to.send(Message::Closed);
    });
}

fn end(status: ExitStatus, shutdown: Option<&str>, errors: &str) -> End {
    match (status.code(), shutdown) {
        (Some(0), Some("guest-shutdown")) => End::PowerOff,
        (Some(0), Some("guest-reset")) => End::Reset,
        // isa-debug-exit: twice the code and one. QEMU's own failure is 1, so kernels don't use code 0.
        (Some(status), _) if status > 1 && status % 2 == 1 => End::Exit((status / 2) as u8),
        _ => End::Qemu(format!("{status}, {}: {}", shutdown.unwrap_or("no reason given"), errors.trim())),
    }
}

fn halted(registers: &str) -> bool {
    let halts = registers.matches("HLT=1").count();
    let flags =
        registers.split("RFL=").skip(1).filter_map(|rest| u64::from_str_radix(rest.get(..8)?, 16).ok());
    let masked: Vec<bool> = flags.map(|flags| flags & 0x200 == 0).collect();
    !masked.is_empty() && halts == masked.len() && masked.iter().all(|masked| *masked)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn line(machine: &Machine, start: &Start) -> String {
        let qemu =
            Qemu { program: vec!["qemu".into()], firmware: "/ovmf,4m.fd".into(), accel: "tcg".to_owned() };
        let words = arguments(&qemu, machine, start, Path::new("/s"));
        words.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_machine_says_its_processor_memory_and_further_devices() {
        let machine =
            Machine::default().cpu("max,la57=on").memory(256).processors(2).with(["-device", "pci-serial"]);
        let line = line(&machine, &Start::Boot { image: Path::new("/a,b.img") });
        assert!(line.contains("-accel tcg -cpu max,la57=on,cx16=off -m 256 -smp 2"), "{line}");
        assert!(line.contains("file=/ovmf,,4m.fd") && line.contains("file=/a,,b.img"), "{line}");
        assert!(line.ends_with("-device pci-serial"), "{line}");
        assert!(!line.contains("-incoming"), "{line}");
    }

    #[test]
    fn a_restored_machine_reads_its_snapshot_through_a_quoted_path() {
        let start = Start::Restore { image: Path::new("/a.img"), snapshot: Path::new("/it's/s") };
        assert!(line(&Machine::default(), &start).contains(r"-incoming exec:cat '/it'\''s/s'"));
    }

    #[test]
    fn an_end_is_told_from_the_exit_status_and_the_monitors_last_word() {
        let exited = |code: i32| ExitStatus::from_raw(code << 8);
        assert_eq!(end(exited(33), None, ""), End::Exit(0x10));
        assert_eq!(end(exited(33), Some("guest-shutdown"), ""), End::Exit(0x10));
        assert_eq!(end(exited(0), Some("guest-shutdown"), ""), End::PowerOff);
        assert_eq!(end(exited(0), Some("guest-reset"), ""), End::Reset);
        assert!(matches!(end(exited(0), None, ""), End::Qemu(_)));
        assert!(matches!(end(exited(1), None, "no such device"), End::Qemu(_)));
        assert!(matches!(end(ExitStatus::from_raw(9), None, ""), End::Qemu(_)));
    }

    #[test]
    fn halted_means_every_processor_with_interrupts_off() {
        let one =
            |flags: &str, hlt: u8| format!("RIP=0 RFL={flags} [---] CPL=0 II=0 A20=1 SMM=0 HLT={hlt}\n");
        assert!(halted(&one("00000046", 1)));
        assert!(!halted(&one("00000246", 1)), "an interrupt may still come");
        assert!(!halted(&one("00000046", 0)));
        assert!(!halted(&(one("00000046", 1) + &one("00000046", 0))));
        assert!(!halted(""));
    }
}
