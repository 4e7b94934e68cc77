//! QEMU's machine protocol: one JSON object a line, commands and their answers, events in between.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

/// A connection in command mode.
pub(crate) struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
}

/// No command that is used here takes longer than a moment.
const PATIENCE: Duration = Duration::from_secs(20);

impl Qmp {
    /// Connects to a QEMU that is just starting; `alive` says whether it still is. Events go to `event`.
    pub(crate) fn connect(
        socket: &Path,
        mut alive: impl FnMut() -> bool,
        event: impl Fn(Value) + Send + 'static,
    ) -> Result<Self> {
        let started = Instant::now();
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                Err(_) if started.elapsed() < PATIENCE && alive() => {
                    thread::sleep(Duration::from_millis(5));
                }
                Err(error) => return Err(error).context("QEMU does not answer on its monitor"),
            }
        };
        let lines = BufReader::new(stream.try_clone()?).lines();
        let (sender, answers) = channel();
        thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
                if message.get("event").is_some() {
                    event(message);
                } else if message.get("QMP").is_none() && sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut qmp = Qmp { stream, answers };
        qmp.command("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Sends a command and waits for what it returns.
    pub(crate) fn command(&mut self, name: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": name, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream.write_all(line.as_bytes()).with_context(|| format!("QEMU has gone before {name}"))?;
        let answer =
            self.answers.recv_timeout(PATIENCE).with_context(|| format!("QEMU does not answer {name}"))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!("QEMU refuses {name}: {answer}"),
        }
    }

    /// A command of the human monitor, for what the protocol lacks.
    pub(crate) fn monitor(&mut self, line: &str) -> Result<String> {
        let answer = self.command("human-monitor-command", json!({ "command-line": line }))?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }
}
