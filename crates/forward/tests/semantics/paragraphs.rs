//! That every paragraph about the proxy has its tests: one against the model, one on a kernel. A test carries the ids in
//! its name: `pol_3_...`, `svc_1_and_2_...`, `aff_1_2_3_...`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const SECTIONS: [&str; 9] = ["SVC", "EPS", "POL", "MASQ", "NP", "LB", "AFF", "CT", "FAM"];

/// Matters of the kernel and of time, which a table does not know: which address and port masquerading picks, bits of
/// marks, the source that affinity goes by, and connections.
const NOT_OF_THE_MODEL: [&str; 7] = ["MASQ-3", "MASQ-4", "AFF-4", "CT-1", "CT-2", "CT-3", "CT-4"];

fn crates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn paragraphs() -> BTreeSet<String> {
    let text = fs::read_to_string(crates().parent().unwrap().join("docs/semantics.md")).unwrap();
    let ids = text.lines().filter_map(|line| line.strip_prefix("- ")?.split_whitespace().next());
    ids.filter(|id| id.split_once('-').is_some_and(|(section, _)| SECTIONS.contains(&section)))
        .map(str::to_owned)
        .collect()
}

/// Ids in the names of functions in these files.
fn shown(paths: &[PathBuf]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in paths {
        if path.is_dir() {
            let inside: Vec<PathBuf> =
                fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
            found.append(&mut shown(&inside));
        } else if path.extension().is_some_and(|suffix| suffix == "rs") {
            let text = fs::read_to_string(path).unwrap();
            text.split("fn ").skip(1).for_each(|rest| found.extend(ids(rest)));
        }
    }
    found
}

/// Of a name such as `ct_1_and_3_...`.
fn ids(name: &str) -> Vec<String> {
    let name: String = name.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    let mut words = name.split('_');
    let section = words.next().unwrap_or_default().to_uppercase();
    if !SECTIONS.contains(&section.as_str()) {
        return Vec::new();
    }
    let numbers = words.filter(|word| *word != "and").map_while(|word| word.parse::<u32>().ok());
    numbers.map(|number| format!("{section}-{number}")).collect()
}

#[test]
fn every_paragraph_is_shown_by_the_model_and_by_a_kernel() {
    assert_eq!(ids("ct_1_and_3_established() {"), ["CT-1", "CT-3"]);
    assert_eq!(ids("aff_1_2_3_a_client<P>()"), ["AFF-1", "AFF-2", "AFF-3"]);
    let all = paragraphs();
    assert!(all.len() > 30, "{all:?}");
    let model = shown(&[crates().join("forward/tests/semantics")]);
    let kernel = shown(&[
        crates().join("dataplane/tests/packets.rs"),
        crates().join("dataplane/tests/packets"),
        crates().join("proxy/tests"),
    ]);
    let not_of_the_model = NOT_OF_THE_MODEL.map(str::to_owned).into();
    let missing_in_model: Vec<_> =
        all.difference(&model).filter(|id| !BTreeSet::contains(&not_of_the_model, *id)).collect();
    assert!(missing_in_model.is_empty(), "no test against the model: {missing_in_model:?}");
    let missing_in_kernel: Vec<_> = all.difference(&kernel).collect();
    assert!(missing_in_kernel.is_empty(), "no test on a kernel: {missing_in_kernel:?}");
}
