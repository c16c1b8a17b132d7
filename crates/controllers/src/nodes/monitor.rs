//! Which nodes have fallen silent. A state machine: `now` is an argument.
//!
//! What counts is when a node's Lease was last *seen to change*, by this machine's clock: the node's own clock may be
//! wrong.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub struct Monitor {
    grace: Duration,
    nodes: HashMap<Arc<str>, Sign>,
}

/// The last sign of life.
#[derive(Debug)]
struct Sign {
    /// The renew time of the Lease, or what stands for it, as text.
    text: Option<String>,
    seen: Instant,
}

impl Monitor {
    /// A node that gives no sign for `grace` is silent.
    pub fn new(grace: Duration) -> Self {
        Self { grace, nodes: HashMap::new() }
    }

    /// A look at a node: the renew time of its Lease now. Returns whether that is a new sign of life.
    pub fn observe(&mut self, node: &Arc<str>, sign: Option<&str>, now: Instant) -> bool {
        match self.nodes.get_mut(node) {
            Some(last) if last.text.as_deref() == sign || sign.is_none() => false,
            Some(last) => {
                *last = Sign { text: sign.map(str::to_owned), seen: now };
                true
            }
            // The first look starts the clock, whatever the Lease says: this process may just have started.
            None => {
                self.nodes.insert(Arc::clone(node), Sign { text: sign.map(str::to_owned), seen: now });
                true
            }
        }
    }

    pub fn forget(&mut self, node: &str) {
        self.nodes.remove(node);
    }

    /// How much longer until the node counts as silent; zero when it does. `None` for a node never seen.
    pub fn left(&self, node: &str, now: Instant) -> Option<Duration> {
        let sign = self.nodes.get(node)?;
        Some((sign.seen + self.grace).saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silent_after_the_grace_and_alive_with_a_new_sign() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut monitor = Monitor::new(40 * second);
        let node: Arc<str> = "a".into();
        assert_eq!(monitor.left("a", start), None);
        assert!(monitor.observe(&node, Some("t1"), start));
        assert!(!monitor.observe(&node, Some("t1"), start + 30 * second), "the same sign is none");
        assert_eq!(monitor.left("a", start + 30 * second), Some(10 * second));
        assert_eq!(monitor.left("a", start + 40 * second), Some(Duration::ZERO));
        assert!(!monitor.observe(&node, None, start + 40 * second), "a lost Lease is no sign");
        assert!(monitor.observe(&node, Some("t2"), start + 41 * second));
        assert_eq!(monitor.left("a", start + 41 * second), Some(40 * second));
        monitor.forget("a");
        assert_eq!(monitor.left("a", start), None);
    }
}
