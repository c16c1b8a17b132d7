//! Fuzzing for as long as one likes: what `make test` does for a moment, with other inputs each time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use portolan_agent::fuzzing::{SPDY, WEBSOCKET, spdy, websocket};
use portolan_apiserver::fuzzing::{Input, TARGETS, Target};
use portolan_dns::fuzzing::{ANSWERS, QUESTIONS, answer, question};

/// The messages of names.
static DNS: &[Target] = &[
    Target { name: "dns-question", run: asked, seeds: QUESTIONS },
    Target { name: "dns-answer", run: answer, seeds: ANSWERS },
];

/// What carries sessions with pods.
static SESSIONS: &[Target] = &[
    Target { name: "spdy", run: spdy, seeds: SPDY },
    Target { name: "websocket", run: websocket, seeds: WEBSOCKET },
];

/// Inputs between two looks at the clock.
const ROUND: usize = 200;

/// Feeds one target, or all of them in turn, each for so long.
pub(crate) fn run(name: Option<&str>, seconds: u64, seed: Option<u64>) -> anyhow::Result<()> {
    let all = || TARGETS.iter().chain(DNS).chain(SESSIONS);
    let known = || all().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let chosen: Vec<&Target> = all().filter(|t| name.is_none_or(|name| t.name == name)).collect();
    anyhow::ensure!(!chosen.is_empty(), "no target {:?}; there are {}", name.unwrap_or_default(), known());
    let seed = match seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?.as_secs(),
    };
    for target in chosen {
        let inputs = feed(target, Duration::from_secs(seconds), seed)?;
        println!("{:<16} {inputs:>9} inputs, seed {seed}", target.name);
    }
    Ok(())
}

/// With the room of a plain client, and of one with EDNS.
fn asked(packet: &[u8]) {
    question(packet, 512);
    question(packet, 1232);
}

fn feed(target: &Target, time: Duration, seed: u64) -> anyhow::Result<usize> {
    let (begin, mut input, mut inputs) = (Instant::now(), Input::new(seed), 0);
    while begin.elapsed() < time {
        for _ in 0..ROUND {
            let bytes = input.next(target);
            let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
            anyhow::ensure!(
                outcome.is_ok(),
                "{} fails with seed {seed}, input {inputs}: {:?}",
                target.name,
                String::from_utf8_lossy(&bytes)
            );
            inputs += 1;
        }
    }
    Ok(inputs)
}
