//! How far a role is.

use tokio::sync::watch;

/// Tells others when a role does its work for the first time. `T` is what they need to know of it then.
#[derive(Debug, Clone)]
pub struct Progress<T = ()> {
    ready: watch::Sender<Option<T>>,
}

impl<T> Default for Progress<T> {
    fn default() -> Self {
        Self { ready: watch::Sender::new(None) }
    }
}

impl<T: Clone> Progress<T> {
    /// Says that the role is ready. Only the first word counts.
    pub fn set_ready(&self, value: T) {
        self.ready.send_if_modified(|ready| {
            let first = ready.is_none();
            ready.get_or_insert(value);
            first
        });
    }

    /// Waits until the role is ready.
    pub async fn ready(&self) -> T {
        let mut receiver = self.ready.subscribe();
        loop {
            if let Some(value) = receiver.borrow_and_update().clone() {
                return value;
            }
            // The sender is `self`: it cannot be gone.
            _ = receiver.changed().await;
        }
    }

    pub fn is_ready(&self) -> bool {
        self.ready.borrow().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_word_is_heard_by_those_before_it_and_after_it() {
        let progress = Progress::default();
        assert!(!progress.is_ready());
        let early = tokio::spawn({
            let progress = progress.clone();
            async move { progress.ready().await }
        });
        tokio::task::yield_now().await;
        progress.set_ready(1);
        progress.set_ready(2);
        assert!(progress.is_ready());
        assert_eq!((early.await.unwrap(), progress.ready().await), (1, 1));
    }
}
