//! `--live`: a probe, and the rules that it met on the node.
//!
//! A table of our own sets the `nftrace` bit of the probe's five-tuple and of nothing else; the kernel then tells every
//! rule that decides about the packet. The table belongs to our socket: it goes with this process, however that ends.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_dataplane::nftables::words;
use portolan_forward::{Family, Outcome, Protocol};
use portolan_netlink::conntrack::{self, Conntrack, Flow, Ports};
use portolan_netlink::netns::Netns;
use portolan_netlink::nft::trace::{Cause, Event};
use portolan_netlink::nft::{
    self, Base, Batch, Chain, ChainKind, Expr, Hook, MetaKey, NfTables, Op, Policy, Reg, Rule, Table, Tracer,
    Value, Verdict, priority,
};

use super::answer::Aimed;
use super::chains;
use super::probe::{Probe, Reply};
use super::report::{EndpointPart, FlowPart, Hop, LivePart};

/// Never `portolan`, which is the proxy's.
const TABLE: &str = "portolan-trace";
/// The last events are there when the answer is; this is for a busy machine.
const QUIET: Duration = Duration::from_millis(200);
/// Events of one packet; more would be a loop.
const HOPS_MAX: usize = 256;

/// The node's side: what listens, and what marks.
struct Ear {
    tracer: Tracer,
    nft: nft::Socket,
    conntrack: Conntrack,
}

impl Ear {
    fn open() -> std::io::Result<Self> {
        Ok(Self { tracer: Tracer::open()?, nft: nft::Socket::open()?, conntrack: Conntrack::open()? })
    }
}

/// Sends the probe in one namespace and follows it in the other. An error is a sentence.
pub(crate) fn look(
    node: &Netns,
    source: &Netns,
    aimed: &Aimed,
    endpoints: &[EndpointPart],
) -> Result<LivePart, String> {
    let packet = &aimed.packet;
    let destination = SocketAddr::new(packet.destination, packet.port);
    let ear = node.run(Ear::open).map_err(|error| error.to_string())?;
    let mut ear = ear.map_err(|error| format!("{error}; following a packet needs root"))?;
    let probe = source
        .run(|| Probe::open(packet.source, destination, packet.protocol))
        .map_err(|error| error.to_string())?
        .map_err(|error| format!("cannot send from {}: {error}", packet.source))?;
    ear.nft.commit(&marker(probe.source, destination, packet.protocol)).map_err(|error| {
        format!("cannot make the table {TABLE}: {error} (it needs Linux 5.12, and one trace at a time)")
    })?;
    let stop = AtomicBool::new(false);
    let (reply, events) = std::thread::scope(|scope| {
        // A socket stays in the namespace it was made in: sending needs no visit there.
        let sender = scope.spawn(|| probe.send(&stop));
        let events = listen(&mut ear.tracer, &stop, || sender.is_finished());
        (sender.join().unwrap_or(Reply::Silence), events)
    });
    let events = events.map_err(|error| format!("listening to the kernel: {error}"))?;
    let flow = find_flow(&mut ear.conntrack, probe.source, destination, packet.protocol);
    // The table goes now, not only with the socket: the reading below is not the probe's business.
    _ = ear.nft.commit(&Batch { ops: vec![Op::DelTable(table(packet.destination))] });
    let hops = hops(node, &mut ear.nft, &events);
    let flow = flow.map(|flow| flow_part(&flow));
    let unseen =
        || "The node's rules did not see the probe: it took another way, or was stopped before.".to_owned();
    let note = chains::why_silent(node).or_else(|| events.is_empty().then(unseen));
    Ok(LivePart {
        source: probe.source.to_string(),
        destination: format!("{destination}/{}", packet.protocol),
        answer: reply.text(),
        as_explained: agrees(&aimed.outcome, reply, flow.as_ref(), endpoints),
        hops,
        flow,
        note,
    })
}

fn table(like: std::net::IpAddr) -> Table {
    let family = if like.is_ipv4() { nft::Family::Ip } else { nft::Family::Ip6 };
    Table::new(family, TABLE)
}

/// `ip saddr A ip daddr B meta l4proto tcp th sport C th dport D meta nftrace set 1`, before connection tracking, where a
/// packet of another host or pod enters and where one of the node's own leaves.
fn marker(source: SocketAddr, destination: SocketAddr, protocol: Protocol) -> Batch {
    let table = table(destination.ip());
    let reg = Reg::new(0);
    let one = Value::from_slice(&[1]);
    let number = Value::proto_only(protocol.number());
    let port = |number: u16| Value::from_slice(&number.to_be_bytes());
    let exprs = vec![
        Expr::saddr(table.family, reg),
        Expr::eq(reg, Value::from(source.ip())),
        Expr::daddr(table.family, reg),
        Expr::eq(reg, Value::from(destination.ip())),
        Expr::l4proto(reg),
        Expr::eq(reg, number),
        Expr::sport(reg),
        Expr::eq(reg, port(source.port())),
        Expr::dport(reg),
        Expr::eq(reg, port(destination.port())),
        Expr::Immediate { dreg: reg, data: one },
        Expr::MetaSet { key: MetaKey::Nftrace, sreg: reg },
    ];
    let mut ops = vec![Op::AddOwnedTable(table.clone())];
    for (name, hook) in [("prerouting", Hook::Prerouting), ("output", Hook::Output)] {
        let base = Base { kind: ChainKind::Filter, hook, priority: priority::RAW, policy: Policy::Accept };
        ops.push(Op::AddChain(Chain::base(&table, name, base)));
        ops.push(Op::AddRule(Rule::new(&table, name, exprs.clone())));
    }
    Batch { ops }
}

/// The events of the first packet. Ends when it was dropped, or some quiet time after the answer.
fn listen(
    tracer: &mut Tracer,
    stop: &AtomicBool,
    is_answered: impl Fn() -> bool,
) -> std::io::Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    let mut quiet_since = None;
    while events.len() < HOPS_MAX {
        let event = tracer.next(Duration::from_millis(20))?;
        // The first event is our own rule's; from it the packet's id is known. Later packets of the probe do not count.
        let is_ours = |event: &Event| match events.first() {
            Some(first) => event.packet == first.packet,
            None => *event.table.name == *TABLE,
        };
        if let Some(event) = event.filter(is_ours) {
            if event.verdict == Verdict::Drop {
                // A rejection still has to come back to the sender.
                quiet_since.get_or_insert_with(Instant::now);
            }
            events.push(event);
        }
        if is_answered() {
            quiet_since.get_or_insert_with(Instant::now);
        }
        if quiet_since.is_some_and(|since| since.elapsed() > QUIET) {
            break;
        }
    }
    stop.store(true, Ordering::Relaxed);
    events.retain(|event| *event.table.name != *TABLE);
    Ok(events)
}

/// Events with the words of their rules.
fn hops(node: &Netns, nft: &mut nft::Socket, events: &[Event]) -> Vec<Hop> {
    let mut rules: HashMap<Table, HashMap<u64, String>> = HashMap::new();
    let mut hops = Vec::new();
    for event in events {
        let of_table = rules.entry(event.table.clone()).or_insert_with(|| {
            let rules = nft.rules(&event.table, None).unwrap_or_default();
            let mut iptables = chains::texts(node, &event.table, &rules);
            let mut text = |rule: &Rule, handle| iptables.remove(&handle).unwrap_or_else(|| rule_text(rule));
            rules.into_iter().map(|rule| (rule.handle, text(&rule.item, rule.handle))).collect()
        });
        let (handle, rule) = match event.cause {
            Cause::Rule(handle) => {
                (Some(handle), of_table.get(&handle).cloned().unwrap_or_else(|| "a rule that is gone".into()))
            }
            Cause::Return => (None, "end of the chain".into()),
            Cause::Policy => (None, "end of the chain, its policy".into()),
        };
        hops.push(Hop {
            table: event.table.to_string(),
            chain: event.chain.to_string(),
            handle,
            rule,
            verdict: words::verdict_text(&event.verdict),
        });
    }
    hops
}

fn rule_text(rule: &Rule) -> String {
    let words = words::rule(&rule.exprs);
    match &rule.comment {
        Some(comment) if words.is_empty() => comment.to_string(),
        Some(comment) => format!("{words} ({comment})"),
        None => words,
    }
}

fn find_flow(
    conntrack: &mut Conntrack,
    source: SocketAddr,
    destination: SocketAddr,
    protocol: Protocol,
) -> Option<Flow> {
    let family = match Family::of(source.ip()) {
        Family::V4 => conntrack::Family::V4,
        Family::V6 => conntrack::Family::V6,
    };
    let ports = Ports::Ports { src: source.port(), dst: destination.port() };
    conntrack.flows(family).ok()?.into_iter().find(|flow| {
        let tuple = &flow.original;
        tuple.src == source.ip()
            && tuple.dst == destination.ip()
            && tuple.proto == protocol.number()
            && tuple.ports == ports
    })
}

/// Where it went, and as whom: answers come from the endpoint and go to the address it was shown.
fn flow_part(flow: &Flow) -> FlowPart {
    let endpoint = SocketAddr::new(flow.reply.src, flow.reply.src_port().unwrap_or_default());
    FlowPart {
        endpoint: endpoint.to_string(),
        translated: flow.is_dnat(),
        // By the address alone one could not tell where a node masquerades what it sends itself.
        masqueraded: flow.status & Flow::SRC_NAT != 0,
        seen_as: flow.reply.dst,
    }
}

/// Whether the packet did what the explanation says. `None` where its traces do not tell.
fn agrees(
    outcome: &Outcome,
    reply: Reply,
    flow: Option<&FlowPart>,
    endpoints: &[EndpointPart],
) -> Option<bool> {
    match outcome {
        Outcome::Forward { .. } => {
            let flow = flow?;
            Some(endpoints.iter().any(|endpoint| {
                let address = SocketAddr::new(endpoint.address, endpoint.port.unwrap_or_default());
                endpoint.used
                    && address.to_string() == flow.endpoint
                    && endpoint.masqueraded.is_none_or(|masqueraded| masqueraded == flow.masqueraded)
            }))
        }
        Outcome::Reject => Some(flow.is_none() && matches!(reply, Reply::Refused | Reply::NotPermitted)),
        Outcome::Drop => {
            let silent = matches!(reply, Reply::Silence | Reply::Sent | Reply::NotPermitted);
            Some(flow.is_none() && silent)
        }
        Outcome::Pass => flow.map(|flow| !flow.translated),
    }
}
