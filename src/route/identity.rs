//! Which model a name names, as far as the name says it.
//!
//! Servers call one model `qwen3:8b-q4_K_M`, `Qwen/Qwen3-8B`, `qwen3-8b@q4_k_m` and
//! `Qwen3-8B-Q4_K_M.gguf`. A name is taken apart into words; what only tells of the
//! packing (quantisation, file format, a known vendor) is dropped, size and training
//! are set aside, and whatever is left, unknown words included, must be the same.
//! What servers tell of size and family helps where a name is silent, and
//! contradicts where it lies. When in doubt two models are different: a second
//! answer from another model is worse than none.

mod usage;
mod words;

#[cfg(test)]
mod tests;

use self::usage::Tuning;
use crate::server::Model;

/// What a name says.
#[derive(Clone, Debug, PartialEq)]
struct Identity {
    /// Family, version and everything else that makes a difference, in one word.
    stem: String,
    /// Who made it, where that is nobody known for passing models on unchanged.
    vendor: String,
    size: Option<Size>,
    /// How much of it works on each token, as the name says it: `a3b`.
    active: Option<String>,
    tuning: Tuning,
}

/// A size as a name says it.
#[derive(Clone, Debug, PartialEq)]
struct Size {
    /// In one way of writing: `8b`, `8x7b`, `e4b`.
    text: String,
    parameters: f64,
    /// Whether that is the size it behaves as and not the one it has.
    effective: bool,
}

/// Servers that tell a size count differently: with the eyes of a model or without,
/// rounded or not. What is further apart than that is another size.
const APART: f64 = 1.35;

/// What is known of a model: what its names say, and what its server tells.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Known {
    identities: Vec<Identity>,
    parameters: Option<f64>,
    family: Option<String>,
}

impl Known {
    /// A model of which only the name is known.
    pub(super) fn named(name: &str) -> Self {
        Self { identities: words::identify(name).into_iter().collect(), parameters: None, family: None }
    }

    /// A model as its server tells of it.
    pub(super) fn of(model: &Model) -> Self {
        let parameters = model.parameters.as_deref().and_then(words::parameters);
        let names = std::iter::once(&model.name).chain(&model.aliases);
        let identities = names.filter_map(|it| words::identify(it.as_str()));
        // A name that its own server contradicts says nothing.
        let honest = |it: &Identity| match (&it.size, parameters) {
            (Some(size), Some(told)) if !size.effective => near(size.parameters, told, APART),
            _ => true,
        };
        Self {
            identities: identities.filter(honest).collect(),
            parameters,
            family: model.family.as_deref().map(words::plain_family),
        }
    }

    /// Whether both are the same model, or differ in quantisation only.
    pub(super) fn is(&self, other: &Self) -> bool {
        let families = (&self.family, &other.family);
        if matches!(families, (Some(one), Some(other)) if one != other) {
            return false;
        }
        let same = |one: &Identity, two: &Identity| one.agrees(two) && self.size_agrees(one, other, two);
        self.identities.iter().any(|one| other.identities.iter().any(|two| same(one, two)))
    }

    fn size_agrees(&self, one: &Identity, other: &Self, two: &Identity) -> bool {
        let told = (self.parameters, other.parameters);
        match (&one.size, &two.size) {
            (Some(a), Some(b)) => {
                let apart = matches!(told, (Some(a), Some(b)) if !near(a, b, APART));
                a.text == b.text && (a.effective || !apart)
            }
            (Some(size), None) => fits(size, told.1) || one.is_one_size(),
            (None, Some(size)) => fits(size, told.0) || one.is_one_size(),
            (None, None) => match told {
                (Some(a), Some(b)) => near(a, b, 1.05),
                _ => one.is_one_size(),
            },
        }
    }

    /// How far another model is from this one, for want of a better: whether it is of another
    /// family, and how different its size is in quarters of a doubling.
    pub(super) fn distance(&self, other: &Self) -> (bool, u32) {
        const UNKNOWN: u32 = 40;
        let family = |it: &Self| it.identities.first().map(|it| it.family().to_owned());
        let stranger = family(self).is_none() || family(self) != family(other);
        let away = match (self.size(), other.size()) {
            (Some(one), Some(two)) if one > 0.0 && two > 0.0 => ((one / two).log2().abs() * 4.0).round(),
            _ => f64::from(UNKNOWN),
        };
        // Saturates, and is never negative.
        (stranger, away as u32)
    }

    fn size(&self) -> Option<f64> {
        self.parameters.or_else(|| self.identities.iter().find_map(|it| Some(it.size.as_ref()?.parameters)))
    }
}

impl Identity {
    fn agrees(&self, other: &Self) -> bool {
        let active = (&self.active, &other.active);
        // A name may leave out how much is active, but not say something else.
        let active = !matches!(active, (Some(one), Some(two)) if one != two);
        self.stem == other.stem && self.vendor == other.vendor && self.tuning == other.tuning && active
    }

    fn is_one_size(&self) -> bool {
        usage::is_one_size(&self.stem)
    }

    /// The letters that the stem begins with.
    fn family(&self) -> &str {
        self.stem.split(|it: char| !it.is_ascii_alphabetic()).next().unwrap_or_default()
    }
}

/// Whether a size in a name is the one that a server tells of a model whose name has none:
/// names round down (`7b` has 7.6B, `32b` 32.8B) or to the nearest.
fn fits(size: &Size, told: Option<f64>) -> bool {
    let Some(told) = told.filter(|_| !size.effective) else { return false };
    let unit = if size.parameters < 1e9 { 1e6 } else { 1e9 };
    let (named, told) = (size.parameters / unit, told / unit);
    let precision = if named.fract() == 0.0 { 1.0 } else { 10.0 };
    let rounded = (told * precision).round() / precision;
    let floored = (told * precision).floor() / precision;
    (rounded - named).abs() < 1e-6 || (floored - named).abs() < 1e-6
}

fn near(one: f64, two: f64, factor: f64) -> bool {
    one.max(two) <= one.min(two) * factor
}
