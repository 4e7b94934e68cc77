//! What the machines of one command share: QEMU, the kernels, the tool for images, and the snapshots taken so far.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use tempfile::TempDir;

use crate::bundle::Bundle;
use crate::card::Card;
use crate::log::Log;
use crate::qemu::{Event, Machine, Options, Port, Qemu, Start, Vm};
use crate::scenario::From;
use crate::{cargo, disk, paths, setup};

pub(crate) struct Context {
    qemu: Qemu,
    options: Options,
    /// The folder of the kernels' ELF files.
    kernels: PathBuf,
    disk_image: PathBuf,
    snapshots: Mutex<HashMap<(Machine, Bundle), Arc<Taken>>>,
    folder: TempDir,
}

/// One for each kind of machine and bundle; whoever comes first takes it, and others wait.
type Taken = OnceLock<Result<Snapshot, String>>;

/// A machine at `lab: ready`.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) image: PathBuf,
    pub(crate) state: PathBuf,
}

/// What the test kernel prints when it is about to read a command.
pub(crate) const READY: &str = "lab: ready";

impl Context {
    /// Sets up what is missing and builds what has changed.
    pub(crate) fn new(options: &Options) -> Result<Self> {
        let qemu = setup::all(options)?;
        let disk_image = cargo::disk_image()?;
        let kernels = cargo::kernels()?;
        disk::sweep()?;
        let folder = tempfile::Builder::new().prefix("snapshots").tempdir_in(paths::target())?;
        let options = options.clone();
        Ok(Context { qemu, options, kernels, disk_image, snapshots: Mutex::default(), folder })
    }

    /// The QEMU for a machine, and the card where there is to be one: its accesses are noted down beside the log.
    pub(crate) fn equip(&self, machine: &Machine, log: &Path) -> Result<(Qemu, Option<Card>)> {
        let Port::Card(width) = machine.console else { return Ok((self.qemu.clone(), None)) };
        let qemu = setup::qemu::vfio_user(&self.options)?;
        let card = Card::start(&cargo::mmio_uart()?, width, &log.with_extension("accesses.txt"))?;
        Ok((qemu, Some(card)))
    }

    /// A kernel in examples/, by name.
    pub(crate) fn kernel(&self, name: &str) -> Result<PathBuf> {
        let path = self.kernels.join(name);
        if !path.exists() {
            bail!("there is no kernel named {name} in examples/");
        }
        Ok(path)
    }

    /// The ELF files of the kernels that take part in what starts so.
    pub(crate) fn kernels_of(&self, from: &From) -> Result<Vec<PathBuf>> {
        let (first, bundle) = match from {
            From::Boot { kernel, bundle } => (Some(*kernel), bundle),
            From::Lab { bundle } => (Some("lab"), bundle),
            From::Firmware { bundle } => (None, bundle),
        };
        first.into_iter().chain(bundle.kernels()).map(|name| self.kernel(name)).collect()
    }

    /// The disk that boots a kernel with a bundle.
    pub(crate) fn image(&self, kernel: &str, bundle: &Bundle) -> Result<PathBuf> {
        disk::image(&self.disk_image, &self.kernel(kernel)?, &bundle.archive(self)?)
    }

    /// The test kernel at its prompt, booted once for each kind of machine and bundle.
    pub(crate) fn snapshot(&self, machine: &Machine, bundle: &Bundle) -> Result<Snapshot> {
        let (cell, number) = {
            let mut snapshots = self.snapshots.lock().unwrap_or_else(PoisonError::into_inner);
            let number = snapshots.len();
            (Arc::clone(snapshots.entry((machine.clone(), bundle.clone())).or_default()), number)
        };
        let state = self.folder.path().join(format!("{number}"));
        let taken =
            cell.get_or_init(|| self.take(machine, bundle, &state).map_err(|error| format!("{error:#}")));
        taken.clone().map_err(|error| anyhow!(error))
    }

    fn take(&self, machine: &Machine, bundle: &Bundle, state: &Path) -> Result<Snapshot> {
        const LIMIT: Duration = Duration::from_secs(120);
        let image = self.image("lab", bundle)?;
        let mut log = Log::create(&state.with_extension("log"))?;
        let mut vm = Vm::start(&self.qemu, machine, &Start::Boot { image: &image }, None)?;
        let started = Instant::now();
        while started.elapsed() < LIMIT {
            match vm.next(Duration::from_millis(100))? {
                Event::Serial(bytes) => {
                    if log.receive(&bytes)?.iter().any(|line| line == READY) {
                        vm.snapshot(state).context("no snapshot at the test kernel's prompt")?;
                        return Ok(Snapshot { image, state: state.to_owned() });
                    }
                }
                Event::Ended(end) => {
                    bail!("the test kernel ended before its prompt ({end:?}): {:?}", log.tail(5))
                }
                Event::Quiet => {}
            }
        }
        bail!("the test kernel did not come to its prompt: {:?}", log.tail(5))
    }
}
