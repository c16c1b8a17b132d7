//! The report in plain words.

use std::fmt::{self, Write as _};

use super::report::{EndpointPart, KernelState, LivePart, PartyKind, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "From     {}", from(self))?;
        writeln!(f, "To       {}", to(self))?;
        writeln!(f, "Verdict  {}", self.verdict.summary)?;
        if !self.steps.is_empty() {
            let on = self.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            writeln!(f, "\nWhat happens{on}")?;
            for (number, step) in (1..).zip(&self.steps) {
                writeln!(f, "  {number}. {step}")?;
            }
        }
        if !self.endpoints.is_empty() {
            let used = self.endpoints.iter().filter(|endpoint| endpoint.used).count();
            writeln!(f, "\nEndpoints: {used} of {} may be chosen", self.endpoints.len())?;
            f.write_str(&endpoints(&self.endpoints))?;
        }
        if !self.problems.is_empty() {
            writeln!(f, "\nProblems")?;
            for problem in &self.problems {
                writeln!(f, "  ! {}", problem.what)?;
                writeln!(f, "    {}", problem.way_out)?;
            }
        }
        if !self.assumptions.is_empty() {
            writeln!(f, "\nAssumed")?;
            for assumption in &self.assumptions {
                writeln!(f, "  - {assumption}")?;
            }
        }
        kernel(self, f)?;
        if let Some(part) = &self.live {
            live(part, f)?;
        }
        Ok(())
    }
}

fn from(report: &Report) -> String {
    let from = &report.from;
    let name = from.name.as_deref().unwrap_or(&from.asked);
    let address = from.address.map(|address| format!(" ({address})")).unwrap_or_default();
    match from.kind {
        PartyKind::Pod => {
            let node = from.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            format!("pod {name}{address}{node}")
        }
        PartyKind::Node => format!("node {name}{address}"),
        PartyKind::Outside => format!("{name}, outside the cluster"),
        PartyKind::Unknown => from.asked.clone(),
    }
}

fn to(report: &Report) -> String {
    let to = &report.to;
    let address = match (to.address, to.port) {
        (Some(ip), Some(port)) => format!("{}/{}", std::net::SocketAddr::new(ip, port), to.protocol),
        _ => String::new(),
    };
    let Some(service) = &report.service else {
        return if address.is_empty() || address.starts_with(&to.asked) {
            to.asked.clone()
        } else {
            format!("{}: {address}", to.asked)
        };
    };
    let mut text = format!("Service {}/{}", service.namespace, service.name);
    if let Some(port) = service.port.as_ref().filter(|port| !port.name.is_empty()) {
        let _ = write!(text, ", port {}", port.name);
    }
    if !address.is_empty() {
        let by = service.frontend.as_ref().map(|frontend| format!(" by its {}", frontend.kind));
        let _ = write!(text, ": {address}{}", by.unwrap_or_default());
    }
    text
}

/// One line each, in columns.
fn endpoints(parts: &[EndpointPart]) -> String {
    let rows: Vec<[String; 4]> = parts
        .iter()
        .map(|part| {
            let address = match part.port {
                Some(port) => std::net::SocketAddr::new(part.address, port).to_string(),
                None => part.address.to_string(),
            };
            let pod = part.pod.as_ref().map_or("-".into(), |pod| format!("pod {pod}"));
            let node = part.node.clone().unwrap_or_else(|| "-".into());
            [if part.used { "in" } else { "out" }.into(), address, pod, node]
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or_default();
    let widths = [3, width(1), width(2), width(3)];
    let mut text = String::new();
    for (row, part) in rows.iter().zip(parts) {
        let mut line = String::from("  ");
        for (cell, width) in row.iter().zip(widths) {
            let _ = write!(line, "{cell:width$}  ");
        }
        line.push_str(part.reason.as_deref().unwrap_or_default());
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn kernel(report: &Report, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Some(kernel) = &report.kernel else { return Ok(()) };
    let node = report.node.as_deref().unwrap_or_default();
    let note = kernel.note.as_deref().unwrap_or_default();
    match kernel.state {
        KernelState::NotLookedAt => return writeln!(f, "\nKernel of {node}: not looked at: {note}"),
        KernelState::Same => {
            return writeln!(
                f,
                "\nKernel of {node}: holds exactly this ({} objects compared)",
                kernel.compared
            );
        }
        KernelState::Drifted => writeln!(f, "\nKernel of {node}: DIFFERS from what it should hold")?,
    }
    for (what, lines) in
        [("missing", &kernel.missing), ("unexpected", &kernel.unexpected), ("different", &kernel.different)]
    {
        for line in lines {
            writeln!(f, "  {what}: {line}")?;
        }
    }
    if note.is_empty() { Ok(()) } else { writeln!(f, "  {note}") }
}

fn live(part: &LivePart, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "\nLive: a probe from {} to {}: {}", part.source, part.destination, part.answer)?;
    for hop in &part.hops {
        let handle = hop.handle.map(|handle| format!(" #{handle}")).unwrap_or_default();
        writeln!(f, "  {} {}{handle}: {} -> {}", hop.table, hop.chain, hop.rule, hop.verdict)?;
    }
    if let Some(flow) = &part.flow {
        let way = if flow.translated { "translated to" } else { "not translated: it went to" };
        let source = if flow.masqueraded { "masqueraded as" } else { "its source kept as" };
        writeln!(f, "  conntrack: {way} {}, {source} {}", flow.endpoint, flow.seen_as)?;
    }
    match part.as_explained {
        Some(true) => writeln!(f, "  This is what the explanation says.")?,
        Some(false) => writeln!(f, "  This is NOT what the explanation says.")?,
        None => {}
    }
    match &part.note {
        Some(note) => writeln!(f, "  {note}"),
        None => Ok(()),
    }
}
