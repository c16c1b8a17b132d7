//! The answer as a value. Both outputs come from it: JSON by its derives, text by [`super::text`].

use std::net::IpAddr;

use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) from: Party,
    pub(crate) to: Destination,
    /// The node whose rules decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) service: Option<ServicePart>,
    pub(crate) verdict: Verdict,
    /// What happens to the packet on that node, in order.
    pub(crate) steps: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_ranges: Option<SourceRangesPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<AffinityPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_address: Option<SourceAddress>,
    pub(crate) endpoints: Vec<EndpointPart>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) assumptions: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<KernelPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) live: Option<LivePart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Party {
    /// As the user wrote it.
    pub(crate) asked: String,
    pub(crate) kind: PartyKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum PartyKind {
    Pod,
    Node,
    Outside,
    Unknown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Destination {
    pub(crate) asked: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) address: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    pub(crate) protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ServicePart {
    pub(crate) namespace: String,
    pub(crate) name: String,
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<PortPart>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) frontend: Option<FrontendPart>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PortPart {
    /// Empty for the single unnamed port.
    pub(crate) name: String,
    pub(crate) number: u16,
    pub(crate) protocol: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FrontendPart {
    pub(crate) kind: &'static str,
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum OutcomeKind {
    /// To an endpoint.
    Forward,
    /// The client is told that the connection is refused.
    Reject,
    /// The client hears nothing and times out.
    Drop,
    /// No Service is involved.
    Pass,
    /// The question has no answer as it stands; the problems say why.
    None,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Verdict {
    pub(crate) outcome: OutcomeKind,
    pub(crate) summary: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyPart {
    pub(crate) field: &'static str,
    pub(crate) value: &'static str,
    /// Policy Local that does not count, as the traffic comes from inside.
    pub(crate) short_circuit: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceRangesPart {
    pub(crate) allowed: Vec<String>,
    pub(crate) admitted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AffinityPart {
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) timeout_seconds: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SourceAddress {
    pub(crate) masqueraded: bool,
    pub(crate) why: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndpointPart {
    pub(crate) address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<String>,
    /// It may be chosen.
    pub(crate) used: bool,
    /// Why it may not be; or what is special about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What it sees as the client's address is a node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) masqueraded: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum ProblemKind {
    RefusedByApi,
    Unreadable,
    LeftOut,
    NoSuchPod,
    NoSuchNode,
    NoSuchService,
    NoAddress,
    NoNode,
    PortMissing,
    NoSuchPort,
    OtherFamily,
    ExternalName,
    Headless,
    OtherProxy,
    NoClusterIp,
    NoSelector,
    NoMatchingPod,
    NoReadyEndpoint,
    NoLocalEndpoint,
    PortNotDeclared,
    OutsideSourceRanges,
    NotLocalTraffic,
    UnknownAddress,
}

/// What is wrong, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Problem {
    pub(crate) kind: ProblemKind,
    pub(crate) what: String,
    pub(crate) way_out: String,
    /// The object, as `namespace/name`; of others than those asked about only the number is told.
    #[serde(skip)]
    pub(crate) about: Option<String>,
}

impl Problem {
    pub(crate) fn new(kind: ProblemKind, what: impl Into<String>, way_out: impl Into<String>) -> Self {
        Self { kind, what: what.into(), way_out: way_out.into(), about: None }
    }

    pub(crate) fn about(self, object: &str) -> Self {
        Self { about: Some(object.to_owned()), ..self }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KernelPart {
    pub(crate) state: KernelState,
    /// How many objects of the Service were compared.
    pub(crate) compared: usize,
    pub(crate) missing: Vec<String>,
    pub(crate) unexpected: Vec<String>,
    pub(crate) different: Vec<String>,
    /// Why it was not looked at and how it can be; or what the findings mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum KernelState {
    /// The kernel holds exactly what it should.
    Same,
    Drifted,
    NotLookedAt,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LivePart {
    /// The probe's own addresses.
    pub(crate) source: String,
    pub(crate) destination: String,
    /// What the prober saw.
    pub(crate) answer: String,
    pub(crate) hops: Vec<Hop>,
    /// The connection tracking entry, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) flow: Option<FlowPart>,
    /// Whether this is what the explanation says; `None` where that cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) as_explained: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// One rule or policy that the probe met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hop {
    pub(crate) table: String,
    pub(crate) chain: String,
    /// The rule's handle; none for a chain's policy or end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handle: Option<u64>,
    pub(crate) rule: String,
    pub(crate) verdict: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FlowPart {
    pub(crate) endpoint: String,
    pub(crate) translated: bool,
    pub(crate) masqueraded: bool,
    pub(crate) seen_as: IpAddr,
}
