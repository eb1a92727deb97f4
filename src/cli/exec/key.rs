//! The key of a bridge: random, for one program, and compared without telling how
//! much of a wrong one was right.

use std::{fmt, fs::File, hint::black_box, io, io::Read};

/// A key. Some programs only take keys that begin as OpenAI's do.
#[derive(Clone)]
pub(super) struct Key(String);

const PREFIX: &str = "sk-lovable-";

impl Key {
    /// A new one: 128 bits of the system's own luck, which is more than anybody can try.
    pub(super) fn new() -> io::Result<Self> {
        let mut luck = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut luck)?;
        Ok(Self(format!("{PREFIX}{:032x}", u128::from_ne_bytes(luck))))
    }

    /// Whether this is it, in a time that depends on the length alone.
    pub(super) fn is(&self, offered: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != offered.len() {
            return false;
        }
        let different = own.iter().zip(offered).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        black_box(different) == 0
    }

    /// Whether this was meant to be a key of a bridge, be it this one's or not.
    pub(super) fn is_like(&self, offered: &str) -> bool {
        offered.starts_with(PREFIX)
    }

    /// As a program is given it.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

#[cfg(test)]
impl From<&str> for Key {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_keys_are_the_same_and_none_is_shown() {
        let (one, other) = (Key::new().unwrap(), Key::new().unwrap());
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(one.as_str().len(), PREFIX.len() + 32);
        assert_eq!(format!("{one:?}"), "Key");
    }

    #[test]
    fn only_the_key_itself_is_the_key() {
        let key = Key::from("sk-lovable-00ff");
        for (offered, same) in [
            ("sk-lovable-00ff", true),
            ("sk-lovable-00fe", false),
            ("tk-lovable-00ff", false),
            ("sk-lovable-00f", false),
            ("sk-lovable-00fff", false),
            ("SK-LOVABLE-00FF", false),
            ("", false),
        ] {
            assert_eq!(key.is(offered.as_bytes()), same, "{offered:?}");
        }
    }
}
