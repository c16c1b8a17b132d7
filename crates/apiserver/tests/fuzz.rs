//! A moment of fuzzing at every build: the same inputs each time. `cargo run -p xtask -- fuzz` goes on with others.

use portolan_apiserver::fuzzing::{Input, TARGETS};

/// For each target.
const INPUTS: usize = 2000;

#[test]
fn nothing_that_is_sent_breaks_a_decoder_a_patch_or_a_selector() {
    for target in TARGETS {
        let mut input = Input::new(1);
        for number in 0..INPUTS {
            let bytes = input.next(target);
            let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
            assert!(
                outcome.is_ok(),
                "{} fails with its input {number}: {:?}",
                target.name,
                String::from_utf8_lossy(&bytes)
            );
        }
    }
}
