//! Takes a name apart.

use super::{
    Identity, Size,
    usage::{self, Tuning},
};

/// Hosts that models are named by. What is called like a host and is none of these is a vendor.
const HOSTS: [&str; 6] =
    ["hf.co", "huggingface.co", "docker.io", "registry.ollama.ai", "ollama.com", "modelscope.cn"];

/// Reads a name. `None` where it leaves open which model it is.
pub(super) fn identify(name: &str) -> Option<Identity> {
    // Longer ones are no names, and whatever is on the wire may be one.
    if name.len() > 200 || !name.is_ascii() {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let (vendor, name) = split_place(&name);
    let (name, tag) = split_tag(name);
    let mut reading = Reading::default();
    reading.read(&name, false)?;
    let tagged = tag.is_some_and(|it| !is_packing(it));
    if let Some(tag) = tag {
        reading.read(tag, true)?;
    }
    reading.finish(usage::vendor(vendor), tagged)
}

/// The number of parameters as servers write it: `8.2B`, `8.19 B`, `652K`.
pub(super) fn parameters(text: &str) -> Option<f64> {
    let text = text.trim().to_ascii_lowercase();
    let unit = match text.chars().last()? {
        'k' => 1e3,
        'm' => 1e6,
        'b' => 1e9,
        't' => 1e12,
        _ => return None,
    };
    let number = &text[..text.len() - 1];
    let number: f64 = number.trim_end().parse().ok()?;
    (number > 0.0 && number.is_finite()).then_some(number * unit)
}

/// A family in one way of writing: servers have `gptoss` and `gpt-oss`, `gemma3_text` and `gemma3`.
pub(super) fn plain_family(text: &str) -> String {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    let plain = plain.to_ascii_lowercase();
    plain.strip_suffix("text").unwrap_or(&plain).to_owned()
}

/// Vendor and rest. The folders of a file on this machine tell nothing.
fn split_place(name: &str) -> (&str, &str) {
    let name = name.trim_end_matches('/');
    let on_disk = name.starts_with(['/', '.', '~']);
    let Some((place, last)) = name.rsplit_once('/') else { return ("", name) };
    if on_disk {
        return ("", last);
    }
    let place = match place.split_once('/') {
        Some((host, rest)) if HOSTS.contains(&host) => rest,
        None if HOSTS.contains(&place) => "",
        _ => place,
    };
    // In `owner/repository/file.gguf` the file says it all.
    let vendor = if last.ends_with(".gguf") { place.split('/').next().unwrap_or(place) } else { place };
    (vendor, last)
}

/// Name and tag; a revision or quantisation after `@` belongs to the name.
fn split_tag(name: &str) -> (String, Option<&str>) {
    let (name, tag) = match name.split_once(':') {
        Some((name, tag)) => (name, Some(tag)),
        None => (name, None),
    };
    let name = name.strip_suffix("@main").unwrap_or(name);
    let name = name.strip_suffix(".gguf").or_else(|| name.strip_suffix(".safetensors")).unwrap_or(name);
    (without_shard(name).replace('@', "-"), tag)
}

/// `model-00001-of-00003` is a piece of `model`.
fn without_shard(name: &str) -> &str {
    let digits = |it: &str| it.len() == 5 && it.bytes().all(|it| it.is_ascii_digit());
    let Some((head, count)) = name.rsplit_once("-of-") else { return name };
    match head.rsplit_once('-') {
        Some((stem, at)) if digits(at) && digits(count) => stem,
        _ => name,
    }
}

/// Whether a tag tells of the packing only, as on Hugging Face: `:Q4_K_M`.
fn is_packing(tag: &str) -> bool {
    let mut reading = Reading::default();
    let read = reading.read(tag, true);
    tag != "latest" && read.is_some() && reading == Reading::default()
}

/// What was read so far.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    stem: Vec<String>,
    size: Option<Size>,
    active: Option<String>,
    tuning: Option<Tuning>,
}

impl Reading {
    /// Reads one part of a name. `None` where it says something twice, and differently.
    fn read(&mut self, part: &str, in_tag: bool) -> Option<()> {
        let words = split(part);
        let mut rest = words.as_slice();
        while let Some((word, after)) = rest.split_first() {
            rest = after;
            let word = word.as_str();
            if in_tag && word == "latest" {
                continue;
            }
            if let Some(taken) = quantisation(word, rest) {
                rest = &rest[taken..];
            } else if let Some(size) = size(word) {
                set(&mut self.size, size)?;
            } else if word.strip_prefix('a').and_then(size).is_some() {
                set(&mut self.active, word.to_owned())?;
            } else if let Some(tuning) = Tuning::of(word, in_tag) {
                set(&mut self.tuning, tuning)?;
            } else {
                self.stem.push(word.to_owned());
            }
        }
        Some(())
    }

    fn finish(self, vendor: String, tagged: bool) -> Option<Identity> {
        let mut stem = self.stem.as_slice();
        // LM Studio puts this before the name of every embedder.
        if let [first, second, third, ..] = stem
            && first == "text"
            && second == "embedding"
            && third.starts_with(|it: char| it.is_ascii_alphabetic())
        {
            stem = &stem[2..];
        }
        if let [first, second, ..] = stem
            && first == "meta"
            && second.starts_with("llama")
        {
            stem = &stem[1..];
        }
        let stem = joined(stem);
        if stem.is_empty() || usage::leaves_open_the_version(&stem) {
            return None;
        }
        let size = self.size.as_ref().map(|it| it.text.as_str());
        let tuning = match self.tuning {
            Some(tuning) => tuning,
            None => Tuning::unsaid(&stem, size, tagged)?,
        };
        Some(Identity { stem, vendor, size: self.size, active: self.active, tuning })
    }
}

/// Words as one. Numbers stay apart: `qwen3-2` is not `qwen32`.
fn joined(words: &[String]) -> String {
    let mut all = String::new();
    for word in words {
        let is_digit = |it: char| it.is_ascii_digit();
        if all.ends_with(is_digit) && word.starts_with(is_digit) {
            all.push('-');
        }
        all.push_str(word);
    }
    all
}

fn set<T: PartialEq>(place: &mut Option<T>, value: T) -> Option<()> {
    match place {
        Some(there) if *there != value => None,
        _ => {
            *place = Some(value);
            Some(())
        }
    }
}

/// The words of a part. A dot between digits is a version; before a letter it only divides.
fn split(part: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut chars = part.chars().peekable();
    while let Some(char) = chars.next() {
        let next_is_digit = chars.peek().is_some_and(char::is_ascii_digit);
        match char {
            '-' | '_' | ' ' | ':' | '(' | ')' => words.push(String::new()),
            '.' if !next_is_digit => words.push(String::new()),
            _ => words.last_mut().into_iter().for_each(|it| it.push(char)),
        }
    }
    words.retain(|it| !it.is_empty());
    words
}

/// A size: `8b`, `0.6b`, `137m`, `8x7b`, and `e4b` for one that behaves like 4b.
fn size(word: &str) -> Option<Size> {
    let (effective, bare) = match word.strip_prefix('e') {
        Some(bare) => (true, bare),
        None => (false, word),
    };
    let (experts, each) = match bare.split_once('x') {
        Some((experts, each)) => (experts.parse::<u32>().ok()?, each),
        None => (1, bare),
    };
    if !each.starts_with(|it: char| it.is_ascii_digit()) {
        return None;
    }
    let parameters = parameters(each)?;
    // `1m` is a context of a million tokens, and `128k` one of that many thousand.
    if parameters < 2e7 || each.ends_with(['k', 't']) {
        return None;
    }
    // In one way of writing: `8.0b` is `8b`.
    let (number, unit) = each.split_at(each.len() - 1);
    let number: f64 = number.parse().ok()?;
    let experts_text = if experts > 1 { format!("{experts}x") } else { String::new() };
    let text = format!("{}{experts_text}{number}{unit}", if effective { "e" } else { "" });
    Some(Size { text, parameters: parameters * f64::from(experts), effective })
}

/// Whether a word tells of the packing, and how many words after it belong to it.
fn quantisation(word: &str, rest: &[String]) -> Option<usize> {
    const PACKING: [&str; 42] = [
        "gguf",
        "ggml",
        "mlx",
        "awq",
        "gptq",
        "exl2",
        "exl3",
        "safetensors",
        "hf",
        "bnb",
        "imat",
        "imatrix",
        "i1",
        "ud",
        "dwq",
        "quantized",
        "fp4",
        "fp8",
        "fp16",
        "fp32",
        "bf16",
        "f16",
        "f32",
        "nf4",
        "nvfp4",
        "mxfp4",
        "mxfp8",
        "int4",
        "int8",
        "w4a16",
        "w8a8",
        "w8a16",
        "2bit",
        "3bit",
        "4bit",
        "5bit",
        "6bit",
        "8bit",
        "16bit",
        "128g",
        "64g",
        "32g",
    ];
    let next = rest.first().map_or("", String::as_str);
    if PACKING.contains(&word) {
        // `fp8-dynamic` is packed another way than `fp8`, and is the same model.
        return Some(usize::from(word == "fp8" && next == "dynamic"));
    }
    if next == "bit" && matches!(word, "2" | "3" | "4" | "5" | "6" | "8") {
        return Some(1);
    }
    let bits = ["iq", "tq", "q"].iter().find_map(|it| word.strip_prefix(it))?;
    let is_bits = bits.len() == 1 && bits.bytes().all(|it| it.is_ascii_digit());
    let more = |it: &&String| {
        let words = ["k", "0", "1", "4", "8", "s", "m", "l", "xl", "xs", "xxs", "nl"];
        words.contains(&it.as_str())
    };
    is_bits.then(|| rest.iter().take_while(more).count())
}
