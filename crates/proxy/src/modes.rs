//! Which data plane runs: the one place where a mode becomes one. Everything else is the same for all of them.
//!
//! A new data plane is one more arm in [`run`] and one more in [`remove`].

use portolan_client::Client;
use portolan_dataplane::{DataPlane, Nftables, nftables};
use portolan_forward::Family;
use portolan_netlink::nft::{self, NfTables as _};

use crate::alarm::Alarm;
use crate::config::{Config, Mode};
use crate::{Error, KUBE_PROXY_TABLE, Progress, run_with_alarm};

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
            let plane = Nftables::new(socket, nftables::Config { mark, ..nftables::Config::default() });
            run_with_alarm(client, config, plane, alarm, progress, shutdown).await
        }
        mode @ (Mode::Iptables | Mode::Ipvs) => Err(Error::Mode {
            mode,
            why:
                "portolan has no such data plane yet; say --mode nftables, which replaces it without losing \
                  connections"
                    .into(),
        }),
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
            Ok(socket) => texts(Nftables::new(socket, nftables::Config::default()).cleanup()),
            Err(error) => vec![Error::Kernel(error).to_string()],
        },
        Mode::Iptables | Mode::Ipvs => Vec::new(),
    }
}

fn texts<E: std::error::Error>(errors: Vec<E>) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}
