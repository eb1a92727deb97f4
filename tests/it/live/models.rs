//! Models that are fetched or thrown away.

use std::fs;

use lovable::simulate::Offer;

use super::*;
use crate::proof::{Table, times};

/// By the time that a person has typed its name.
const SOON: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_model_that_is_fetched_or_removed_is_known_within_a_second() {
    let mut table = Table::new(
        "a model on the disk, until it is in the registry",
        &["kind", "times", "median ms", "longest ms"],
    );
    let kinds = [
        (Shape::Ollama, ".ollama/models/manifests/registry.ollama.ai/library"),
        (Shape::LmStudio, ".lmstudio/models/someone"),
    ];
    for (shape, folder) in kinds {
        let server = Simulated::start(shape, Script::default()).await.unwrap();
        let daemon = with(&entry(&server, "name = \"a\"")).await;
        let folder = daemon.home().join(folder);
        let has = async |name: &str| {
            let models = shown(&daemon, "a").await.unwrap()["models"].clone();
            models.as_array().unwrap().iter().any(|it| it.as_str().unwrap_or_default().contains(name))
        };
        let mut took = Vec::new();
        for round in 0..times(3, 20) {
            let (name, place) = (format!("new-{round}"), folder.join(format!("new-{round}")));
            server.change(|it| it.models.push(Offer::named(&name)));
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("latest"), "{}").unwrap();
            took.push(until(&format!("{name} is there"), &daemon, async || has(&name).await).await);
            server.change(|it| drop(it.models.pop()));
            fs::remove_dir_all(&place).unwrap();
            took.push(until(&format!("{name} is gone"), &daemon, async || !has(&name).await).await);
        }
        took.sort();
        let (middle, longest) = (took[took.len() / 2], took[took.len() - 1]);
        let kind = if shape == Shape::Ollama { "ollama" } else { "lmstudio" };
        table.row(&[&kind, &took.len(), &middle.as_millis(), &longest.as_millis()]);
        assert!(longest < SOON, "{kind}: {took:?}\n{}", daemon.log());
    }
    table.show();
}
