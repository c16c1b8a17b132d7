//! Which data plane runs: the one place where a mode becomes one. Everything else is the same for all of them.
//!
//! A new data plane is one more arm in [`run`], in [`support`] and in [`remove`].

use portolan_client::Client;
use portolan_dataplane::{DataPlane, Iptables, Nftables, iptables, nftables};
use portolan_forward::Family;
use portolan_netlink::nft::{self, NfTables as _};
use portolan_role::Progress;

use crate::alarm::Alarm;
use crate::config::{Config, Mode};
use crate::ipvs;
use crate::{Error, KUBE_PROXY_TABLE, run_with_alarm};

/// Runs the loop over the data plane of the configured mode.
pub(crate) async fn run(
    client: Client,
    config: Config,
    progress: Progress,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<(), Error> {
    let mark = 1 << config.masquerade_bit;
    match config.mode {
        Mode::Nftables => {
            let mut socket = nft::Socket::open().map_err(Error::Kernel)?;
            warn_of_kube_proxy(&mut socket);
            let own = socket.port().map_err(Error::Kernel)?;
            let tables = Family::ALL.map(nftables::layout::table).to_vec();
            let alarm = nft::Monitor::open(tables, own).map(Alarm::Off).map_err(Error::Kernel)?;
            let plane = Nftables::new(socket, nftables::Config { mark, ..Default::default() });
            let takeover = Takeover::new(|| remove_all_but(Mode::Nftables));
            run_with_alarm(client, config, plane, alarm, takeover, progress, shutdown).await
        }
        mode @ Mode::Iptables => {
            let programs =
                iptables::Programs::find().map_err(|error| Error::Mode { mode, why: error.to_string() })?;
            let variant = programs.variant();
            tracing::info!(variant = variant.as_str(), "iptables is found");
            let plane = Iptables::new(programs, iptables::Config { mark });
            let takeover = Takeover::new(move || {
                let others = iptables::remove(|other| other != variant).into_iter();
                others.chain(remove_all_but(mode)).collect()
            });
            run_with_alarm(client, config, plane, Alarm::Silent, takeover, progress, shutdown).await
        }
        Mode::Ipvs => match ipvs::open(&config)? {
            ipvs::Plane::BehindNftables(mut plane) => {
                let own = plane.front().nft().port().map_err(Error::Kernel)?;
                let tables = Family::ALL.map(|family| nftables::Place::BeforeIpvs.table(family)).to_vec();
                let alarm = nft::Monitor::open(tables, own).map(Alarm::Off).map_err(Error::Kernel)?;
                let takeover = Takeover::new(|| remove_all_but(Mode::Ipvs));
                run_with_alarm(client, config, plane, alarm, takeover, progress, shutdown).await
            }
            ipvs::Plane::BehindIptables(mut plane) => {
                let variant = plane.front().kernel().variant();
                // The chains are those of mode iptables: they were rewritten in their place.
                let takeover = Takeover::new(move || {
                    let others = iptables::remove(|other| other != variant).into_iter();
                    others.chain(remove(Mode::Nftables)).collect()
                });
                run_with_alarm(client, config, plane, Alarm::Silent, takeover, progress, shutdown).await
            }
        },
    }
}

/// What is done once, after the first sync: what the proxy left in other modes goes, when this one's is complete. It is
/// done at every start, so an end in the middle of it leaves nothing behind for long.
pub(crate) struct Takeover(Option<Box<dyn FnOnce() -> Vec<String> + Send>>);

impl Takeover {
    fn new(remove: impl FnOnce() -> Vec<String> + Send + 'static) -> Self {
        Self(Some(Box::new(remove)))
    }

    /// Over a data plane whose like there is no other of.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// Later calls do nothing.
    pub(crate) fn finish(&mut self) {
        for error in self.0.take().into_iter().flat_map(|remove| remove()) {
            tracing::warn!(
                "rules of another mode of ours stay here: {error}; `portolan proxy cleanup`, with the proxy stopped, \
                 removes all"
            );
        }
    }
}

/// Mode iptables goes before mode ipvs, as its chains may lead there.
fn remove_all_but(mode: Mode) -> Vec<String> {
    Mode::ALL.into_iter().filter(|other| *other != mode).flat_map(remove).collect()
}

/// What this host can do in a mode, in a few words, or why it cannot.
pub fn support(mode: Mode) -> Result<String, String> {
    match mode {
        Mode::Nftables => {
            let mut socket = nft::Socket::open().map_err(|error| error.to_string())?;
            nftables::usable(&mut socket).map_err(|error| error.to_string())?;
            Ok("yes".into())
        }
        Mode::Iptables => match iptables::Programs::find() {
            Ok(programs) => Ok(format!("yes, by the {} variant of iptables", programs.variant().as_str())),
            Err(error) => Err(error.to_string()),
        },
        Mode::Ipvs => ipvs::support(),
    }
}

/// Both at work is fine for the time of a change from one to the other, and confusing otherwise.
fn warn_of_kube_proxy(nft: &mut nft::Socket) {
    let tables = nft.tables().unwrap_or_default();
    if tables.iter().any(|info| &*info.table.name == KUBE_PROXY_TABLE) {
        tracing::warn!(
            "kube-proxy's nftables rules are here too: what they still match they may translate first; once kube-proxy \
             has stopped, remove them with `portolan proxy cleanup --only-kube-proxy`"
        );
    }
}

/// Removes everything the proxy ever made in the kernel of the caller's network namespace, in any mode. The errors say
/// what stayed.
pub fn cleanup() -> Vec<String> {
    Mode::ALL.into_iter().flat_map(remove).collect()
}

/// Removes what the proxy made in this mode.
fn remove(mode: Mode) -> Vec<String> {
    match mode {
        Mode::Nftables => match nft::Socket::open() {
            Ok(mut socket) => match socket.tables() {
                Ok(_) => texts(&Nftables::new(socket, nftables::Config::default()).cleanup()),
                // A kernel that cannot even list tables has none of ours.
                Err(_) => Vec::new(),
            },
            Err(error) => vec![Error::Kernel(error).to_string()],
        },
        Mode::Iptables => iptables::remove(|_| true),
        Mode::Ipvs => ipvs::remove(),
    }
}

fn texts<E: std::error::Error>(errors: &[E]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
