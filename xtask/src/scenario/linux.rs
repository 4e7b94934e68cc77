//! Linux as the last kernel, with a bzImage and an initrd from anywhere.

use std::path::PathBuf;

use anyhow::ensure;

use super::{Ends, Scenario, expect};
use crate::bundle::{Bundle, Content};
use crate::initrd::Payload;
use crate::qemu::Machine;
use crate::setup::linux::Release;

pub(super) fn scenarios() -> Vec<Scenario> {
    let from = |release: Release| Linux { kernel: Content::Linux(release), ..Linux::default() };
    // What the judge expects is first expected of a Linux that we had no part in.
    let alone = from(Release::Debian12);
    let alone = alone.judge(Scenario::firmware("linux/debian-12-without-kexec", alone.bundle()));
    let kexec = Release::ALL.into_iter().map(|release| linux(from(release), release.name()));
    // By the frames that the test kernel's allocator gives: those that are wanted, none of those, or anything.
    let lab = [
        ("loaded-in-place", "linux", "^lab: moved [0-9]{1,3} in-place [0-9]{4,5} zero [0-9]{1,2}$"),
        ("every-page-moved", "linux-moved", "^lab: moved [0-9]{4} in-place 0 zero [0-9]{4,5}$"),
        ("scattered-frames", "linux-scattered", "^lab: moved [0-9]{4} in-place [0-9]{3,4} zero [0-9]{4,5}$"),
    ];
    let lab = lab.into_iter().map(|(name, command, counts)| {
        let linux = Linux::default();
        let command = format!("{command} {}", linux.command_line());
        let scenario = Scenario::lab(format!("linux/{name}"), &command).with_bundle(linux.bundle());
        linux.judge(scenario.expect(counts))
    });
    // From four levels of paging Linux goes to five by a trampoline in low memory, which has to be mapped for that.
    let machines = [
        ("on-a-processor-with-five-levels", Machine::default().cpu("max,la57=on")),
        ("with-six-gigabytes", Machine::default().memory(6144)),
        ("with-two-processors", Machine::default().processors(2)),
    ];
    let machines = machines.into_iter().map(|(name, machine)| {
        let linux = Linux::default();
        let command = format!("linux {}", linux.command_line());
        linux.judge(Scenario::lab(format!("linux/{name}"), &command).with_bundle(linux.bundle()).on(machine))
    });
    std::iter::once(alone).chain(kexec).chain(lab).chain(machines).collect()
}

/// What to boot, and how.
#[derive(Clone, Debug)]
pub(crate) struct Linux {
    pub(crate) kernel: Content,
    /// One of the user's own; ours prints what is then judged.
    pub(crate) initrd: Option<PathBuf>,
    pub(crate) payload: Payload,
    /// What is added to the command line.
    pub(crate) append: String,
}

impl Default for Linux {
    fn default() -> Self {
        Linux {
            kernel: Content::Linux(Release::Debian12),
            initrd: None,
            payload: Payload::default(),
            append: "token=three-kernels".to_owned(),
        }
    }
}

impl Linux {
    /// A panic must end the machine: as a reset, which no scenario takes for success.
    pub(super) fn command_line(&self) -> String {
        format!("console=ttyS0 panic=-1 {}", self.append)
    }

    pub(super) fn bundle(&self) -> Bundle {
        let initrd = match &self.initrd {
            Some(path) => Content::File(path.clone()),
            None => Content::Initrd(self.payload),
        };
        Bundle::default()
            .with("vmlinuz", self.kernel.clone())
            .with("initrd", initrd)
            .with("append", Content::Bytes(self.command_line().into_bytes()))
    }

    /// Adds what Linux and its init must say: the command line as Linux heard it and as user space reads it, and
    /// the digest of what travelled.
    pub(super) fn judge(&self, scenario: Scenario) -> Scenario {
        let command_line = regex::escape(self.command_line().trim());
        let scenario = scenario.then(expect(&format!(r"^\[ *[0-9.]+\] Command line: .*{command_line}")));
        if self.initrd.is_some() {
            return scenario.ends(Ends::PowerOff);
        }
        scenario
            .then(expect("^init: release [0-9]+[.][0-9]+"))
            .then(expect(&format!("^init: cmdline .*{command_line}")))
            .then(expect(&format!("^init: digest {} payload$", self.payload.digest())))
            .then(expect("^init: power off$"))
            .ends(Ends::PowerOff)
            .inspect(|heard| {
                ensure!(heard.dumps.is_empty(), "a dump on a way without a fault");
                let release = heard.lines.iter().find_map(|line| line.strip_prefix("init: release "));
                Ok(format!("Linux {} has its command line and its payload", release.unwrap_or("?")))
            })
    }
}

/// From the first kernel straight to Linux.
pub(crate) fn linux(linux: Linux, name: &str) -> Scenario {
    let scenario = Scenario::boot(format!("linux/{name}"), "first", linux.bundle());
    linux.judge(scenario.then(expect("^first: ")).limit(90))
}
