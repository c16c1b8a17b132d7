//! How a process says that it is ready: one line on its standard output, after which it says nothing more there.

use std::io::Write;

pub(crate) fn say(line: &str) {
    let mut stdout = std::io::stdout();
    // Whoever started us may have stopped listening; that is theirs to decide.
    let _ = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
}
