//! The programs of iptables, as far as we use them: `iptables-save` and `iptables-restore`, in the network namespace in
//! which they were found.
//!
//! There are two variants, *legacy* and *nft*, which do not see each other's rules. What is used is what this node uses:
//! see [`Programs::find`].

use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use portolan_forward::Family;
use portolan_netlink::netns::Netns;
use portolan_netlink::nft;
use portolan_netlink::xtables::LockError;
use thiserror::Error;

use super::direct::{Direct, Failure};
use super::layout::{PREFIX, Table};
use super::removal::removal;

/// How long to wait for others who write with the legacy variant.
const WAIT: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum Error {
    #[error("cannot run {program}: {source}; install the package iptables, or say --mode nftables")]
    Run { program: String, source: io::Error },
    #[error("{program}: {said}")]
    Refused { program: String, said: String },
    #[error("iptables' lock: {0}; see who holds it (fuser)")]
    Lock(#[from] LockError),
    #[error("no iptables program is here; install the package iptables, or say --mode nftables")]
    NoProgram,
    #[error("cannot enter the network namespace: {0}")]
    Namespace(String),
}

/// Something that holds iptables' tables.
pub trait Kernel {
    /// Which families there are.
    fn families(&self) -> Vec<Family>;

    /// A table as `iptables-save` prints it.
    fn save(&mut self, family: Family, table: Table) -> Result<String, Error>;

    /// Whether a rule that nobody changes goes on counting packets when others are changed.
    fn keeps_counting(&self) -> bool;

    /// Feeds `iptables-restore --noflush`.
    fn restore(&mut self, family: Family, script: &str) -> Result<(), Error>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    Nft,
    Legacy,
    /// The only one here, whatever it is.
    Plain,
}

impl Variant {
    /// The name of a program: `iptables-nft-save`.
    pub fn program(self, family: Family, verb: &str) -> String {
        let base = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::Nft => format!("{base}-nft-{verb}"),
            Self::Legacy => format!("{base}-legacy-{verb}"),
            Self::Plain => format!("{base}-{verb}"),
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Legacy => "legacy",
            Self::Plain => "plain",
        }
    }
}

#[derive(Debug)]
pub struct Programs {
    netns: Netns,
    variant: Variant,
    families: Vec<Family>,
    /// The legacy variant's tables, without its programs, as long as the kernel takes what we write; or why not.
    direct: Result<Direct, String>,
    writes: Writes,
}

/// How many tables were written, and by what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Writes {
    pub direct: u64,
    pub by_program: u64,
}

impl Programs {
    /// Finds the variant to use in the caller's network namespace: the one that holds rules of ours; or else the one in
    /// which kubelet or kube-proxy left chains; or else what the plain program `iptables` is.
    pub fn find() -> Result<Self, Error> {
        let found = [Variant::Nft, Variant::Legacy].into_iter().filter(|variant| works(*variant));
        let there: Vec<_> = found.map(|variant| (variant, listing(variant))).collect();
        let holder = |wanted: &dyn Fn(&str) -> bool| {
            there.iter().find(|(_, listing)| listing.lines().any(wanted)).map(|(variant, _)| *variant)
        };
        let chain_of =
            |line: &str, prefix: &str| line.strip_prefix(':').is_some_and(|l| l.starts_with(prefix));
        let variant = holder(&|line| chain_of(line, PREFIX))
            .or_else(|| {
                holder(&|line| chain_of(line, "KUBE-KUBELET-CANARY") || chain_of(line, "KUBE-IPTABLES-HINT"))
            })
            .or_else(|| holder(&|line| chain_of(line, "KUBE-")))
            .or_else(plain_is)
            .filter(|variant| there.iter().any(|(found, _)| found == variant))
            .or_else(|| there.first().map(|(variant, _)| *variant))
            .or_else(|| exists(Variant::Plain).then_some(Variant::Plain))
            .ok_or(Error::NoProgram)?;
        Self::of(variant)
    }

    /// This variant, in the caller's network namespace.
    pub fn of(variant: Variant) -> Result<Self, Error> {
        let netns = Netns::current().map_err(|error| Error::Namespace(error.to_string()))?;
        let v6 = std::path::Path::new("/proc/thread-self/net/if_inet6").exists()
            && exists_program(&variant.program(Family::V6, "restore"));
        let families = if v6 { Family::ALL.to_vec() } else { vec![Family::V4] };
        let direct = match variant {
            Variant::Legacy => Direct::open().map_err(|error| error.to_string()),
            Variant::Nft | Variant::Plain => Err("only the legacy variant has a direct way".into()),
        };
        let mut programs = Self { netns, variant, families, direct, writes: Writes::default() };
        // So that a kernel without it is told of before anything is done.
        programs.save(Family::V4, Table::Nat)?;
        Ok(programs)
    }

    pub fn variant(&self) -> Variant {
        self.variant
    }

    /// This variant, with its programs alone.
    #[must_use]
    pub fn without_kernel_interface(mut self) -> Self {
        self.direct = Err("not wanted".into());
        self
    }

    /// Whether writes go to the kernel's own interface, or why they go by the programs.
    pub fn writes_directly(&self) -> Result<(), &str> {
        self.direct.as_ref().map(|_| ()).map_err(String::as_str)
    }

    pub fn writes(&self) -> Writes {
        self.writes
    }

    /// One table's part of a script.
    fn restore_part(&mut self, family: Family, part: &str) -> Result<(), Error> {
        let Ok(direct) = &mut self.direct else { return self.run_restore(family, part) };
        let failure = match direct.restore(family, part, WAIT) {
            Ok(()) => {
                self.writes.direct += 1;
                return Ok(());
            }
            Err(Failure::Lock(error @ LockError::Held { .. })) => return Err(error.into()),
            Err(failure) => failure,
        };
        self.run_restore(family, part)?;
        // The program could do it. Is it about one rule, or is it always so?
        let is_busy = matches!(&failure, Failure::Kernel(error) if error.kind() == io::ErrorKind::WouldBlock);
        if !is_busy && !matches!(failure, Failure::Line(_)) {
            tracing::info!("tables of iptables-legacy are written by its programs from now on: {failure}");
            self.direct = Err(failure.to_string());
        }
        Ok(())
    }

    fn run_restore(&mut self, family: Family, script: &str) -> Result<(), Error> {
        self.writes.by_program += 1;
        let wait = WAIT.as_secs().to_string();
        self.run(&self.variant.program(family, "restore"), &["--noflush", "-w", &wait], script).map(drop)
    }

    /// Runs a program in our namespace, whoever calls.
    fn run(&self, program: &str, arguments: &[&str], input: &str) -> Result<String, Error> {
        let work = || run(program, arguments, input);
        let here = Netns::current().is_ok_and(|current| current.is_same(&self.netns));
        let output = if here {
            work()
        } else {
            self.netns.run(work).map_err(|error| Error::Namespace(error.to_string()))?
        };
        let failed = |source| Error::Run { program: program.to_owned(), source };
        let output = output.map_err(failed)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).take(3).collect();
        Err(Error::Refused { program: program.to_owned(), said: lines.join("; ") })
    }
}

impl Kernel for Programs {
    fn families(&self) -> Vec<Family> {
        self.families.clone()
    }

    fn keeps_counting(&self) -> bool {
        self.variant == Variant::Nft
    }

    fn save(&mut self, family: Family, table: Table) -> Result<String, Error> {
        self.run(&self.variant.program(family, "save"), &["-t", table.as_str()], "")
    }

    fn restore(&mut self, family: Family, script: &str) -> Result<(), Error> {
        if self.direct.is_err() {
            return self.run_restore(family, script);
        }
        script.split_inclusive("COMMIT\n").try_for_each(|part| self.restore_part(family, part))
    }
}

fn run(program: &str, arguments: &[&str], input: &str) -> io::Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that refuses early closes its end; what it says is what counts.
        match stdin.write_all(input.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
            _ => {}
        }
    }
    child.wait_with_output()
}

fn exists_program(program: &str) -> bool {
    run(program, &["--version"], "").is_ok()
}

/// It is there, and the kernel has what it writes to: `nf_tables` may be there without those of IP.
fn works(variant: Variant) -> bool {
    let kernel_can =
        || nft::Socket::open().is_ok_and(|mut socket| crate::nftables::usable(&mut socket).is_ok());
    exists(variant) && (variant != Variant::Nft || kernel_can())
}

fn exists(variant: Variant) -> bool {
    exists_program(&variant.program(Family::V4, "restore"))
}

/// What tells whose variant this is: the tables where kubelet and proxies have chains.
fn listing(variant: Variant) -> String {
    if variant == Variant::Legacy && !legacy_is_used() {
        // Asking would make the tables.
        return String::new();
    }
    let list = |table: &str| {
        let output = run(&variant.program(Family::V4, "save"), &["-t", table], "");
        output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
    };
    ["mangle", "nat"].map(list).concat()
}

/// Whether the legacy variant has any table in this namespace.
pub fn legacy_is_used() -> bool {
    let names = |file| std::fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    !names("ip_tables_names").trim().is_empty() || !names("ip6_tables_names").trim().is_empty()
}

/// What the program `iptables` itself is.
fn plain_is() -> Option<Variant> {
    let output = run("iptables", &["--version"], "").ok()?;
    let says = String::from_utf8_lossy(&output.stdout);
    Some(if says.contains("nf_tables") { Variant::Nft } else { Variant::Legacy })
}

/// Where chains of ours are in the caller's network namespace, one line per table: `nat 17 chains (ip, nft)`.
pub fn holders() -> Vec<String> {
    let mut lines = Vec::new();
    for variant in variants() {
        let Ok(mut programs) = Programs::of(variant) else { continue };
        for family in programs.families() {
            for table in Table::ALL {
                let saved = programs.save(family, table).unwrap_or_default();
                let own = saved
                    .lines()
                    .filter(|line| line.strip_prefix(':').is_some_and(|l| l.starts_with(PREFIX)));
                let count = own.count();
                if count > 0 {
                    let family = super::layout::family_name(family);
                    lines.push(format!("{} {count} chains ({family}, {})", table.as_str(), variant.as_str()));
                }
            }
        }
    }
    lines
}

/// The variants to look at: those that are here and may hold anything.
fn variants() -> Vec<Variant> {
    let there = [Variant::Nft, Variant::Legacy].into_iter().filter(|variant| exists(*variant));
    let mut variants: Vec<_> = there.collect();
    if variants.is_empty() && exists(Variant::Plain) {
        variants.push(Variant::Plain);
    }
    variants.retain(|variant| *variant != Variant::Legacy || legacy_is_used());
    variants
}

/// Removes what is ours from the variants asked for, in the caller's network namespace. Refusals go first: nothing may
/// be refused that nobody translates any more. The errors say what stayed.
pub fn remove(which: impl Fn(Variant) -> bool) -> Vec<String> {
    let mut errors = Vec::new();
    for variant in variants().into_iter().filter(|variant| which(*variant)) {
        match Programs::of(variant) {
            Ok(mut programs) => errors.extend(remove_from(&mut programs).iter().map(ToString::to_string)),
            Err(error) => errors.push(error.to_string()),
        }
    }
    errors
}

/// Removes what is ours from all tables.
pub fn remove_from(kernel: &mut impl Kernel) -> Vec<Error> {
    let mut errors = Vec::new();
    for family in kernel.families() {
        for table in [Table::Filter, Table::Nat] {
            let result = kernel.save(family, table).and_then(|saved| {
                match removal(&saved, |name| name.starts_with(PREFIX)) {
                    Some(script) => kernel.restore(family, &script),
                    None => Ok(()),
                }
            });
            errors.extend(result.err());
        }
    }
    errors
}
