//! The table of a run.

use std::fmt;

use crate::{Scene, Way};

/// One line: what each way showed, and what was wanted.
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) shown: Vec<(Way, String)>,
    /// The figure that the target is about.
    pub(crate) figure: Option<f64>,
    pub(crate) unit: &'static str,
    pub(crate) target: Option<Target>,
}

#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn met(self, figure: f64) -> bool {
        match self {
            Self::AtMost(limit) => figure <= limit,
            Self::AtLeast(limit) => figure >= limit,
        }
    }
}

pub(crate) struct Report {
    heading: String,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(scene: &Scene, tcp: bool) -> Self {
        let transport = if tcp { "loopback TCP" } else { "Unix sockets" };
        let pinned = match scene.cores {
            Some(cores) => {
                format!("proxies alone on core {}, servers and client on core {}", cores.proxy, cores.rest)
            }
            None => "nothing pinned".to_owned(),
        };
        let yardstick = if scene.haproxy.is_some() { "" } else { "; HAProxy is not installed" };
        Self { heading: format!("callers over {transport}; {pinned}{yardstick}"), rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.heading)?;
        let line = |f: &mut fmt::Formatter<'_>, cells: [&str; 7]| {
            let [name, direct, haproxy, lovable, figure, target, verdict] = cells;
            writeln!(
                f,
                "{name:<44} {direct:>12} {haproxy:>12} {lovable:>12} {figure:>10} {target:>10}  {verdict}"
            )
        };
        line(f, ["", "direct", "haproxy", "lovable", "figure", "target", ""])?;
        for row in &self.rows {
            let shown = |way| row.shown.iter().find(|it| it.0 == way).map_or("-", |it| it.1.as_str());
            let figure = row.figure.map_or_else(|| "-".to_owned(), |it| format!("{it:.2}{}", row.unit));
            let (target, verdict) = match (row.target, row.figure) {
                (None, _) => (String::new(), ""),
                (Some(target), figure) => {
                    let text = match target {
                        Target::AtMost(limit) => format!("≤ {limit}{}", row.unit),
                        Target::AtLeast(limit) => format!("≥ {limit}{}", row.unit),
                    };
                    let verdict = match figure {
                        None => "no yardstick",
                        Some(figure) if target.met(figure) => "pass",
                        Some(_) => "MISS",
                    };
                    (text, verdict)
                }
            };
            line(
                f,
                [
                    &row.name,
                    shown(Way::Direct),
                    shown(Way::HaProxy),
                    shown(Way::Lovable),
                    &figure,
                    &target,
                    verdict,
                ],
            )?;
        }
        Ok(())
    }
}
