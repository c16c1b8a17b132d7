//! Draws what `cargo bench -p portolan-dataplane` has measured of every data plane.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::plots::{Line, Plot};

/// File, title, unit, range, and the name of the column.
type Column = (&'static str, &'static str, &'static str, Option<[f64; 2]>, &'static str);

const COLUMNS: [Column; 4] = [
    ("dataplanes-change.svg", "One endpoint changes, median", "ms", Some([0.01, 10_000.0]), "change p50 ms"),
    ("dataplanes-sync.svg", "First sync into an empty kernel", "ms", Some([1.0, 1_000_000.0]), "sync ms"),
    ("dataplanes-connections.svg", "New connections, against straight to the pod", "", None, "ratio"),
    (
        "dataplanes-latency.svg",
        "Until a new connection is there, median",
        "us",
        Some([10.0, 10_000.0]),
        "first us",
    ),
];

pub(crate) fn draw(json: &Path, dir: &Path) -> anyhow::Result<()> {
    let text = std::fs::read(json).with_context(|| format!("{}: measure first", json.display()))?;
    let rows: Vec<BTreeMap<String, Value>> = serde_json::from_slice(&text)?;
    std::fs::create_dir_all(dir)?;
    for (file, title, unit, range, column) in COLUMNS {
        let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for row in &rows {
            let number = |name: &str| row.get(name).and_then(Value::as_f64);
            let plane = row.get("plane").and_then(Value::as_str);
            if let (Some(plane), Some(services), Some(value)) = (plane, number("services"), number(column)) {
                lines.entry(plane).or_default().push((services, value));
            }
        }
        let mut lines: Vec<_> = lines.into_iter().map(|(name, points)| Line { name, points }).collect();
        for line in &mut lines {
            line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        let y = range.unwrap_or([0.0, 1.2]);
        let plot = Plot { decades: [1, 4], file, title, unit, logarithmic: range.is_some(), y, lines };
        std::fs::write(dir.join(plot.file), plot.svg()?)?;
        println!("drew {}", dir.join(file).display());
    }
    Ok(())
}
