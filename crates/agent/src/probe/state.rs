//! The state of one probe of one running container: when to ask next, and what the answers so far amount to.
//!
//! No I/O and no clock: times come in as arguments. [`super::run`] does the asking.

use std::time::{Duration, Instant};

use portolan_api::core::v1::Probe;

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProbeKind {
    /// Holds the others back until it succeeds; its failure restarts the container.
    Startup,
    /// Its failure restarts the container.
    Liveness,
    /// Its failure takes the pod out of Services.
    Readiness,
}

impl ProbeKind {
    /// As events spell it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    Success,
    /// A success about which the user should know something.
    Warned(String),
    /// The container answered, or did not, and that counts; with the text for the event.
    Failure(String),
    /// The question could not be put; it does not count.
    Error(String),
}

/// What the answers amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Unknown,
    Success,
    Failure,
}

/// Thresholds and times, with Kubernetes' defaults filled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    pub(crate) success_threshold: u32,
    pub(crate) failure_threshold: u32,
}

impl Settings {
    pub(crate) fn of(probe: &Probe) -> Self {
        let or = |value: i32, default: u32| if value > 0 { value as u32 } else { default };
        Self {
            initial_delay: Duration::from_secs(or(probe.initial_delay_seconds, 0).into()),
            period: Duration::from_secs(or(probe.period_seconds, 10).into()),
            timeout: Duration::from_secs(or(probe.timeout_seconds, 1).into()),
            success_threshold: or(probe.success_threshold, 1),
            failure_threshold: or(probe.failure_threshold, 3),
        }
    }
}

/// The first wait of an early question, doubled after each.
const EARLY_WAIT: Duration = Duration::from_millis(20);

/// A probe at work.
#[derive(Debug)]
pub(crate) struct ProbeState {
    kind: ProbeKind,
    settings: Settings,
    verdict: Verdict,
    /// Equal answers in a row: which, and how many.
    streak: (bool, u32),
    asked: bool,
    /// The next question that counts; these are exact multiples of the period apart.
    tick: Instant,
    early: Option<Early>,
    done: bool,
}

/// A question before its time, see [`ProbeState::next`].
#[derive(Debug, Clone, Copy)]
struct Early {
    at: Instant,
    wait: Duration,
}

impl Early {
    fn after(wait: Duration, now: Instant) -> Self {
        Self { at: now + wait, wait }
    }
}

/// What an answer changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Report {
    /// The new verdict, if it turned.
    pub(crate) turned: Option<Verdict>,
    /// The answer counted: a failure is worth an event.
    pub(crate) counted: bool,
}

impl ProbeState {
    /// For a container that started at `started`. Where a startup probe held this one back until `now`, the initial
    /// delay still counts from the container's start.
    pub(crate) fn new(kind: ProbeKind, settings: Settings, started: Instant, now: Instant) -> Self {
        let verdict = match kind {
            ProbeKind::Startup => Verdict::Unknown,
            ProbeKind::Liveness => Verdict::Success,
            ProbeKind::Readiness => Verdict::Failure,
        };
        let tick = (started + settings.initial_delay).max(now);
        Self { kind, settings, verdict, streak: (false, 0), asked: false, tick, early: None, done: false }
    }

    /// When to ask next; `None`: never again, since the startup probe has succeeded or the container must go.
    ///
    /// Between the first question and the second lies a whole period, and a process that was started an instant ago
    /// has often not opened its port yet. So a readiness or startup probe also asks early in that gap: such a question
    /// counts if the answer is a success and is forgotten otherwise.
    pub(crate) fn next(&self) -> Option<Instant> {
        (!self.done).then(|| self.early.map_or(self.tick, |early| early.at.min(self.tick)))
    }

    /// Takes in the answer to the question asked at [`Self::next`]. `now` is when it came.
    pub(crate) fn record(&mut self, outcome: &Outcome, now: Instant) -> Report {
        let success = matches!(outcome, Outcome::Success | Outcome::Warned(_));
        match self.early.take().filter(|early| early.at < self.tick) {
            Some(early) if !success => {
                self.early = Some(Early::after(early.wait * 2, now));
                return Report::default();
            }
            Some(_) => {}
            None => self.pass_tick(success, now),
        }
        if matches!(outcome, Outcome::Error(_)) {
            return Report { turned: None, counted: true };
        }
        let times = if self.streak.0 == success { self.streak.1 + 1 } else { 1 };
        self.streak = (success, times);
        Report { turned: self.judge(), counted: true }
    }

    fn pass_tick(&mut self, success: bool, now: Instant) {
        if !self.asked && !success && self.kind != ProbeKind::Liveness {
            self.early = Some(Early::after(EARLY_WAIT, now));
        }
        self.asked = true;
        // An answer that took longer than a period costs the ticks it covered, not the rhythm.
        self.tick += self.settings.period;
        while self.tick < now {
            self.tick += self.settings.period;
        }
    }

    fn judge(&mut self) -> Option<Verdict> {
        let (success, times) = self.streak;
        let (threshold, verdict) = if success {
            (self.settings.success_threshold, Verdict::Success)
        } else {
            (self.settings.failure_threshold, Verdict::Failure)
        };
        if times < threshold || self.verdict == verdict {
            return None;
        }
        self.verdict = verdict;
        // Decided for the life of this container: it has started, or it will be restarted.
        self.done = match self.kind {
            ProbeKind::Startup => true,
            ProbeKind::Liveness => verdict == Verdict::Failure,
            ProbeKind::Readiness => false,
        };
        Some(verdict)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAILED: fn() -> Outcome = || Outcome::Failure("HTTP probe failed with statuscode: 503".into());

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn probe(kind: ProbeKind, probe: &Probe) -> (ProbeState, Instant) {
        let start = Instant::now();
        (ProbeState::new(kind, Settings::of(probe), start, start), start)
    }

    /// Answers at the very moment of asking, on ticks only.
    fn tick(state: &mut ProbeState, outcome: &Outcome) -> Report {
        state.early = None;
        let at = state.next().unwrap();
        state.record(outcome, at)
    }

    #[test]
    fn prb_2_defaults() {
        let expected = Settings {
            initial_delay: seconds(0),
            period: seconds(10),
            timeout: seconds(1),
            success_threshold: 1,
            failure_threshold: 3,
        };
        assert_eq!(Settings::of(&Probe::default()), expected);
    }

    #[test]
    fn prb_3_readiness_starts_false_and_follows_its_thresholds() {
        let settings = Probe { success_threshold: 2, failure_threshold: 3, ..Probe::default() };
        let (mut state, _) = probe(ProbeKind::Readiness, &settings);
        let turned: Vec<Option<Verdict>> = "fsfss fff s ff s fff"
            .chars()
            .filter(|c| *c != ' ')
            .map(|c| tick(&mut state, &if c == 's' { Outcome::Success } else { FAILED() }).turned)
            .collect();
        let mut expected = vec![None; turned.len()];
        expected[4] = Some(Verdict::Success);
        expected[7] = Some(Verdict::Failure);
        assert_eq!(turned, expected);
    }

    #[test]
    fn ticks_keep_their_rhythm() {
        let settings = Probe { initial_delay_seconds: 5, period_seconds: 2, ..Probe::default() };
        let (mut state, start) = probe(ProbeKind::Liveness, &settings);
        assert_eq!(state.next(), Some(start + seconds(5)));
        state.record(&Outcome::Success, start + seconds(5) + Duration::from_millis(700));
        assert_eq!(state.next(), Some(start + seconds(7)));
        state.record(&Outcome::Success, start + Duration::from_millis(12_100));
        assert_eq!(state.next(), Some(start + seconds(13)), "9 and 11 are missed, 13 is on the grid");
    }

    #[test]
    fn the_initial_delay_counts_from_the_start_of_the_container() {
        let settings = Settings::of(&Probe { initial_delay_seconds: 5, ..Probe::default() });
        let start = Instant::now();
        let held = |until| ProbeState::new(ProbeKind::Readiness, settings, start, start + until).next();
        assert_eq!(held(seconds(2)), Some(start + seconds(5)));
        assert_eq!(held(seconds(8)), Some(start + seconds(8)));
    }

    #[test]
    fn prb_3_liveness_failure_is_final() {
        let (mut state, _) = probe(ProbeKind::Liveness, &Probe::default());
        assert_eq!(tick(&mut state, &Outcome::Success).turned, None, "it starts as success");
        assert_eq!(tick(&mut state, &FAILED()).turned, None);
        assert_eq!(tick(&mut state, &FAILED()).turned, None);
        assert_eq!(tick(&mut state, &FAILED()).turned, Some(Verdict::Failure));
        assert_eq!(state.next(), None);
    }

    #[test]
    fn startup_is_decided_once() {
        let (mut state, _) = probe(ProbeKind::Startup, &Probe::default());
        assert_eq!(tick(&mut state, &FAILED()).turned, None);
        assert_eq!(tick(&mut state, &Outcome::Success).turned, Some(Verdict::Success));
        assert_eq!(state.next(), None);
    }

    #[test]
    fn an_error_does_not_count() {
        let settings = Probe { failure_threshold: 1, ..Probe::default() };
        let (mut state, _) = probe(ProbeKind::Liveness, &settings);
        for _ in 0..5 {
            assert_eq!(tick(&mut state, &Outcome::Error("no such port".into())).turned, None);
        }
        assert_eq!(tick(&mut state, &FAILED()).turned, Some(Verdict::Failure));
    }

    #[test]
    fn early_questions_count_only_as_success() {
        let settings = Probe { failure_threshold: 2, ..Probe::default() };
        let (mut state, start) = probe(ProbeKind::Readiness, &settings);
        assert!(state.record(&FAILED(), start).counted);
        let mut asked = Vec::new();
        while state.next().unwrap() < start + seconds(10) {
            let at = state.next().unwrap();
            asked.push((at - start).as_millis());
            assert_eq!(state.record(&FAILED(), at), Report::default());
        }
        assert_eq!(asked, [20, 60, 140, 300, 620, 1260, 2540, 5100]);
        assert_eq!(state.streak, (false, 1), "none of them counted");
        state.record(&FAILED(), start + seconds(10));
        assert_eq!(state.next(), Some(start + seconds(20)), "from the second tick on only ticks");

        let (mut state, start) = probe(ProbeKind::Readiness, &settings);
        state.record(&FAILED(), start);
        let early = state.next().unwrap();
        let report = state.record(&Outcome::Success, early);
        assert_eq!(report.turned, Some(Verdict::Success));
        assert_eq!(state.next(), Some(start + seconds(10)));
    }

    #[test]
    fn liveness_never_asks_early() {
        let (mut state, start) = probe(ProbeKind::Liveness, &Probe::default());
        state.record(&FAILED(), start);
        assert_eq!(state.next(), Some(start + seconds(10)));
    }
}
