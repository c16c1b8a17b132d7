//! When repair of the allocators runs, and who hears of what it found: the log, counters, and events about the objects.

use std::sync::Weak;
use std::time::Duration;

use portolan_api::resource::{IP_ADDRESSES, SERVICES};

use crate::alloc::repair::{Fix, Subject, Suspects};
use crate::limits::{REPAIR_INTERVAL, REPAIR_RETRY_PAUSE};
use crate::reports::{self, About, Voice};
use crate::server::ApiServer;

/// Looks at everything now and then, and in between at what is in doubt, until the server is gone.
pub(crate) async fn run(server: Weak<ApiServer>) {
    let mut suspects = Suspects::new();
    let mut everything = tokio::time::interval(REPAIR_INTERVAL);
    let mut pause = Duration::ZERO;
    loop {
        let Some(strong) = server.upgrade() else { return };
        let (mut stopped, doubts) = (strong.stopped(), strong.allocator().doubts());
        drop(strong);
        let in_doubt = async {
            tokio::time::sleep(pause).await;
            doubts.raised().await;
        };
        let all = tokio::select! {
            _ = everything.tick() => true,
            () = in_doubt => false,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        let Some(strong) = server.upgrade() else { return };
        let worked = tokio::select! {
            worked = step(&strong, all, &mut suspects) => worked,
            _ = stopped.wait_for(|stop| *stop) => return,
        };
        pause = if worked { Duration::ZERO } else { REPAIR_RETRY_PAUSE };
    }
}

async fn step(server: &ApiServer, all: bool, suspects: &mut Suspects) -> bool {
    let allocator = server.allocator();
    let found = if all { allocator.repair(suspects).await } else { allocator.repair_doubtful().await };
    match found {
        Ok(fixes) => {
            for fix in fixes {
                report(server, fix).await;
            }
            true
        }
        Err(error) => {
            server.metrics().allocators.repair_failed();
            tracing::warn!(%error, "repair of the allocators could not read or write the store");
            false
        }
    }
}

async fn report(server: &ApiServer, fix: Fix) {
    let (finding, counters) = (fix.finding, &server.metrics().allocators);
    if finding.is_of_ports() {
        counters.found_port(finding.kind());
    } else {
        counters.found_address(finding.kind());
    }
    let about = match fix.subject {
        None => return tracing::warn!(?finding, "{}", fix.message),
        Some(Subject::Service { owner, uid, revision }) => About {
            api_version: SERVICES.api_version(),
            kind: SERVICES.kind,
            namespace: owner.namespace,
            name: owner.name,
            uid,
            resource_version: revision.to_string(),
        },
        Some(Subject::Address { address, uid, revision }) => About {
            api_version: IP_ADDRESSES.api_version(),
            kind: IP_ADDRESSES.kind,
            namespace: String::new(),
            name: address.to_string(),
            uid,
            resource_version: revision.to_string(),
        },
    };
    let voice = Voice::Controller { name: finding.reporter(), action: finding.action() };
    reports::warn(server, &about, voice, finding.name(), &fix.message).await;
}
