//! llamafile's own server: a model and its server in one file.
//!
//! It says so in every response. In its other mode it is llama.cpp's server and says that, so
//! it is taken for one.

use super::{Answers, Kind, Verdict, fact, listing};
use crate::server::Sighting;

/// llamafile.
pub(super) struct Llamafile;

impl Kind for Llamafile {
    fn id(&self) -> &'static str {
        "llamafile"
    }

    fn name(&self) -> &'static str {
        "llamafile"
    }

    fn usual_ports(&self) -> &'static [u16] {
        &[8080]
    }

    fn recognise(&self, answers: &Answers) -> Verdict {
        let said = |it: &str| it.strip_prefix("llamafile/").map(str::to_owned);
        let version = answers.iter().find_map(|(_, it)| it.header("server").and_then(said));
        let list = match listing::known(answers, version.is_some(), "llamafile") {
            Ok(list) => list,
            Err(verdict) => return verdict,
        };
        let version = version.and_then(|it| fact::text(&it.into()));
        listing::proof(Sighting { version, ..Sighting::of(self.id()) }, list, |entry| {
            let mut model = listing::model(entry)?;
            model.loaded = Some(true);
            Some(model)
        })
    }

    fn wants_max_tokens(&self) -> bool {
        true
    }
}
