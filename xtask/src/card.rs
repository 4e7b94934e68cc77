//! The card with a serial port in memory (tools/mmio-uart), which QEMU's vfio-user-pci puts into a machine.

use std::ffi::OsString;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::qemu::mortal;

/// The width of the accesses that its registers answer to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Width {
    /// Linux's page code
    #[value(name = "8")]
    Byte,
    /// Linux's `mmio32`
    #[default]
    #[value(name = "32")]
    Word,
}

impl Width {
    pub(crate) const fn bits(self) -> &'static str {
        match self {
            Width::Byte => "8",
            Width::Word => "32",
        }
    }
}

/// The process that serves the card. Dropping it ends it.
pub(crate) struct Card {
    child: Child,
    socket: PathBuf,
    // Holds the socket, whose path must be short.
    _folder: TempDir,
}

impl Card {
    /// Starts the server; a line for each access goes to `accesses`.
    pub(crate) fn start(server: &Path, width: Width, accesses: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("card").tempdir()?;
        let socket = folder.path().join("socket");
        let mut child = mortal(&[server.into()])
            .args(["--width", width.bits(), "--socket"])
            .arg(&socket)
            .arg("--log")
            .arg(accesses)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}", server.display()))?;
        let started = Instant::now();
        while !socket.exists() {
            if child.try_wait()?.is_some() || started.elapsed() > Duration::from_secs(10) {
                let _ = child.kill();
                bail!("the card's server does not listen: {}", errors(&mut child));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(Card { child, socket, _folder: folder })
    }

    /// QEMU's arguments for it.
    pub(crate) fn device(&self) -> [OsString; 2] {
        let device = json!({ "driver": "vfio-user-pci", "socket": { "type": "unix", "path": self.socket } });
        ["-device".into(), device.to_string().into()]
    }

    /// What the port hears. Once.
    pub(crate) fn heard(&mut self) -> Result<ChildStdout> {
        self.child.stdout.take().context("the card's output was taken")
    }

    /// Its own verdict, when its machine is no more: what it counted, or that an access was wrong or nothing was heard.
    pub(crate) fn finish(mut self) -> Result<String, String> {
        // Whole, since the server writes it and ends.
        let counted = errors(&mut self.child);
        match self.child.wait() {
            Ok(status) if status.success() => Ok(counted),
            Ok(status) => Err(format!("{counted} ({status})")),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn errors(child: &mut Child) -> String {
    let mut text = String::new();
    if let Some(stderr) = &mut child.stderr {
        let _ = stderr.read_to_string(&mut text);
    }
    text.trim().to_owned()
}
