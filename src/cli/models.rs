//! `models`: models across all servers, or one in full.

use super::{
    Context, Exit, Trouble, hint, now_ms,
    out::{Ink, Look},
    say,
    table::{Cell, Column, table},
};
use crate::wire::{ModelList, ModelOnServer, ModelView};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show this model in full
    name: Option<String>,
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    if let Some(name) = args.name {
        let reply = context.client.model(&name).await?;
        context.show(&reply, |model, look| full(model, look, now_ms()))?;
        return Ok(Exit::Fine);
    }
    let reply = context.client.models().await?;
    if !context.json && reply.read()?.models.is_empty() {
        context.talk.line("No server offers a model now; `lovablectl servers` shows the servers.")?;
        if context.servers_known().await == Some(0) {
            context.talk.text(&hint::no_server())?;
        }
        return Ok(Exit::Fine);
    }
    context.show(&reply, |ModelList { models }, look| list(models, look))?;
    Ok(Exit::Fine)
}

const LIST: [Column; 7] = [
    Column::new("NAME").shrinks(12),
    Column::new("SIZE").right().leaves(3),
    Column::new("PARAMETERS").right().leaves(4),
    Column::new("QUANT").leaves(6),
    Column::new("CONTEXT").right().leaves(2),
    Column::new("CAN").shrinks(8).leaves(5),
    Column::new("ON").shrinks(10).leaves(1),
];

fn list(models: &[ModelView], look: Look) -> String {
    let rows: Vec<_> = models
        .iter()
        .map(|it| {
            let size = it.servers.iter().find_map(|on| on.size_bytes);
            let on: Vec<_> = it.servers.iter().map(place).collect();
            vec![
                Cell::from(say::clean(it.name.as_str())),
                say::or_dash(size.map(say::bytes)).into(),
                say::or_dash(it.parameters.as_ref()).into(),
                say::or_dash(it.quantization.as_ref()).into(),
                say::or_dash(it.context_length.map(say::count)).into(),
                can(it).into(),
                on.join(", ").into(),
            ]
        })
        .collect();
    table(&LIST, &rows, look)
}

/// A server of a model, and whether the model is warm there.
fn place(on: &ModelOnServer) -> String {
    let loaded = if on.loaded == Some(true) { " (loaded)" } else { "" };
    format!("{}{loaded}", say::clean(on.id.as_str()))
}

fn can(model: &ModelView) -> String {
    let words: Vec<_> = model.capabilities.iter().map(say::word).collect();
    if words.is_empty() { say::UNKNOWN.to_owned() } else { words.join(" ") }
}

const PLACES: [Column; 7] = [
    Column::new("SERVER").shrinks(8),
    Column::new("KIND").leaves(3).shrinks(6),
    Column::new("ZONE").leaves(2),
    Column::new("LOADED"),
    Column::new("SIZE").right().leaves(1),
    Column::new("MEMORY").right().leaves(4),
    Column::new("UNLOADS").leaves(5),
];

fn full(model: &ModelView, look: Look, now_ms: u64) -> String {
    let mut page = format!("{}\n", look.paint(Ink::Bold, &say::clean(model.name.as_str())));
    let mut line = |title: &str, text: String| {
        page.push_str(&format!("{} {text}\n", look.paint(Ink::Dim, &format!("{title:<15}"))));
    };
    if !model.aliases.is_empty() {
        line("also called", say::clean(&model.aliases.join(", ")));
    }
    line("family", say::or_dash(model.family.as_ref()));
    line("parameters", say::or_dash(model.parameters.as_ref()));
    line("quantization", say::or_dash(model.quantization.as_ref()));
    line("context", tokens(model.context_length));
    line("loaded context", tokens(model.loaded_context_length));
    line("can", can(model));
    page.push('\n');
    let rows: Vec<_> = model
        .servers
        .iter()
        .map(|it| {
            vec![
                Cell::from(say::clean(it.id.as_str())),
                say::clean(it.kind.as_str()).into(),
                say::word(&it.zone).into(),
                match it.loaded {
                    Some(true) => Cell::inked("yes", Ink::Good),
                    Some(false) => "no".into(),
                    None => say::UNKNOWN.into(),
                },
                say::or_dash(it.size_bytes.map(say::bytes)).into(),
                say::or_dash(it.memory_bytes.map(say::bytes)).into(),
                say::or_dash(it.expires.as_deref().map(|moment| until(moment, now_ms))).into(),
            ]
        })
        .collect();
    page.push_str(&table(&PLACES, &rows, look));
    page
}

fn tokens(number: Option<u64>) -> String {
    say::or_dash(number.map(|it| say::plural(it, "token")))
}

fn until(moment: &str, now_ms: u64) -> String {
    match crate::wire::from_rfc3339(moment) {
        Some(then) => format!("in {}", say::seconds(then.saturating_sub(now_ms) / 1000)),
        None => say::clean(moment),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample, *};

    #[test]
    fn the_list_fits_60_and_120_cells() {
        for width in [60, 120] {
            let page = list(&sample::models(), Look { width: Some(width), color: false });
            insta::assert_snapshot!(format!("models_{width}"), page);
        }
    }

    #[test]
    fn one_model_is_shown_in_full() {
        for width in [60, 120] {
            let page = full(&sample::models()[1], Look { width: Some(width), color: false }, sample::NOW_MS);
            insta::assert_snapshot!(format!("model_{width}"), page);
        }
    }
}
