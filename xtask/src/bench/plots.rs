//! Plots against the number of Services, as SVG written by hand: both axes logarithmic, readable on light and dark.

use std::fmt::Write as _;
use std::path::Path;

use super::scale::Row;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 70.0;

pub(super) struct Plot<'a> {
    /// The powers of ten of Services between which it is drawn.
    pub(super) decades: [i32; 2],
    pub(super) file: &'a str,
    pub(super) title: &'a str,
    pub(super) unit: &'a str,
    /// Powers of ten, or plain values.
    pub(super) logarithmic: bool,
    pub(super) y: [f64; 2],
    pub(super) lines: Vec<Line<'a>>,
}

pub(super) struct Line<'a> {
    pub(super) name: &'a str,
    pub(super) points: Vec<(f64, f64)>,
}

/// Of kube-proxy 1.36 in nftables mode, measured by us elsewhere on a like machine.
const KUBE_PROXY: &str = "kube-proxy 1.36, nftables";

pub(crate) fn draw(rows: &[Row], dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir)?;
    let line = |name, value: fn(&Row) -> f64| Line {
        name,
        points: rows.iter().map(|row| (row.services as f64, value(row))).collect(),
    };
    let other = |points: &[(f64, f64)]| Line { name: KUBE_PROXY, points: points.to_vec() };
    let target = |value: f64| Line { name: "aim", points: vec![(100.0, value), (100_000.0, value)] };
    let plots = [
        Plot {
            decades: [2, 5],
            file: "change.svg",
            title: "One endpoint changes: API's answer to first connect",
            unit: "ms",
            logarithmic: true,
            y: [0.1, 10_000.0],
            lines: vec![
                line("median", |row| row.change_median),
                line("99th percentile", |row| row.change_p99),
                other(&[(1_000.0, 800.0), (10_000.0, 5_200.0)]),
                target(5.0),
            ],
        },
        Plot {
            decades: [2, 5],
            file: "sync.svg",
            title: "First sync into an empty kernel, and after a restart",
            unit: "ms",
            logarithmic: true,
            y: [1.0, 100_000.0],
            lines: vec![
                line("first sync", |row| row.first_sync),
                line("restart, nothing written", |row| row.restart_sync),
                other(&[(10_000.0, 13_200.0)]),
            ],
        },
        Plot {
            decades: [2, 5],
            file: "memory.svg",
            title: "Resident memory of the proxy",
            unit: "MiB",
            logarithmic: true,
            y: [10.0, 1_000.0],
            lines: vec![
                line("after the first sync", |row| row.memory_first),
                line("with the agent", |row| row.memory_node),
                other(&[(10_000.0, 320.0)]),
            ],
        },
        Plot {
            decades: [2, 5],
            file: "connections.svg",
            title: "New connections through a ClusterIP, against straight to the pod",
            unit: "ratio",
            logarithmic: false,
            y: [0.0, 1.2],
            lines: vec![
                line("through a ClusterIP", |row| row.ratio),
                Line { name: "straight to the pod", points: vec![(100.0, 1.0), (100_000.0, 1.0)] },
                other(&[(10_000.0, 0.6)]),
            ],
        },
    ];
    for plot in plots {
        std::fs::write(dir.join(plot.file), plot.svg()?)?;
    }
    Ok(())
}

impl Plot<'_> {
    pub(super) fn svg(&self) -> Result<String, std::fmt::Error> {
        let mut svg = String::new();
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">
<style>
text {{ fill: #555 }} .grid {{ stroke: #888; stroke-opacity: 0.25 }} .line {{ fill: none; stroke-width: 2 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #bbb }} }}
</style>
<text x="{LEFT}" y="22" font-size="14">{}</text>"#,
            self.title
        )?;
        self.axes(&mut svg)?;
        for (index, line) in self.lines.iter().enumerate() {
            self.line(&mut svg, index, line)?;
        }
        svg.push_str("</svg>\n");
        Ok(svg)
    }

    fn axes(&self, svg: &mut String) -> std::fmt::Result {
        let bottom = HEIGHT - BOTTOM;
        for services in (self.decades[0]..=self.decades[1]).map(|power| 10_f64.powi(power)) {
            let x = self.x(services);
            writeln!(svg, r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{bottom}"/>"#)?;
            writeln!(
                svg,
                r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{services}</text>"#,
                bottom + 18.0
            )?;
        }
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="middle">Services</text>"#,
            f64::midpoint(LEFT, WIDTH - RIGHT),
            bottom + 34.0
        )?;
        for value in self.ticks() {
            let y = self.y(value);
            writeln!(
                svg,
                r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/>"#,
                WIDTH - RIGHT
            )?;
            writeln!(
                svg,
                r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{value} {}</text>"#,
                LEFT - 6.0,
                y + 4.0,
                self.unit
            )?;
        }
        Ok(())
    }

    fn x(&self, services: f64) -> f64 {
        let [first, last] = self.decades.map(f64::from);
        LEFT + (services.log10() - first) / (last - first) * (WIDTH - LEFT - RIGHT)
    }

    fn ticks(&self) -> Vec<f64> {
        let [low, high] = self.y;
        if self.logarithmic {
            let decades = (high / low).log10().round() as i32;
            return (0..=decades).map(|power| low * 10_f64.powi(power)).map(tidy).collect();
        }
        (0..=6).map(|step| tidy(low + (high - low) * f64::from(step) / 6.0)).collect()
    }

    fn y(&self, value: f64) -> f64 {
        let [low, high] = self.y;
        let part = if self.logarithmic {
            (value.max(low) / low).log10() / (high / low).log10()
        } else {
            (value - low) / (high - low)
        };
        HEIGHT - BOTTOM - part.clamp(0.0, 1.0) * (HEIGHT - BOTTOM - TOP)
    }

    fn line(&self, svg: &mut String, index: usize, line: &Line<'_>) -> std::fmt::Result {
        const COLOURS: [&str; 4] = ["#2a7fb8", "#3a9d6b", "#c8643c", "#8d7bb5"];
        let colour = COLOURS[index % COLOURS.len()];
        let points: Vec<String> = line
            .points
            .iter()
            .map(|(services, value)| format!("{:.1},{:.1}", self.x(*services), self.y(*value)))
            .collect();
        // What is only drawn for comparison has no marks of its own.
        let constant = line.points.len() == 2 && (line.points[0].1 - line.points[1].1).abs() < f64::EPSILON;
        let dashes = if constant { r#" stroke-dasharray="4 4""# } else { "" };
        writeln!(svg, r#"<polyline class="line" stroke="{colour}"{dashes} points="{}"/>"#, points.join(" "))?;
        if !constant {
            for point in &points {
                let (x, y) = point.split_once(',').unwrap_or_default();
                writeln!(svg, r#"<circle cx="{x}" cy="{y}" r="3.5" fill="{colour}"/>"#)?;
            }
        }
        let at = LEFT + index as f64 * (WIDTH - LEFT - RIGHT) / self.lines.len() as f64;
        let y = HEIGHT - 14.0;
        writeln!(svg, r#"<rect x="{at:.1}" y="{:.1}" width="12" height="4" fill="{colour}"/>"#, y - 6.0)?;
        writeln!(svg, r#"<text x="{:.1}" y="{y:.1}">{}</text>"#, at + 17.0, line.name)
    }
}

/// Without the noise of binary fractions.
fn tidy(value: f64) -> f64 {
    (value * 1e4).round() / 1e4
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_lie_where_the_axes_say() {
        let plot = Plot {
            decades: [2, 5],
            file: "",
            title: "",
            unit: "ms",
            logarithmic: true,
            y: [1.0, 100.0],
            lines: vec![],
        };
        assert_eq!(plot.ticks(), [1.0, 10.0, 100.0]);
        assert!(plot.y(100.0) < plot.y(10.0) && plot.y(10.0) < plot.y(1.0));
        assert!((plot.y(10.0) - f64::midpoint(plot.y(1.0), plot.y(100.0))).abs() < 1e-9);
        assert!((plot.x(100.0) - LEFT).abs() < 1e-9 && (plot.x(100_000.0) - (WIDTH - RIGHT)).abs() < 1e-9);
    }
}
