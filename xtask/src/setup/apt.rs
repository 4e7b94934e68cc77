//! Debian's packages without touching the system: apt with lists, cache and sources of its own under target/.
//!
//! The mirror is the one that the system's own sources name; only the suite differs.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::{paths, ui};

/// Lists of this age are as good as new.
const FRESH: Duration = Duration::from_secs(600);

/// Whether this is Debian, whose mirrors have every suite.
pub(crate) fn is_debian() -> bool {
    os_release("ID").as_deref() == Some("debian") && super::in_path("apt-get").is_some()
}

/// Whether system packages can be installed without asking anyone.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn os_release(key: &str) -> Option<String> {
    let text = fs::read_to_string("/etc/os-release").ok()?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))?;
    Some(value.trim_matches('"').to_owned())
}

/// Installs packages of the system's own sources.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    let install = || {
        let mut command = Command::new("apt-get");
        command.args(["install", "--yes", "--no-install-recommends"]).args(packages);
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    let title = format!("installing {} (apt-get install)", packages.join(", "));
    // On a fresh system there are no lists yet, and on an old one they may name what is gone.
    if ui::run(&title, &mut install()).is_err() {
        update()?;
        ui::run(title, &mut install())?;
    }
    Ok(())
}

fn update() -> Result<()> {
    ui::run("fetching the package lists (apt-get update)", Command::new("apt-get").arg("update")).map(drop)
}

/// Scenarios run at the same time; what they lack is fetched once.
pub(super) fn one_at_a_time() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::new(());
    LOCK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An apt that sees these suites and nothing of the system.
pub(crate) struct Apt {
    folder: PathBuf,
    configuration: PathBuf,
}

impl Apt {
    /// Fetches the lists of some suites, such as `trixie-backports`.
    pub(crate) fn new(suites: &[&str]) -> Result<Self> {
        const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
        let mirror = mirror()?;
        let folder = paths::folder(&format!("setup/apt/{}", suites.join("+")))?;
        fs::create_dir_all(folder.join("lists/partial"))?;
        fs::create_dir_all(folder.join("archives/partial"))?;
        fs::write(folder.join("status"), "")?;
        let signed =
            if Path::new(KEYRING).exists() { format!("[signed-by={KEYRING}] ") } else { String::new() };
        let sources: String =
            suites.iter().map(|suite| format!("deb {signed}{mirror} {suite} main\n")).collect();
        fs::write(folder.join("sources.list"), sources)?;
        let configuration = folder.join("apt.conf");
        let place = folder.display();
        // Read after the system's configuration, which may name a proxy; its hooks are for its own packages.
        fs::write(
            &configuration,
            format!(
                r#"Dir::State "{place}";
Dir::State::lists "{place}/lists";
Dir::State::status "{place}/status";
Dir::Cache "{place}";
Dir::Cache::archives "{place}/archives";
Dir::Etc::sourcelist "{place}/sources.list";
Dir::Etc::sourceparts "/dev/null";
Dir::Etc::preferences "/dev/null";
Dir::Etc::preferencesparts "/dev/null";
APT::Sandbox::User "";
APT::Architecture "amd64";
Acquire::Languages "none";
Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Install-Pkgs;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
"#
            ),
        )?;
        let apt = Apt { folder, configuration };
        // Packages are asked for one after the other; the lists need not be.
        let fetched = apt.folder.join("fetched");
        let age = fs::metadata(&fetched).and_then(|file| file.modified()).map(|time| time.elapsed());
        if !matches!(age, Ok(Ok(age)) if age < FRESH) {
            let title = format!("fetching the package lists of {}", suites.join(", "));
            ui::run(title, apt.command("apt-get").arg("update"))?;
            fs::write(fetched, "")?;
        }
        Ok(apt)
    }

    /// The versions of a package, the newest first.
    pub(crate) fn versions(&self, package: &str) -> Result<Vec<String>> {
        let output = self.query(&["madison", package])?;
        Ok(output.lines().filter_map(|line| Some(line.split('|').nth(1)?.trim().to_owned())).collect())
    }

    /// The packages that a package depends on directly.
    pub(crate) fn dependencies(&self, package: &str) -> Result<Vec<String>> {
        let output = self.query(&["show", "--no-all-versions", package])?;
        let line = output.lines().find_map(|line| line.strip_prefix("Depends: ")).unwrap_or_default();
        let names = line.split(", ").filter_map(|entry| entry.split_whitespace().next());
        Ok(names.map(str::to_owned).collect())
    }

    /// Downloads a package (`NAME`, `NAME=VERSION`) and unpacks it into a folder.
    pub(crate) fn unpack(&self, package: &str, into: &Path) -> Result<()> {
        let scratch = tempfile::tempdir_in(&self.folder)?;
        let mut download = self.command("apt-get");
        ui::run(
            format!("downloading Debian's {package}"),
            download.args(["download", package]).current_dir(scratch.path()),
        )?;
        unpack_all(scratch.path(), into)
    }

    /// Downloads packages with all that they depend on, and unpacks the lot: a tree that can be run from.
    pub(crate) fn unpack_tree(&self, suite: &str, packages: &[&str], into: &Path) -> Result<()> {
        let mut download = self.command("apt-get");
        download.args(["install", "--download-only", "--yes", "--no-install-recommends"]);
        download.args(["--target-release", suite]).args(packages);
        ui::run(
            format!("downloading Debian's {} and what it depends on", packages.join(", ")),
            &mut download,
        )?;
        unpack_all(&self.folder.join("archives"), into)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("--config-file").arg(&self.configuration);
        command
    }

    fn query(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command("apt-cache").args(arguments).output().context("cannot run apt-cache")?;
        if !output.status.success() {
            bail!("apt-cache {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

/// Unpacks every .deb in a folder, then removes it. `into` appears only when all is there.
fn unpack_all(from: &Path, into: &Path) -> Result<()> {
    let parent = into.parent().context("a folder without a parent")?;
    fs::create_dir_all(parent)?;
    let scratch = tempfile::tempdir_in(parent)?;
    for entry in fs::read_dir(from)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            let status =
                Command::new("dpkg-deb").arg("--extract").arg(&package).arg(scratch.path()).status()?;
            if !status.success() {
                bail!("cannot unpack {}", package.display());
            }
            fs::remove_file(&package)?;
        }
    }
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::rename(scratch.keep(), into)?;
    Ok(())
}

/// The mirror that the system's sources name for its own release.
fn mirror() -> Result<String> {
    let find = || -> Result<Option<String>> {
        let output = Command::new("apt-get")
            .args(["indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"])
            .output()
            .context("cannot run apt-get")?;
        let release = os_release("VERSION_CODENAME").unwrap_or_default();
        Ok(mirror_among(&String::from_utf8_lossy(&output.stdout), &release))
    };
    if let Some(mirror) = find()? {
        return Ok(mirror);
    }
    if is_root() {
        // apt names targets only of lists that it has.
        update()?;
    }
    find()?.context("apt's sources name no mirror of this release; does `apt-get update` work?")
}

fn mirror_among(targets: &str, release: &str) -> Option<String> {
    targets.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        let (of, component, uri) = (words.next()?, words.next()?, words.next()?);
        (of == release && component == "main").then(|| uri.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release_itself() {
        let targets =
            "x-updates main http://a/\nx contrib http://b/\nx main http://c/d/\nx-security main http://e/\n";
        assert_eq!(mirror_among(targets, "x").as_deref(), Some("http://c/d/"));
        assert_eq!(mirror_among(targets, "y"), None);
    }
}
