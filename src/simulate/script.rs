//! What a simulated server is to do: its models, its pace, its faults.

use std::{collections::BTreeMap, fmt, time::Duration};

/// What a server offers and how it behaves. It can be changed while it runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Script {
    /// The models that it lists.
    pub models: Vec<Offer>,
    /// How many words an answer has when the request does not limit it further.
    pub words: usize,
    /// What it says instead of numbered words; `words` does not matter then.
    pub sentence: Option<String>,
    /// How many words it thinks before it answers, when thinking is asked for.
    pub thoughts: usize,
    /// Whether every tool that is offered is called. Else those are whose names the last turn
    /// mentions, and the one that the request demands.
    pub calls: bool,
    /// Whether each word is the time at which it was written, in nanoseconds since 1970,
    /// instead of a number: for measuring delays on one machine.
    pub stamps: bool,
    /// Time before the first word (reading the prompt).
    pub before: Duration,
    /// How long the first request for a model that is not in memory has it loaded.
    pub load: Duration,
    /// Time between two words.
    pub between: Duration,
    /// How many events leave in one write; 1 is how real servers do it.
    pub burst: usize,
    /// How many requests it works on at once; the others wait without a head. 0 is no limit.
    pub slots: u32,
    /// Whether it says that it is busy instead of letting others wait.
    pub turns_away: bool,
    /// The key it wants, if any.
    pub key: Option<String>,
    /// Whether it is still loading its model.
    pub loading: bool,
    /// Whether it takes connections and answers nothing, as a process that is stopped; answers
    /// that have begun come to their end.
    pub frozen: bool,
    /// Faults, and when they come.
    pub plan: Plan,
    /// After how many words a fault inside an answer comes; 0 is before the first content.
    pub after: usize,
    /// Pause between two bytes of `Fault::SlowBytes`.
    pub slow: Duration,
    /// Where `Fault::Redirect` points to.
    pub elsewhere: String,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            models: vec![Offer::named("sim")],
            words: 8,
            sentence: None,
            thoughts: 2,
            calls: false,
            stamps: false,
            before: Duration::ZERO,
            load: Duration::ZERO,
            between: Duration::ZERO,
            burst: 1,
            slots: 0,
            turns_away: false,
            key: None,
            loading: false,
            frozen: false,
            plan: Plan::Never,
            after: 3,
            slow: Duration::from_millis(50),
            elsewhere: "http://127.0.0.1:9/elsewhere".to_owned(),
        }
    }
}

/// A model as a simulated server lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name. An Ollama shape adds `:latest` to a name without a tag.
    pub name: String,
    /// Family.
    pub family: String,
    /// Parameter count.
    pub parameters: String,
    /// Quantisation.
    pub quantization: String,
    /// Context in tokens; a token is four bytes of the request's body.
    pub context: u64,
    /// Whether it is in memory.
    pub loaded: bool,
    /// Whether it makes vectors instead of text.
    pub embeds: bool,
    /// Whether it takes tools.
    pub tools: bool,
    /// Whether it looks at images.
    pub sees: bool,
    /// Whether it can think.
    pub thinks: bool,
    /// Whether it fills the middle of a text.
    pub fills: bool,
}

impl Offer {
    /// A small loaded chat model that can do everything but make vectors.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            family: "sim".to_owned(),
            parameters: "1.0B".to_owned(),
            quantization: "Q4_K_M".to_owned(),
            context: 1 << 20,
            loaded: true,
            embeds: false,
            tools: true,
            sees: true,
            thinks: true,
            fills: true,
        }
    }
}

/// Which generation requests go wrong, counted from 1 since the start.
#[derive(Clone, Debug, PartialEq)]
pub enum Plan {
    /// None.
    Never,
    /// All.
    Always(Fault),
    /// The ones named here.
    At(BTreeMap<u64, Fault>),
    /// One after the other from this list, and again from its start.
    InTurn(Vec<Fault>),
    /// Some, chosen by a seed: the same numbers every time.
    Sometimes {
        /// What happens.
        fault: Fault,
        /// How often, 0 to 1.
        probability: f64,
        /// Which ones.
        seed: u64,
    },
}

impl Plan {
    /// What goes wrong with request `number`.
    pub fn fault(&self, number: u64) -> Option<Fault> {
        match self {
            Self::Never => None,
            Self::Always(fault) => Some(*fault),
            Self::At(chosen) => chosen.get(&number).copied(),
            Self::InTurn(faults) if faults.is_empty() => None,
            Self::InTurn(faults) => Some(faults[((number - 1) % faults.len() as u64) as usize]),
            Self::Sometimes { fault, probability, seed } => {
                let luck = scatter(seed ^ scatter(number)) as f64 / u64::MAX as f64;
                (luck < *probability).then_some(*fault)
            }
        }
    }
}

/// SplitMix64: neighbouring numbers become unrelated ones.
fn scatter(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// When a fault strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strikes {
    /// Instead of a response head, or as one that is no success.
    Head,
    /// Inside a 200, after [`Script::after`] words.
    Body,
    /// Nowhere: the answer is right, but comes in an odd way.
    Never,
}

macro_rules! faults {
    ($($(#[$doc:meta])* $name:ident = $word:literal, $strikes:ident;)*) => {
        /// Something that goes wrong with one request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $name,)*
        }

        impl Fault {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// Its name in tables: `die-mid-frame`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// When it strikes.
            pub fn strikes(self) -> Strikes {
                match self {
                    $(Self::$name => Strikes::$strikes,)*
                }
            }
        }
    };
}

faults! {
    /// The listener is closed. As the fault of single requests it is a reset.
    Refuse = "refuse", Head;
    /// The connection is reset once the request has been read.
    Reset = "reset", Head;
    /// The connection is closed once the request has been read.
    CloseBeforeHead = "close-before-head", Head;
    /// Not a byte comes.
    StallBeforeHead = "stall-before-head", Head;
    /// 400, quoting the prompt.
    BadRequest = "400", Head;
    /// 401.
    Unauthorized = "401", Head;
    /// 403 with an empty body.
    Forbidden = "403", Head;
    /// 404, the model is not there.
    ModelNotFound = "404-model", Head;
    /// 413.
    TooLarge = "413", Head;
    /// 422, quoting the prompt.
    Unprocessable = "422", Head;
    /// 429 without a hint.
    TooMany = "429", Head;
    /// 429 with `Retry-After: 1`.
    TooManyHint = "429-retry-after", Head;
    /// 500, quoting the prompt.
    ServerError = "500", Head;
    /// 502 with HTML.
    BadGateway = "502", Head;
    /// 503 without a hint.
    Unavailable = "503", Head;
    /// 503 with `Retry-After: 1`.
    UnavailableHint = "503-retry-after", Head;
    /// 503, the model is loading.
    Loading = "503-loading", Head;
    /// 504 with nothing.
    GatewayTimeout = "504", Head;
    /// 307 to `Script::elsewhere`.
    Redirect = "redirect", Head;
    /// A head of four megabytes.
    GiantHead = "giant-head", Head;
    /// A line that is no HTTP.
    NotHttp = "not-http", Head;
    /// 200 and `Content-Length: 0`.
    EmptyOk = "empty-200", Head;
    /// 200 and silence.
    StallAfterHead = "stall-after-head", Head;
    /// 200 and a clean end without one event; plain: no choices.
    EmptyStream = "empty-stream", Head;
    /// Silence in the middle of the answer.
    StallInMiddle = "stall-in-middle", Body;
    /// The connection closes in the middle of the answer, between two events.
    DieMidStream = "die-mid-stream", Body;
    /// The connection closes in the middle of an event.
    DieMidFrame = "die-mid-frame", Body;
    /// The connection is reset in the middle of the answer.
    ResetMidStream = "reset-mid-stream", Body;
    /// An error object, then a clean end.
    ErrorInOk = "error-in-200", Body;
    /// An error event, then `[DONE]` and a clean end, as vLLM does it.
    ErrorThenDone = "error-then-done", Body;
    /// An event that is half a JSON document, then a clean end.
    TruncatedJson = "truncated-json", Body;
    /// An event with half a character in it, then a clean end.
    HalfCharacter = "half-character", Body;
    /// Fewer bytes than `Content-Length` says.
    LengthTooLong = "length-too-long", Body;
    /// More bytes than `Content-Length` says.
    LengthTooShort = "length-too-short", Body;
    /// A chunk whose size is no number.
    BadChunk = "bad-chunk", Body;
    /// Bare text instead of an event, then a clean end, as llama.cpp's router does it.
    BareText = "bare-text", Body;
    /// An event without text or model, then a clean end, as Ollama does it.
    BlankEnd = "blank-end", Body;
    /// A clean end without a finish reason.
    EndWithoutFinish = "end-without-finish", Body;
    /// `[DONE]` without a finish reason.
    DoneWithoutFinish = "done-without-finish", Body;
    /// Comments for ever, no content.
    EndlessComments = "endless-comments", Body;
    /// An event that never ends.
    EndlessFrame = "endless-frame", Body;
    /// Words for ever, whatever limit was asked for.
    EndlessWords = "endless-words", Never;
    /// The right answer, one byte at a time.
    SlowBytes = "slow-bytes", Never;
}

impl Fault {
    /// Whether the refusal says that the request itself is wrong, so that no
    /// other server should be asked.
    pub fn blames_the_request(self) -> bool {
        matches!(self, Self::BadRequest | Self::Unprocessable)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own() {
        let names: BTreeSet<_> = Fault::ALL.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), Fault::ALL.len());
    }

    #[test]
    fn plans_choose_by_number() {
        let chosen = |plan: Plan| (1..=6).map(|n| plan.fault(n).is_some()).collect::<Vec<_>>();
        assert_eq!(chosen(Plan::Never), [false; 6]);
        assert_eq!(chosen(Plan::Always(Fault::Reset)), [true; 6]);
        let at = Plan::At(BTreeMap::from([(2, Fault::Reset)]));
        assert_eq!(chosen(at), [false, true, false, false, false, false]);
        let turn = Plan::InTurn(vec![Fault::Reset, Fault::ServerError]);
        assert_eq!(turn.fault(4), Some(Fault::ServerError));
    }

    #[test]
    fn luck_is_repeatable_and_about_as_frequent_as_asked() {
        let plan = Plan::Sometimes { fault: Fault::Reset, probability: 0.25, seed: 7 };
        let hits = (1..=4000).filter(|n| plan.fault(*n).is_some()).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert_eq!(plan.fault(17), plan.clone().fault(17));
    }
}
