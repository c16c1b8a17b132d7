//! Distributions as curves: which part of all samples is not above a time. SVG written by hand, readable on light and dark.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 330.0;
const ROW: f64 = 18.0;
const DECADES: [f64; 6] = [0.1, 1.0, 10.0, 100.0, 1_000.0, 10_000.0];
const COLOURS: [&str; 5] = ["#2a7fb8", "#c8643c", "#3a9d6b", "#8d7bb5", "#b8962a"];

pub(super) struct Curve<'a> {
    pub(super) name: &'a str,
    pub(super) ms: &'a [f64],
}

/// `aims` are times with a name, drawn upright.
pub(super) fn svg(
    title: &str,
    curves: &[Curve<'_>],
    aims: &[(&str, f64)],
) -> Result<String, std::fmt::Error> {
    let height = BOTTOM + 50.0 + ROW * curves.len() as f64;
    let mut svg = String::new();
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<style>
text {{ fill: #555 }} .grid {{ stroke: #888; stroke-opacity: 0.25 }} .aim {{ stroke: #888; stroke-dasharray: 4 4 }}
.line {{ fill: none; stroke-width: 2 }}
@media (prefers-color-scheme: dark) {{ text {{ fill: #bbb }} }}
</style>
<text x="{LEFT}" y="22" font-size="14">{title}</text>"#
    )?;
    axes(&mut svg, aims)?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        writeln!(svg, r#"<polyline class="line" stroke="{colour}" points="{}"/>"#, points(curve.ms))?;
        let at = BOTTOM + 56.0 + ROW * index as f64;
        writeln!(svg, r#"<rect x="{LEFT}" y="{:.1}" width="12" height="4" fill="{colour}"/>"#, at - 6.0)?;
        writeln!(svg, r#"<text x="{:.1}" y="{at:.1}">{}</text>"#, LEFT + 18.0, curve.name)?;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

fn axes(svg: &mut String, aims: &[(&str, f64)]) -> std::fmt::Result {
    for ms in DECADES {
        let x = x(ms);
        writeln!(svg, r#"<line class="grid" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}"/>"#)?;
        writeln!(svg, r#"<text x="{x:.1}" y="{:.1}" text-anchor="middle">{ms} ms</text>"#, BOTTOM + 18.0)?;
    }
    for percent in [0.0, 25.0, 50.0, 75.0, 100.0] {
        let y = y(percent / 100.0);
        writeln!(
            svg,
            r#"<line class="grid" x1="{LEFT}" y1="{y:.1}" x2="{:.1}" y2="{y:.1}"/>"#,
            WIDTH - RIGHT
        )?;
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{percent} %</text>"#,
            LEFT - 6.0,
            y + 4.0
        )?;
    }
    for (name, ms) in aims {
        let x = x(*ms);
        writeln!(svg, r#"<line class="aim" x1="{x:.1}" y1="{TOP}" x2="{x:.1}" y2="{BOTTOM}"/>"#)?;
        writeln!(
            svg,
            r#"<text x="{:.1}" y="{:.1}" text-anchor="end" font-size="10">{name}</text>"#,
            x - 4.0,
            TOP + 12.0
        )?;
    }
    Ok(())
}

/// Up one step at each sample.
fn points(ms: &[f64]) -> String {
    let mut sorted = ms.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = sorted.len().max(1) as f64;
    let steps = sorted.iter().enumerate().flat_map(|(i, ms)| {
        let (below, above) = (i as f64 / count, (i + 1) as f64 / count);
        [(x(*ms), y(below)), (x(*ms), y(above))]
    });
    let texts: Vec<String> = steps.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    texts.join(" ")
}

fn x(ms: f64) -> f64 {
    let (low, high) = (DECADES[0], DECADES[DECADES.len() - 1]);
    let part = (ms.max(low) / low).log10() / (high / low).log10();
    LEFT + part.min(1.0) * (WIDTH - LEFT - RIGHT)
}

fn y(part: f64) -> f64 {
    BOTTOM - part * (BOTTOM - TOP)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_at_the_top_over_its_largest_sample() {
        let all = points(&[10.0, 1.0]);
        assert!(all.starts_with(&format!("{:.1},{BOTTOM:.1}", x(1.0))), "{all}");
        assert!(all.ends_with(&format!("{:.1},{TOP:.1}", x(10.0))), "{all}");
        assert!((x(0.1) - LEFT).abs() < 1e-9 && (x(1e9) - (WIDTH - RIGHT)).abs() < 1e-9);
    }
}
