//! The fingerprint of a TLS key, by which a server is known whatever its certificate says.

use std::{fmt, str::FromStr};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// SHA-256 of a server's public key (its SubjectPublicKeyInfo), written `sha256/BASE64`, as
/// HTTP and `curl --pinnedpubkey` have it. A certificate that is renewed for the same key
/// keeps it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pin([u8; 32]);

/// A text is no pin.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a pin is `sha256/` and the SHA-256 of the server's public key in base64, 44 characters")]
pub struct PinError;

impl From<[u8; 32]> for Pin {
    fn from(digest: [u8; 32]) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("sha256/{}", STANDARD.encode(self.0));
        f.pad(&text)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for Pin {
    type Err = PinError;
    fn from_str(text: &str) -> Result<Self, PinError> {
        let text = text.trim();
        let text = text.strip_prefix("sha256/").ok_or(PinError)?;
        let text = text.strip_suffix('=').unwrap_or(text);
        // curl writes two slashes; one may also be the first letter.
        let text = text.strip_prefix('/').filter(|it| it.len() == 43).unwrap_or(text);
        // The two bits that are over have to be 0, so that no key has two pins.
        let digest = STANDARD_NO_PAD.decode(text).map_err(|_| PinError)?;
        Ok(Self(digest.try_into().map_err(|_| PinError)?))
    }
}

impl Serialize for Pin {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pin {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pin_is_written_as_openssl_writes_it() {
        // printf '' | openssl dgst -sha256 -binary | base64
        let empty = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";
        let pin: Pin = format!("sha256/{empty}").parse().unwrap();
        assert_eq!(pin.to_string(), format!("sha256/{empty}"));
        assert_eq!(format!(" sha256//{empty}\n").parse(), Ok(pin));
        assert_eq!(format!("sha256/{}", empty.trim_end_matches('=')).parse(), Ok(pin));
    }

    #[test]
    fn what_is_no_pin_is_refused() {
        let short = format!("sha256/{}", "A".repeat(42));
        let long = format!("sha256/{}", "A".repeat(45));
        let odd = format!("sha256/{}-", "A".repeat(42));
        let over = format!("sha256/{}B=", "A".repeat(42));
        let bare = "A".repeat(43);
        for text in ["", "sha256/", "sha1/AAAA", &short, &long, &odd, &over, &bare] {
            assert_eq!(text.parse::<Pin>(), Err(PinError), "{text}");
        }
    }

    #[test]
    fn a_pin_that_begins_with_a_slash_is_no_other() {
        let mut digest = [0; 32];
        digest[0] = 252;
        let pin = Pin::from(digest);
        assert!(pin.to_string().starts_with("sha256//AAA"), "{pin}");
        assert_eq!(pin.to_string().parse(), Ok(pin));
        assert_eq!(pin.to_string().replacen("sha256/", "sha256//", 1).parse(), Ok(pin));
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(digest in any::<[u8; 32]>()) {
            let pin = Pin::from(digest);
            prop_assert_eq!(pin.to_string().parse(), Ok(pin));
        }
    }
}
