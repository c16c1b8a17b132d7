//! How the story is told: plain text, with a mark for every expectation.

use std::io::IsTerminal;
use std::time::Duration;

pub(super) struct Story {
    margin: &'static str,
    colour: bool,
    chapters: u32,
    kept: u32,
    broken: Vec<String>,
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1e3)
}

impl Story {
    pub(super) fn new() -> Self {
        Self {
            margin: "   ",
            colour: std::io::stdout().is_terminal(),
            chapters: 0,
            kept: 0,
            broken: Vec::new(),
        }
    }

    pub(super) fn title(&self, text: &str) {
        println!("{}\n{}", self.paint("1", text), "=".repeat(text.len()));
    }

    pub(super) fn chapter(&mut self, text: &str) {
        self.chapters += 1;
        println!("\n{}", self.paint("1", &format!("{}. {text}", self.chapters)));
    }

    pub(super) fn say(&self, line: &str) {
        println!("{}{line}", self.margin);
    }

    pub(super) fn command(&self, line: &str) {
        println!("{}{}", self.margin, self.paint("36", &format!("$ {line}")));
    }

    pub(super) fn output(&self, text: &str) {
        for line in text.trim_end().lines() {
            println!("{}  {}", self.margin, self.paint("2", line));
        }
    }

    pub(super) fn timing(&self, what: &str, took: Duration) {
        println!("{}{what:<45} {:>10}", self.margin, milliseconds(took));
    }

    pub(super) fn row(&self, what: &str, to: &str, came: &str) {
        println!("{}{what:<35} -> {to:<20} {came}", self.margin);
    }

    pub(super) fn expect(&mut self, what: &str, held: bool) {
        if held {
            self.kept += 1;
            println!("{}{} {what}", self.margin, self.paint("32", "ok"));
        } else {
            self.broken.push(what.to_owned());
            println!("{}{} {what}", self.margin, self.paint("31", "NOT TRUE:"));
        }
    }

    pub(super) fn held(&self) -> bool {
        self.broken.is_empty() && self.kept > 0
    }

    pub(super) fn end(&self) {
        println!();
        if self.held() {
            println!(
                "{}",
                self.paint("32", &format!("All {} expectations held; the lab is gone again.", self.kept))
            );
            return;
        }
        println!("{}", self.paint("31", &format!("{} expectations did not hold:", self.broken.len())));
        for what in &self.broken {
            println!("  - {what}");
        }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}
