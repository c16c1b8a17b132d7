//! Who asks whom, and who answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::error::LabError;
use crate::lab::Lab;
use crate::layout::Host;
use crate::probe::{self, Answer};

pub(super) fn socket(text: &str) -> SocketAddr {
    text.trim().parse().unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
}

/// How often each pod answered, and what else came.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pods: BTreeMap<String, u32>,
    failures: BTreeMap<String, u32>,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let both = self.pods.iter().chain(&self.failures);
        let parts: Vec<String> = both.map(|(who, count)| format!("{who}: {count}")).collect();
        f.write_str(&parts.join("  "))
    }
}

/// Exactly these pods answered, and nothing failed.
pub(super) fn all_of(tally: &Tally, pods: &[&str]) -> bool {
    tally.failures.is_empty() && tally.pods.keys().map(String::as_str).eq(pods.iter().copied())
}

pub(super) fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Text(text) => text.trim().to_owned(),
        Answer::Refused => "refused".into(),
        Answer::Unreachable => "unreachable".into(),
        Answer::Silence => "no answer".into(),
        Answer::Failed(why) => format!("failed: {why}"),
    }
}

pub(super) struct Cast<'a> {
    lab: &'a Lab,
}

impl<'a> Cast<'a> {
    pub(super) fn new(lab: &'a Lab) -> Self {
        Self { lab }
    }

    pub(super) fn ask(&self, from: &str, to: SocketAddr) -> Result<Answer, LabError> {
        probe::http_get(&self.lab.place(from)?.netns, to, "/")
    }

    pub(super) fn ask_many(&self, from: &str, to: SocketAddr, times: u32) -> Result<Tally, LabError> {
        let place = self.lab.place(from)?;
        let mut tally = Tally::default();
        for _ in 0..times {
            let answer = probe::http_get(&place.netns, to, "/")?;
            match answer.text().and_then(pod_name) {
                Some(pod) => *tally.pods.entry(pod).or_default() += 1,
                None => *tally.failures.entry(describe(&answer)).or_default() += 1,
            }
        }
        Ok(tally)
    }

    /// Asks in rounds until a round satisfies; gives the time until that round began.
    pub(super) fn wait_until(
        &self,
        from: &str,
        to: SocketAddr,
        patience: Duration,
        satisfies: impl Fn(&Tally) -> bool,
    ) -> Result<Duration, LabError> {
        let begin = Instant::now();
        loop {
            let round = begin.elapsed();
            if satisfies(&self.ask_many(from, to, 24)?) || round > patience {
                return Ok(round);
            }
        }
    }

    /// Flips the pod's answer to its readiness probe, by asking it so from its node's side.
    pub(super) fn set_ready(&self, pod: &str, ready: bool) -> Result<(), LabError> {
        let ip = self.lab.kubectl().run(&["get", "pod", pod, "-o", "jsonpath={.status.podIP}"])?;
        let path = format!("/ready?value={ready}");
        probe::http_post(&self.lab.host(Host::Node(1))?, socket(&format!("{ip}:80")), &path)?;
        Ok(())
    }

    /// Waits until the Endpoints object lists so many ready addresses.
    pub(super) fn wait_for_endpoints(
        &self,
        name: &str,
        count: usize,
        patience: Duration,
    ) -> Result<Duration, LabError> {
        let begin = Instant::now();
        let template = "jsonpath={.subsets[*].addresses[*].ip}";
        loop {
            let addresses = self.lab.kubectl().run(&["get", "endpoints", name, "-o", template])?;
            if addresses.split_whitespace().count() == count || begin.elapsed() > patience {
                return Ok(begin.elapsed());
            }
        }
    }
}

fn pod_name(body: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(body).ok()?;
    Some(value.get("name")?.as_str()?.to_owned())
}
