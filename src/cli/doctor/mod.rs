//! `doctor`: checks everything that commonly goes wrong, and names what mends it.
//!
//! `gather` looks, `checks` decides over values, `bundle` writes both down for
//! somebody else to read, with nothing private in it.

use std::path::PathBuf;

use serde::Serialize;

use self::checks::{CHECKS, Finding};
use super::{
    Context, Exit, Trouble,
    out::{Ink, Look},
    say,
};

mod bundle;
mod checks;
mod facts;
mod gather;
mod shared;
#[cfg(test)]
mod tests;

/// Ends with 1 when something was found
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Also write a file for whoever is asked for help; names, addresses and keys are left out
    #[arg(long, value_name = "FILE")]
    bundle: Option<PathBuf>,
}

/// What came of all checks.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    version: String,
    checks: Vec<Checked>,
}

/// What came of one.
#[derive(Debug, Serialize)]
struct Checked {
    check: &'static str,
    ok: bool,
    findings: Vec<Finding>,
}

impl Report {
    fn of(facts: &facts::Facts) -> Self {
        let checks: Vec<_> = CHECKS
            .iter()
            .map(|it| {
                let findings = (it.look)(facts);
                Checked { check: it.id, ok: findings.is_empty(), findings }
            })
            .collect();
        Self { ok: checks.iter().all(|it| it.ok), version: facts.version.clone(), checks }
    }

    /// What is wrong first, then in a line each what is fine.
    fn page(&self, look: Look) -> String {
        let (mut wrong, mut fine) = (String::new(), String::new());
        for (checked, check) in self.checks.iter().zip(CHECKS) {
            if checked.ok {
                fine.push_str(&format!("{} {}\n", look.paint(Ink::Good, "ok"), check.fine));
            }
            for it in &checked.findings {
                let what = say::clean_lines(&it.what);
                let fix = say::clean_lines(&it.fix);
                wrong.push_str(&format!("{} {what}\n     to mend it: {fix}\n", look.paint(Ink::Bad, "!!")));
            }
        }
        if wrong.is_empty() { fine } else { format!("{wrong}\n{fine}") }
    }
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let facts = gather::gather(context).await;
    let report = Report::of(&facts);
    if let Some(path) = args.bundle {
        bundle::write(&path, &facts, &report)
            .map_err(|error| Trouble::Failed(format!("cannot write {}: {error}", path.display())))?;
        context.talk.line(format!("wrote {}; look through it before you send it", path.display()))?;
    }
    if context.json {
        let json = serde_json::to_vec(&report).map_err(|error| Trouble::Failed(error.to_string()))?;
        context.out.json(&json)?;
    } else {
        let page = report.page(context.out.look);
        context.out.text(&page)?;
    }
    Ok(if report.ok { Exit::Fine } else { Exit::Failed })
}
