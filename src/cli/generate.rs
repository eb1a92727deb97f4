//! `generate`: one answer, streamed to stdout.
//!
//! The text goes out as it comes and byte for byte, except that on a terminal
//! what would move the cursor is made harmless. When the answer breaks off,
//! what came stays, and stderr says so.

use std::{io::Read, path::PathBuf};

use clap_complete::engine::ArgValueCandidates;

use super::{Context, Exit, Trouble, complete, image, out::Ink, say, schema};
use crate::{
    client::Answer,
    wire::{Content, GenerateBody, Message, Part},
};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The model to ask; the daemon chooses when there is none
    #[arg(short, long, add = ArgValueCandidates::new(complete::models))]
    model: Option<String>,
    /// How the model is to behave
    #[arg(short, long)]
    system: Option<String>,
    /// The most tokens of the answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// How freely the model chooses its words
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<f64>,
    /// Wait for the whole answer
    #[arg(long)]
    no_stream: bool,
    /// Show the model this file, after the prompt
    #[arg(long = "file", value_name = "F")]
    files: Vec<PathBuf>,
    /// Show the model this image: PNG, JPEG, GIF or WebP
    #[arg(long = "image", value_name = "F")]
    images: Vec<PathBuf>,
    /// Answer in JSON after the JSON schema in this file
    #[arg(long, value_name = "F")]
    schema: Option<PathBuf>,
    /// The question; `-`, or nothing with a pipe, reads it from stdin
    #[arg(value_name = "PROMPT")]
    prompt: Vec<String>,
}

pub(super) fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("a number from 0 up, such as 0.7".to_owned()),
    }
}

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let response_format = args.schema.as_deref().map(schema::response_format).transpose()?;
    let images = args.images.iter().map(|it| image::part(it)).collect::<Result<Vec<_>, _>>()?;
    let prompt = question(args.prompt, &args.files, !images.is_empty()).await?;
    let mut body = GenerateBody {
        model: args.model,
        system: args.system,
        stream: !args.no_stream,
        max_tokens: args.max_tokens,
        temperature: args.temperature,
        response_format,
        ..GenerateBody::default()
    };
    if images.is_empty() {
        body.prompt = Some(prompt);
    } else {
        let text = (!prompt.is_empty()).then_some(Part::Text { text: prompt });
        let content = Content::Parts(text.into_iter().chain(images).collect());
        body.messages = Some(vec![Message { role: "user".to_owned(), content }]);
    }
    let mut answer = context.client.generate(&body).await?;
    let Ended { text, reason } = if context.json {
        print_json(&mut answer, context).await?
    } else {
        print(&mut answer, context).await?
    };
    note(&answer, context)?;
    if reason.as_deref() == Some("length") && body.max_tokens.is_none() {
        context.talk.line("lovablectl: the answer stops at the model's limit of tokens")?;
    }
    // Scripts hand it to a parser; they should not find out there.
    if body.response_format.is_some() && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_err() {
        return Err(Trouble::Failed("the answer is no JSON, though the server took the schema".to_owned()));
    }
    Ok(Exit::Fine)
}

/// What an answer came to.
#[derive(Default)]
struct Ended {
    text: String,
    reason: Option<String>,
}

/// The prompt with what stdin and the files add to it.
async fn question(words: Vec<String>, files: &[PathBuf], images: bool) -> Result<String, Trouble> {
    let piped = !std::io::IsTerminal::is_terminal(&std::io::stdin());
    // With a prompt, stdin is left alone: it may be a pipe that nobody ever closes.
    let reads =
        words.iter().any(|it| it == "-") || (words.is_empty() && files.is_empty() && !images && piped);
    let mut prompt = words.into_iter().filter(|it| it != "-").collect::<Vec<_>>().join(" ");
    if reads {
        let said = tokio::task::spawn_blocking(stdin)
            .await
            .map_err(|error| Trouble::Failed(error.to_string()))??;
        if !prompt.is_empty() {
            prompt.push_str("\n\n");
        }
        prompt.push_str(&said);
    }
    for path in files {
        let text = std::fs::read(path)
            .map_err(|error| Trouble::Usage(format!("cannot read {}: {error}", path.display())))?;
        let text = String::from_utf8(text)
            .map_err(|_| Trouble::Usage(format!("{} is not text in UTF-8", path.display())))?;
        attach(&mut prompt, &path.display().to_string(), &text);
    }
    if prompt.trim().is_empty() && !images {
        return Err(Trouble::Usage(
            "there is nothing to ask: give a PROMPT, a --file, an --image, or pipe text in".to_owned(),
        ));
    }
    Ok(prompt)
}

fn stdin() -> Result<String, Trouble> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .lock()
        .read_to_end(&mut bytes)
        .map_err(|error| Trouble::Failed(format!("cannot read stdin: {error}")))?;
    String::from_utf8(bytes).map_err(|_| Trouble::Usage("stdin is not text in UTF-8".to_owned()))
}

/// Adds a file as a fenced block. The fence is longer than any in the file.
fn attach(prompt: &mut String, name: &str, text: &str) {
    let longest = text.split(|it| it != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat((longest + 1).max(3));
    if !prompt.is_empty() {
        prompt.push_str("\n\n");
    }
    let end = if text.ends_with('\n') || text.is_empty() { "" } else { "\n" };
    prompt.push_str(&format!("File `{name}`:\n{fence}\n{text}{end}{fence}"));
}

/// Prints the text as it comes.
async fn print(answer: &mut Answer, context: &mut Context) -> Result<Ended, Trouble> {
    let mut ended = Ended::default();
    let mut ends_line = true;
    let mut thinking = false;
    while let Some(piece) = answer.stream.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            Err(error) => {
                forget_thinking(&mut thinking, context)?;
                if !ends_line && context.out.terminal {
                    context.out.text("\n")?;
                }
                return Err(error.into());
            }
        };
        if !piece.thought.is_empty() && !thinking && ends_line && context.talk.terminal {
            thinking = true;
            let word = context.talk.look.paint(Ink::Dim, "thinking…");
            context.talk.text(&word)?;
        }
        if !piece.text.is_empty() {
            forget_thinking(&mut thinking, context)?;
            if context.out.terminal {
                context.out.text(&say::clean_lines(&piece.text))?;
            } else {
                context.out.text(&piece.text)?;
            }
            ends_line = piece.text.ends_with('\n');
            ended.text.push_str(&piece.text);
        }
        ended.reason = piece.reason.or(ended.reason);
    }
    forget_thinking(&mut thinking, context)?;
    if !ends_line && context.out.terminal {
        context.out.text("\n")?;
    }
    Ok(ended)
}

/// Takes the word back that stood where the answer goes.
fn forget_thinking(thinking: &mut bool, context: &mut Context) -> Result<(), Trouble> {
    if std::mem::take(thinking) { context.talk.text("\r\x1b[K") } else { Ok(()) }
}

async fn print_json(answer: &mut Answer, context: &mut Context) -> Result<Ended, Trouble> {
    let mut ended = Ended::default();
    while let Some(piece) = answer.stream.next().await {
        let piece = piece?;
        context.out.json_line(&piece.raw)?;
        ended.text.push_str(&piece.text);
        ended.reason = piece.reason.or(ended.reason);
    }
    Ok(ended)
}

/// Says when another model answered than the one that was asked for.
fn note(answer: &Answer, context: &mut Context) -> Result<(), Trouble> {
    let by = &answer.by;
    let how = match by.substituted.as_deref() {
        None | Some("no") => return Ok(()),
        Some("equivalent") => "the same model under another name",
        Some("cloud") => "a model in the cloud",
        Some(_) => "another model than the one asked for",
    };
    let model = say::or_dash(by.model.as_ref());
    let server = say::or_dash(by.server.as_ref());
    context.talk.line(format!("lovablectl: answered by {model} on {server}, {how}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_fenced_longer_than_any_fence_in_it() {
        let mut prompt = "Explain".to_owned();
        attach(&mut prompt, "a.md", "x\n````\ny");
        assert_eq!(prompt, "Explain\n\nFile `a.md`:\n`````\nx\n````\ny\n`````");
    }

    #[test]
    fn a_file_alone_is_a_question() {
        let mut prompt = String::new();
        attach(&mut prompt, "a.rs", "fn a() {}\n");
        assert_eq!(prompt, "File `a.rs`:\n```\nfn a() {}\n```");
    }

    #[test]
    fn a_temperature_is_a_number_from_zero_up() {
        assert_eq!(temperature("0.7"), Ok(0.7));
        for wrong in ["-1", "NaN", "inf", "warm"] {
            assert!(temperature(wrong).is_err(), "{wrong}");
        }
    }
}
