//! `portolan trace --manifests`, one directory per case: the objects, what is asked, and the answer in text and JSON.
//!
//! With `PORTOLAN_BLESS=1` the answers are written anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "a test that cannot set up its world must stop")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn cases() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trace");
    let entries = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<PathBuf> = entries.filter(|path| path.is_dir()).collect();
    cases.sort();
    cases
}

fn trace(case: &Path, output: &str) -> (String, Option<i32>) {
    let arguments = fs::read_to_string(case.join("args")).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
        .arg("trace")
        .arg("--manifests")
        .arg(case.join("manifests"))
        .args(arguments.split_whitespace())
        .args(["-o", output])
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8_lossy(&output.stderr);
    (said, output.status.code())
}

#[test]
fn answers_are_as_written() {
    let bless = std::env::var_os("PORTOLAN_BLESS").is_some();
    let mut different = Vec::new();
    let cases = cases();
    assert!(cases.len() >= 10, "the cases are gone");
    for case in &cases {
        for (format, file) in [("text", "answer.txt"), ("json", "answer.json")] {
            let (said, _) = trace(case, format);
            let path = case.join(file);
            if bless {
                fs::write(&path, &said).unwrap();
            } else if fs::read_to_string(&path).unwrap_or_default() != said {
                different.push(format!("{}:\n{said}", path.display()));
            }
        }
    }
    assert!(different.is_empty(), "PORTOLAN_BLESS=1 accepts this:\n{}", different.join("\n"));
}

#[test]
fn text_and_json_say_the_same() {
    for case in cases() {
        let ((text, text_code), (json, json_code)) = (trace(&case, "text"), trace(&case, "json"));
        assert_eq!(text_code, json_code);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let mut sentences = vec![json["verdict"]["summary"].clone()];
        for (list, field) in [("endpoints", "reason"), ("problems", "what"), ("problems", "wayOut")] {
            sentences.extend(json[list].as_array().unwrap().iter().map(|item| item[field].clone()));
        }
        for list in ["steps", "assumptions"] {
            sentences.extend(json[list].as_array().unwrap().iter().cloned());
        }
        for sentence in sentences.iter().filter_map(|sentence| sentence.as_str()) {
            assert!(text.contains(sentence), "{}: {sentence:?} is not in\n{text}", case.display());
        }
        let answered = json["verdict"]["outcome"] != "None";
        assert_eq!(text_code, Some(i32::from(!answered)), "{}", case.display());
    }
}

#[test]
fn what_cannot_be_traced_at_all_is_an_error_in_one_line() {
    for (arguments, wanted) in [
        (&["--from", "a", "--to", "b"][..], "--kubeconfig"),
        (&["--from", "a", "--to", "b", "--manifests", "/nowhere"], "no such file"),
        (&["--from", "a", "--to", "b", "--manifests", "/dev/null", "--live"], "--live"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_portolan"))
            .arg("trace")
            .args(arguments)
            .env_remove("KUBECONFIG")
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(wanted), "{arguments:?}: {said}");
    }
}
