//! `chat`: a conversation in the terminal.
//!
//! The loop reads a text, obeys or asks, and shows what comes. Ctrl-C belongs to the
//! answer that is running: it is dropped, and with it the request. What went wrong is
//! said and the conversation goes on. Answers are data; all else is talk.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use clap_complete::engine::ArgValueCandidates;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::{
    answer::Came,
    command::{COMMANDS, Command, Said},
    conversation::Conversation,
    gather::Gather,
    line::{Line, Lines},
    model::{list, names},
    save::Form,
};
use super::{Context, Exit, Trouble, complete, explain, generate::temperature, out::Ink, say};
use crate::wire::{GenerateBody, StreamOptions};

mod answer;
mod command;
mod conversation;
mod gather;
mod line;
mod model;
mod save;

#[derive(Debug, clap::Args)]
#[command(after_help = "\
Lines that begin with / are commands; /help lists them. A line of text that begins so is written with two. \
A \\ at the end of a line goes on on the next; a text of many lines stands between \"\"\" and \"\"\", or is \
pasted. Ctrl-C stops the answer, Ctrl-D leaves. Nothing that is said is stored, unless you /save it.

When stdin is a pipe, each line of it is a turn, with the same rules, and the exit code is that of the first \
answer that failed. Answers go to stdout, all else to stderr.")]
pub(super) struct Args {
    /// The model to ask; the daemon chooses when there is none
    #[arg(short, long, add = ArgValueCandidates::new(complete::models))]
    model: Option<String>,
    /// How the model is to behave
    #[arg(short, long)]
    system: Option<String>,
    /// The most tokens of each answer
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max_tokens: Option<u64>,
    /// How freely the model chooses its words
    #[arg(long, value_name = "T", value_parser = temperature)]
    temperature: Option<f64>,
}

/// A conversation that is going on.
struct Chat<'a> {
    context: &'a mut Context,
    conversation: Conversation,
    max_tokens: Option<u64>,
    temperature: Option<f64>,
    /// Names that are completed.
    models: Arc<Mutex<Vec<String>>>,
    interrupts: Signal,
    /// Of the first answer that failed.
    failed: Option<Exit>,
}

/// Whether the conversation goes on.
enum Next {
    On,
    Leave,
}

const PROMPT: &str = "> ";
const MORE: &str = ". ";

pub(super) async fn run(args: Args, context: &mut Context) -> Result<Exit, Trouble> {
    let models = Arc::new(Mutex::new(names(&context.client.models().await?.read()?.models)));
    let lines = Lines::of_stdin(models.clone(), context.talk.look)?;
    let caught = |error: io::Error| Trouble::Failed(format!("cannot catch signals: {error}"));
    let interrupts = signal(SignalKind::interrupt()).map_err(caught)?;
    let mut ends = signal(SignalKind::terminate()).map_err(caught)?;
    let mut hangs_up = signal(SignalKind::hangup()).map_err(caught)?;
    // The editor changes how the terminal works; whoever ends us meanwhile shall not leave it so.
    let terminal = rustix::termios::tcgetattr(io::stdin()).ok();

    let conversation = Conversation::new(args.model, args.system);
    let (max_tokens, temperature) = (args.max_tokens, args.temperature);
    let mut chat = Chat { context, conversation, max_tokens, temperature, models, interrupts, failed: None };
    let ended = tokio::select! {
        ended = chat.go(lines) => return ended,
        _ = ends.recv() => Exit::Program(128 + 15),
        _ = hangs_up.recv() => Exit::Program(128 + 1),
    };
    if let Some(terminal) = terminal {
        let _ = rustix::termios::tcsetattr(io::stdin(), rustix::termios::OptionalActions::Now, &terminal);
        chat.context.talk.text("\x1b[?2004l\n")?;
    }
    Ok(ended)
}

impl Chat<'_> {
    async fn go(&mut self, mut lines: Lines) -> Result<Exit, Trouble> {
        let typed = lines.are_typed();
        if typed {
            self.greet()?;
        }
        let mut gather = Gather::default();
        loop {
            let reading = lines.next(if gather.is_open() { MORE } else { PROMPT });
            let line;
            (lines, line) = if typed {
                reading.await?
            } else {
                tokio::select! {
                    read = reading => read?,
                    _ = self.interrupts.recv() => return Ok(Exit::Interrupted),
                }
            };
            let text = match line {
                Line::Text(line) => gather.add(&line),
                Line::Interrupted => {
                    gather.forget();
                    self.dim("Ctrl-D or /quit leaves")?;
                    continue;
                }
                Line::End => match gather.end() {
                    // A pipe may end without a last mark; a person who ends in the middle leaves.
                    Some(text) if !typed => Some(text),
                    _ => break,
                },
            };
            let Some(text) = text else { continue };
            if !text.trim().is_empty() {
                lines.remember(&text);
            }
            match Said::parse(&text) {
                Said::Nothing => {}
                Said::Text(text) => self.ask(text).await?,
                Said::Unknown(word) => {
                    let word = say::clean(&word);
                    self.tell(&format!(
                        "there is no {word}; /help lists what there is, and /{word} says it to the model"
                    ))?;
                }
                Said::Command(Command::Save(file)) => lines = self.save(file, lines).await?,
                Said::Command(command) => match self.obey(command).await? {
                    Next::On => {}
                    Next::Leave => break,
                },
            }
        }
        Ok(if typed { Exit::Fine } else { self.failed.unwrap_or(Exit::Fine) })
    }

    fn greet(&mut self) -> Result<(), Trouble> {
        let model = match &self.conversation.model {
            Some(model) => say::clean(model),
            None => "the model that lovabled finds best".to_owned(),
        };
        self.dim(&format!("Talking to {model}. /help lists the commands, Ctrl-D leaves."))
    }

    /// Asks, shows the answer, and keeps it.
    async fn ask(&mut self, question: String) -> Result<(), Trouble> {
        let body = GenerateBody {
            messages: Some(self.conversation.with(&question)),
            model: self.conversation.model.clone(),
            stream: true,
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            stream_options: Some(StreamOptions { include_usage: true }),
            ..GenerateBody::default()
        };
        self.forget_interrupts();
        let mut came = Came::default();
        let client = self.context.client.clone();
        let shown = tokio::select! {
            // Dropped on the way, the request is over for the daemon and for the server.
            shown = async {
                let answer = client.generate(&body).await?;
                came.show(answer, self.context).await
            } => Some(shown),
            _ = self.interrupts.recv() => None,
        };
        let whole = match shown {
            Some(Ok(())) => came.broken.take().map_or(Ok(()), |it| Err(it.into())),
            // Nobody takes what we say: that is the end of the conversation.
            Some(Err(Trouble::Output(error))) => return Err(Trouble::Output(error)),
            Some(Err(trouble)) => Err(trouble),
            None => {
                came.end_line(self.context)?;
                self.dim("stopped")?;
                self.conversation.add(question, came.text, came.model);
                return Ok(());
            }
        };
        match whole {
            Ok(()) => came.note(self.context).await?,
            Err(trouble) => {
                explain(&trouble, self.context).await;
                self.failed.get_or_insert(trouble.exit());
            }
        }
        self.conversation.add(question, came.text, came.model);
        Ok(())
    }

    /// A key that came too late for the last answer is not meant for the next one.
    fn forget_interrupts(&mut self) {
        let mut no_waker = std::task::Context::from_waker(std::task::Waker::noop());
        while self.interrupts.poll_recv(&mut no_waker).is_ready() {}
    }

    async fn obey(&mut self, command: Command) -> Result<Next, Trouble> {
        match command {
            Command::Help => self.help()?,
            Command::Quit => return Ok(Next::Leave),
            Command::Clear => {
                self.conversation.clear();
                self.dim("the conversation is forgotten")?;
            }
            Command::Retry => match self.conversation.retry() {
                Some(question) => self.ask(question).await?,
                None => self.tell("nothing was asked yet")?,
            },
            Command::Model(name) => self.model(name).await?,
            Command::System(None) => match &self.conversation.system {
                Some(system) => self.context.talk.line(say::clean_lines(system))?,
                None => self.dim("the model is told nothing")?,
            },
            Command::System(Some(text)) => {
                self.conversation.system = (text != "-").then_some(text);
                let told = self.conversation.system.is_some();
                self.dim(if told {
                    "the model is told so from now on"
                } else {
                    "the model is told nothing"
                })?;
            }
            // Needs the lines, to ask before it writes over something.
            Command::Save(_) => {}
        }
        Ok(Next::On)
    }

    fn help(&mut self) -> Result<(), Trouble> {
        let mut text = String::new();
        for (name, takes, what) in COMMANDS {
            text.push_str(&format!("{:<18} {what}\n", format!("{name} {takes}")));
        }
        text.push_str(
            "A \\ at the end of a line goes on on the next; a text of many lines stands between \"\"\" and \"\"\".\n\
             Ctrl-C stops the answer. Tab completes commands and models.\n",
        );
        self.context.talk.text(&text)
    }

    async fn model(&mut self, name: Option<String>) -> Result<(), Trouble> {
        let models = self.context.client.models().await.and_then(|it| it.read());
        let models = match models {
            Ok(list) => list.models,
            Err(error) => {
                explain(&error.into(), self.context).await;
                return Ok(());
            }
        };
        let names = names(&models);
        let known = |name: &String| name == "auto" || names.contains(name);
        let known = name.as_ref().is_none_or(known);
        // Servers come and go.
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = names;
        let Some(name) = name else {
            return self.context.talk.text(&list(&models, self.conversation.model.as_deref()));
        };
        let shown = say::clean(&name);
        self.conversation.model = (name != "auto").then_some(name);
        if known {
            self.dim(&format!("asking {shown} from now on"))
        } else {
            self.tell(&format!("asking {shown} from now on, though no server lists it"))
        }
    }

    /// Writes the conversation; asks before it writes over something.
    async fn save(&mut self, file: Option<PathBuf>, lines: Lines) -> Result<Lines, Trouble> {
        let Some(file) = file else {
            self.tell("name a file: /save FILE.md or /save FILE.json")?;
            return Ok(lines);
        };
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let path = save::expand(file, home.as_deref());
        let shown = say::clean(&path.display().to_string());
        let Some(form) = Form::of(&path) else {
            self.tell(&format!("{shown} must end with .md or .json"))?;
            return Ok(lines);
        };
        if self.conversation.is_empty() {
            self.tell("nothing was said yet")?;
            return Ok(lines);
        }
        let text = form.of_conversation(&self.conversation);
        match save::write_new(&path, &text) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                if !lines.are_typed() {
                    self.tell(&format!("{shown} is there already; it stays as it is"))?;
                    return Ok(lines);
                }
                self.context.talk.line(format!("{shown} is there already. Write over it?"))?;
                let (lines, answer) = lines.next("y or n> ").await?;
                if matches!(answer, Line::Text(it) if matches!(it.trim(), "y" | "Y" | "yes")) {
                    self.saved(save::write_over(&path, &text), &path)?;
                } else {
                    self.dim("it stays as it is")?;
                }
                Ok(lines)
            }
            written => {
                self.saved(written, &path)?;
                Ok(lines)
            }
        }
    }

    fn saved(&mut self, written: io::Result<()>, path: &Path) -> Result<(), Trouble> {
        let shown = say::clean(&path.display().to_string());
        match written {
            Ok(()) => self.dim(&format!("the conversation is in {shown}")),
            Err(error) => self.tell(&format!("cannot write {shown}: {error}")),
        }
    }

    fn dim(&mut self, text: &str) -> Result<(), Trouble> {
        let text = self.context.talk.look.paint(Ink::Dim, text);
        self.context.talk.line(text)
    }

    fn tell(&mut self, text: &str) -> Result<(), Trouble> {
        let name = self.context.talk.look.paint(Ink::Warn, "lovablectl:");
        self.context.talk.line(format!("{name} {text}"))
    }
}
