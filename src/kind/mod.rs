//! The table of kinds: one sort of server per file, as data plus one pure conversation.
//!
//! A kind says which ports it usually has, which questions prove it, what its
//! models are, and what its refusals mean. It never does I/O and knows of no
//! other kind. Recognition begins with what one `GET /` says; each further
//! question must be earned by an answer already seen; a proof is a fact of that
//! server (a path and a field), never a port. Adding a kind is one file, one
//! line in `KINDS`, one directory of recorded replies.

mod anthropic;
#[cfg(test)]
mod confusion;
mod conversation;
mod docker_model_runner;
mod doing;
mod exo;
mod fact;
mod gateway;
mod gemini;
mod gpt4all;
mod groq;
mod jan;
mod koboldcpp;
mod lemonade;
mod listing;
mod litellm;
mod llama_cpp;
mod llama_cpp_python;
mod llama_swap;
mod llamafile;
mod lm_studio;
mod localai;
mod lovable;
mod mistralrs;
mod mlx_lm;
mod ollama;
mod open_webui;
mod openai;
mod openai_like;
mod openrouter;
#[cfg(test)]
mod recorded;
mod said;
mod sglang;
mod sglang_router;
mod shimmy;
mod sold;
mod tabbyapi;
mod text_generation_webui;
mod tgi;
mod transformers;
#[cfg(test)]
mod trap;
mod vllm;

use std::{collections::BTreeSet, time::Duration};

use self::conversation::{Json, take_array};
pub use self::{
    conversation::{Answer, Answers, Question, Refusal, Verdict},
    sold::Provider,
};
use crate::{
    dialect::Door,
    fault::Cause,
    generate::Operation,
    server::{Doing, Endpoint, Sighting, Zone},
};

/// All kinds, most specific first: the order of recognition.
pub static KINDS: &[&dyn Kind] = &[
    &lovable::Lovable,
    &ollama::Ollama,
    &lm_studio::LmStudio,
    &llama_cpp::LlamaCpp,
    &vllm::Vllm,
    &sglang::Sglang,
    &sglang_router::SglangRouter,
    &localai::LocalAi,
    &koboldcpp::KoboldCpp,
    &llamafile::Llamafile,
    &docker_model_runner::DockerModelRunner,
    &lemonade::Lemonade,
    &llama_swap::LlamaSwap,
    &litellm::LiteLlm,
    &jan::Jan,
    &open_webui::OpenWebUi,
    &tabbyapi::TabbyApi,
    &text_generation_webui::TextGenerationWebUi,
    &tgi::Tgi,
    &mistralrs::MistralRs,
    &mlx_lm::MlxLm,
    &gpt4all::Gpt4All,
    &llama_cpp_python::LlamaCppPython,
    &transformers::Transformers,
    &exo::Exo,
    &shimmy::Shimmy,
    &openai_like::OpenAiLike,
    // Never recognised, only configured.
    &openai::OpenAi,
    &anthropic::Anthropic,
    &gemini::Gemini,
    &groq::Groq,
    &openrouter::OpenRouter,
];

/// The most questions in one conversation, whatever the answers are. Ollama's
/// three lists and a look at 32 models stay below it.
const MOST_QUESTIONS: usize = 48;

/// The most models, and names of one, that are kept of a server. Large
/// collections have hundreds; a list that is endless on purpose shall not fill
/// our memory and every snapshot.
const MOST_MODELS: usize = 4096;
const MOST_ALIASES: usize = 32;

/// The kind with this id.
pub fn by_id(id: &str) -> Option<&'static dyn Kind> {
    KINDS.iter().copied().find(|kind| kind.id() == id)
}

/// The ports that any kind uses by default, likeliest first.
pub fn usual_ports() -> Vec<u16> {
    let mut ports: Vec<u16> = Vec::new();
    let longest = KINDS.iter().map(|kind| kind.usual_ports().len()).max().unwrap_or_default();
    // Every kind's first guess is better than any kind's second.
    for rank in 0..longest {
        for port in KINDS.iter().filter_map(|kind| kind.usual_ports().get(rank)) {
            if !ports.contains(port) {
                ports.push(*port);
            }
        }
    }
    ports
}

/// Decides what the answers so far prove, or which question is next.
///
/// The first kind that says anything but no wins: one that waits knows its own
/// server, which must not pass for a lesser kind meanwhile. A kind that asks
/// what was already answered has nothing more to say.
pub fn recognise(answers: &Answers) -> Verdict {
    let root = Question::get("/");
    if answers.to(&root).is_none() {
        return Verdict::Ask(root);
    }
    for kind in KINDS {
        match kind.recognise(answers) {
            Verdict::Proof(sighting) => return Verdict::Proof(Box::new(tidy(*sighting, answers))),
            Verdict::Ask(question) if answers.to(&question).is_none() && answers.len() < MOST_QUESTIONS => {
                return Verdict::Ask(question);
            }
            Verdict::NotYet => return Verdict::NotYet,
            Verdict::Ask(_) | Verdict::No => {}
        }
    }
    Verdict::No
}

/// The same for what the configuration says is a server of this kind in the cloud: whoever
/// sells answers proves nothing, and is asked for no more than its list.
pub fn recognise_as(kind: &str, answers: &Answers) -> Verdict {
    let Some(kind) = by_id(kind) else { return Verdict::No };
    let question = kind.provider().map_or_else(
        || Question::get(listing::PATH),
        |it| Question { headers: it.headers, ..Question::get(it.list) },
    );
    match answers.to(&question) {
        None => Verdict::Ask(question),
        Some(answer) => match kind.listed(answer) {
            Verdict::Proof(sighting) => Verdict::Proof(Box::new(tidy(*sighting, answers))),
            verdict => verdict,
        },
    }
}

/// Who sells answers under this name, if anybody does.
pub fn provider(kind: &str) -> Option<&'static Provider> {
    by_id(kind)?.provider()
}

/// Whether it is the address of somebody who sells answers.
pub fn sells(endpoint: &Endpoint) -> bool {
    KINDS.iter().filter_map(|it| it.provider()).any(|it| endpoint.is_at(it.url))
}

/// Copies from an earlier conversation with the same endpoint what a kind would
/// ask again in vain, so that looking at an unchanged server costs a few GETs.
///
/// To be called after each answer, with the last conversation that ended in a proof.
pub fn recall(kind: &str, earlier: &Answers, now: &mut Answers) {
    if !by_id(kind).is_some_and(|kind| kind.still_holds(earlier, now)) {
        return;
    }
    for (question, answer) in earlier.iter().filter(|(it, _)| it.post.is_some()) {
        if now.to(question).is_none() {
            now.push(question.clone(), answer.clone());
        }
    }
}

/// The doors of a server of this kind for this operation, truest first. Whatever
/// it is, it was recognised by its OpenAI list at the least.
pub fn doors(kind: &str, operation: Operation) -> &'static [Door] {
    by_id(kind).map_or_else(|| openai_doors(operation), |kind| kind.doors(operation))
}

/// Where a door is at a server of this kind, below its base address.
pub fn path(kind: &str, door: Door) -> &'static str {
    by_id(kind).map_or(door.path(), |kind| kind.path(door))
}

/// The doors that everybody has.
fn openai_doors(operation: Operation) -> &'static [Door] {
    match operation {
        Operation::Chat => &[Door::OpenAiChat],
        Operation::Complete => &[Door::OpenAiComplete],
        Operation::Embed => &[Door::OpenAiEmbed],
    }
}

/// Says what a refusal of a server of this kind means.
pub fn classify(kind: &str, refusal: Refusal<'_>) -> Cause {
    by_id(kind).and_then(|kind| kind.classify(refusal)).unwrap_or_else(|| said::by_status(refusal))
}

/// Says what an error object means that came inside an answer with status 200.
pub fn classify_inside(kind: &str, body: &[u8]) -> Cause {
    let status = said::Said::of(body).status.unwrap_or(500);
    match classify(kind, Refusal { status, retry_after: None, body }) {
        Cause::Status => Cause::ErrorEvent,
        cause => cause,
    }
}

/// Puts a sighting in order: models by name, each once, none whose name could
/// not stand in a header or on a terminal.
fn tidy(mut sighting: Sighting, answers: &Answers) -> Sighting {
    let mut seen = BTreeSet::new();
    sighting.models.sort_by(|a, b| a.name.cmp(&b.name));
    sighting.models.retain(|model| fact::is_name(model.name.as_str()) && seen.insert(model.name.clone()));
    sighting.models.truncate(MOST_MODELS);
    for model in &mut sighting.models {
        let name = model.name.clone();
        model.aliases.retain(|alias| *alias != name && fact::is_name(alias.as_str()));
        model.aliases.sort();
        model.aliases.dedup();
        model.aliases.truncate(MOST_ALIASES);
    }
    sighting.engine_ports.sort_unstable();
    sighting.engine_ports.dedup();
    let own = by_id(sighting.kind.as_str()).map_or(&[][..], |it| it.own_headers());
    sighting.forwards |= answers.iter().any(|(_, it)| gateway::says(it, own));
    // A name may lead to several addresses; what counts is how far a request may have gone.
    sighting.at = answers.iter().filter_map(|(_, it)| it.at).max_by_key(|it| Zone::of(*it));
    sighting.simulated = answers.iter().any(|(_, it)| it.header("x-lovable-simulated") == Some("1"));
    sighting
}

/// A folder of models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Folder {
    /// Below the folder that this variable of the environment names.
    Variable(&'static str, &'static str),
    /// Below the person's home.
    Home(&'static str),
    /// Below the folder that is written in this file of the person's home.
    Pointer(&'static str, &'static str),
    /// There, whoever asks.
    System(&'static str),
}

/// How a server counts tokens for callers, where its `/v1/messages/count_tokens` is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tokenizer {
    /// `/tokenize` takes a conversation and says `count`.
    Conversation,
    /// `/apply-template` makes a text of a conversation, of which `/tokenize` lists the tokens.
    Text,
}

/// How a server goes on with an answer that another one began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// The text is the end of the prompt.
    Prompt,
    /// A last turn of the model is gone on with where two flags say so; a stream of it has
    /// only what is new.
    Flags,
    /// The same, and one flag may name the thinking as the part that is gone on with.
    Parts,
    /// A last turn of the model is gone on with; some say it again.
    LastTurn,
    /// The conversation is rendered by the server itself, and the text with the beginning
    /// behind it is continued as it is.
    Rendered,
    /// It can only be asked from the start.
    None,
}

/// How a server of this kind goes on with an answer that another one began.
pub fn continuation(kind: &str, operation: Operation) -> Continuation {
    match operation {
        Operation::Complete => Continuation::Prompt,
        Operation::Chat => by_id(kind).map_or(Continuation::None, |it| it.continuation()),
        Operation::Embed => Continuation::None,
    }
}

/// What a server of this kind is doing that says nothing to a request for this model, or what
/// to ask it on the side to find that out. `earlier` is what it answered when it was asked last.
pub fn pulse(kind: &str, model: &str, answers: &Answers, earlier: &Answers) -> Pulse {
    let kind = by_id(kind).unwrap_or(&openai_like::OpenAiLike);
    let pulse = kind.pulse(model, answers, earlier);
    match pulse {
        // Whoever asks the same again has nothing more to say.
        Pulse::Ask(question) if answers.to(&question).is_some() => Pulse::Is(Doing::Unknown),
        pulse => pulse,
    }
}

/// How long a request may be at a server of this kind without showing in what it says of
/// itself.
pub fn shows_after(kind: &str) -> Duration {
    by_id(kind).map_or(Duration::ZERO, |it| it.shows_after())
}

/// What is known of a silent server, or how to know more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pulse {
    /// One more question. A server that does not answer the first is dead; one that does not
    /// answer a later one does not say what it does.
    Ask(Question),
    /// That is what it does.
    Is(Doing),
}

/// One sort of server.
pub trait Kind: Sync {
    /// Its id in the contract: `ollama`.
    fn id(&self) -> &'static str;

    /// Its name for people: `Ollama`.
    fn name(&self) -> &'static str;

    /// The ports that it uses by default, likeliest first.
    fn usual_ports(&self) -> &'static [u16] {
        &[]
    }

    /// Where it keeps its models on the disk of this machine, so that it need not be asked all
    /// the time whether it has others.
    fn model_folders(&self) -> &'static [Folder] {
        &[]
    }

    /// What the answers so far prove, as far as this kind can tell.
    fn recognise(&self, _answers: &Answers) -> Verdict {
        Verdict::No
    }

    /// Who sells answers under this name. Such a kind is in the cloud wherever it is, and is
    /// never recognised: the configuration says who it is.
    fn provider(&self) -> Option<&'static Provider> {
        None
    }

    /// What its list of models says, where the configuration has said who it is.
    fn listed(&self, _answer: &Answer) -> Verdict {
        Verdict::No
    }

    /// Where a door is, below the base address.
    fn path(&self, door: Door) -> &'static str {
        door.path()
    }

    /// Whether what POSTs were answered in an earlier conversation with the same
    /// endpoint is still true, by the lists of both.
    fn still_holds(&self, _earlier: &Answers, _now: &Answers) -> bool {
        false
    }

    /// Where it is asked for this, truest first. A caller's own language is taken
    /// wherever it is in this list, so what is not to be trusted is left out of it.
    ///
    /// vLLM and llama.cpp have `/v1/responses` and `/v1/messages` too. They are left out:
    /// their answers have ids and fields missing that strict clients look for, their streams
    /// end in a stray `[DONE]` or break off in an envelope of another language (vLLM 0.32.0,
    /// llama.cpp b11549), and what is written here in their place has none of that.
    fn doors(&self, operation: Operation) -> &'static [Door] {
        openai_doors(operation)
    }

    /// What a refusal means; `None` leaves it to the status. Without words of its own it is read
    /// as most servers write.
    fn classify(&self, refusal: Refusal<'_>) -> Option<Cause> {
        said::in_common(refusal, &[])
    }

    /// Whether hanging up on a plain (not streamed) request frees its slot.
    fn plain_is_cancelled(&self) -> bool {
        false
    }

    /// Whether it reads a prompt to its end although the caller has left.
    fn reads_to_the_end(&self) -> bool {
        false
    }

    /// How it counts the tokens of a conversation without answering it, if it does.
    fn tokenizer(&self) -> Option<Tokenizer> {
        None
    }

    /// Whether it refuses a request whose answer alone may be longer than its context. Others
    /// end such an answer there.
    fn wants_room_for_the_answer(&self) -> bool {
        false
    }

    /// Whether a request can have the model loaded with another context.
    fn loads_context(&self) -> bool {
        false
    }

    /// What it is doing while it says nothing to a request for this model, by what it says on
    /// the side. Only GETs are asked that it answers at once whatever it is doing, and whose
    /// answers are true of what generates. `earlier` are those of the last time, seconds ago.
    fn pulse(&self, _model: &str, answers: &Answers, _earlier: &Answers) -> Pulse {
        doing::there(self.id(), answers, listing::PATH)
    }

    /// How long a request may be there before it shows in `pulse` that it is worked on.
    fn shows_after(&self) -> Duration {
        Duration::from_secs(2)
    }

    /// How it goes on with a conversation whose last turn another server began.
    fn continuation(&self) -> Continuation {
        Continuation::None
    }

    /// Whether it hands requests on as this daemon does, and so takes what a caller wishes in
    /// the same headers.
    fn hands_on(&self) -> bool {
        false
    }

    /// Whether it leaves calls of tools without their numbers, or gives all of them the same.
    fn misnumbers_calls(&self) -> bool {
        false
    }

    /// Whether it refuses a request whose `x-request-id` is no UUID, as ours are not.
    fn wants_uuids(&self) -> bool {
        false
    }

    /// Headers that it writes itself and only gateways write else.
    fn own_headers(&self) -> &'static [&'static str] {
        &[]
    }

    /// Whether it silently drops `max_completion_tokens` and wants `max_tokens`.
    fn wants_max_tokens(&self) -> bool {
        false
    }
}
