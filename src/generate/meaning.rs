//! What a request means, whatever language it came in.
//!
//! A dialect that faces the caller understands a body into this; a dialect that
//! faces a server asks for it in its own words. What nobody here has a name for
//! is kept in `extras`, so that it can be refused by its name and is never lost
//! in silence.

use serde_json::Value;

/// What is asked, in full.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// Answer a conversation.
    Chat(Chat),
    /// Continue a text, or fill its middle.
    Complete(Complete),
    /// Turn texts into vectors.
    Embed(Embed),
}

/// Fields without a name here, as the caller wrote them: the path in its own words
/// (`options.mirostat`), and the value.
pub type Extras = Vec<(String, Value)>;

/// A conversation to be answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Chat {
    /// The turns so far, in order; instructions are turns of `Role::System`.
    pub turns: Vec<Turn>,
    /// The tools that may be called.
    pub tools: Vec<Tool>,
    /// Whether they must be.
    pub tool_choice: ToolChoice,
    /// Whether several may be called in one turn; `None` is as the server likes.
    pub parallel_calls: Option<bool>,
    /// The form of the answer.
    pub format: Format,
    /// How much to think; `None` is as the model likes.
    pub effort: Option<Effort>,
    /// How tokens are picked, and how many.
    pub sampling: Sampling,
    /// Log probabilities wanted, with that many alternatives for each token.
    pub logprobs: Option<u32>,
    /// How many answers; `None` is one.
    pub choices: Option<u64>,
    /// How long the model stays in memory, as Ollama has it: seconds or a duration.
    pub keep_alive: Option<Value>,
    /// How large a context to load, in tokens.
    pub context: Option<u64>,
    /// What has no name here.
    pub extras: Extras,
}

/// A text to be continued.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Complete {
    /// What stands before.
    pub prompt: String,
    /// What stands after: fill in the middle.
    pub suffix: Option<String>,
    /// Whether the prompt is repeated before the answer.
    pub echo: bool,
    /// The form of the answer.
    pub format: Format,
    /// How tokens are picked, and how many.
    pub sampling: Sampling,
    /// Log probabilities wanted, with that many alternatives for each token.
    pub logprobs: Option<u32>,
    /// How many answers; `None` is one.
    pub choices: Option<u64>,
    /// How long the model stays in memory, as Ollama has it: seconds or a duration.
    pub keep_alive: Option<Value>,
    /// How large a context to load, in tokens.
    pub context: Option<u64>,
    /// What has no name here.
    pub extras: Extras,
}

/// Texts to be turned into vectors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Embed {
    /// The texts, in order.
    pub inputs: Vec<String>,
    /// How long the vectors shall be.
    pub dimensions: Option<u64>,
    /// Whether the caller allows that a long text is cut; `None` if it did not say.
    pub truncate: Option<bool>,
    /// How long the model stays in memory, as Ollama has it: seconds or a duration.
    pub keep_alive: Option<Value>,
    /// How large a context to load, in tokens.
    pub context: Option<u64>,
    /// What has no name here.
    pub extras: Extras,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Instructions, wherever in the conversation they stand.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// Tools: all parts are `Part::Result`.
    Tool,
}

/// One turn of a conversation.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Who speaks.
    pub role: Role,
    /// The speaker's own name, if it has one.
    pub name: Option<String>,
    /// What is said, in order.
    pub parts: Vec<Part>,
}

impl Turn {
    /// A turn of one text.
    pub fn text(role: Role, text: impl Into<String>) -> Self {
        Self { role, name: None, parts: vec![Part::Text(text.into())] }
    }
}

/// A piece of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text.
    Text(String),
    /// An image, in a user's turn or a tool's result.
    Image(Image),
    /// What the model thought, with the proof that some servers want back.
    Thinking {
        /// The thought; empty where only the proof is known.
        text: String,
        /// Opaque, of one server.
        signature: Option<String>,
    },
    /// The model calls a tool.
    Call(Call),
    /// What the tool gave.
    Result(ToolResult),
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it is.
    pub source: ImageSource,
    /// How closely to look: OpenAI's `detail`.
    pub detail: Option<String>,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageSource {
    /// Here.
    Data {
        /// `image/png`.
        media_type: String,
        /// The bytes in base64, without prefix.
        base64: String,
    },
    /// Elsewhere; the server would have to fetch it.
    Url(String),
}

/// A call of a tool in the conversation so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// Its id; made up by the dialect where the caller gave none, the same in call and result.
    pub id: String,
    /// The tool.
    pub name: String,
    /// A JSON object as text.
    pub arguments: String,
}

/// What a tool gave.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    /// The id of the call.
    pub id: String,
    /// The tool, where it is known (a dialect that understands looks it up in the calls before).
    pub name: Option<String>,
    /// Texts and images.
    pub parts: Vec<Part>,
    /// Whether it failed.
    pub is_error: bool,
}

/// A tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: Option<String>,
    /// A JSON schema.
    pub parameters: Option<Value>,
    /// Whether arguments must fit the schema.
    pub strict: Option<bool>,
}

/// Whether tools are called.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None may be.
    None,
    /// At least one must be.
    Required,
    /// This one must be.
    Named(String),
}

/// The form of an answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Format {
    /// Any.
    #[default]
    Text,
    /// A JSON object.
    Json,
    /// JSON after a schema.
    Schema {
        /// Its name.
        name: Option<String>,
        /// The JSON schema.
        schema: Value,
        /// Whether the answer must fit exactly.
        strict: Option<bool>,
    },
}

/// How much a model thinks before it answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Not at all.
    Off,
    /// As much as it likes, but it does.
    On,
    /// A level in words: `minimal`, `low`, `medium`, `high`, `xhigh`.
    Level(String),
    /// At most that many tokens.
    Budget(u64),
}

/// How tokens are picked, and how many. `None` is as the server likes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sampling {
    /// The most tokens of the answer.
    pub max_tokens: Option<u64>,
    /// 0 is greedy.
    pub temperature: Option<f64>,
    /// Only the likeliest tokens that together have this probability.
    pub top_p: Option<f64>,
    /// Only that many of the likeliest tokens.
    pub top_k: Option<i64>,
    /// Only tokens that are this likely in proportion to the likeliest.
    pub min_p: Option<f64>,
    /// The seed of chance.
    pub seed: Option<i64>,
    /// Texts that end the answer, and are not in it.
    pub stop: Vec<String>,
    /// OpenAI's, -2 to 2.
    pub frequency_penalty: Option<f64>,
    /// OpenAI's, -2 to 2.
    pub presence_penalty: Option<f64>,
    /// Ollama's and llama.cpp's, 1 is none.
    pub repeat_penalty: Option<f64>,
    /// OpenAI's: by token id.
    pub logit_bias: Option<Value>,
}
