//! The token of the TCP door.

use std::{fmt, hint::black_box};

/// A secret that a caller has to show. It is never shown by us.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Takes it as it stands in a file; `None` if it is empty or no header can carry it.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let fits = !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic());
        fits.then(|| Self(text.to_owned()))
    }

    /// Whether this is it, in a time that depends on the length alone.
    pub fn is(&self, offered: &[u8]) -> bool {
        let own = self.0.as_bytes();
        if own.len() != offered.len() {
            return false;
        }
        let different = own.iter().zip(offered).fold(0, |sum, (a, b)| black_box(sum | (a ^ b)));
        black_box(different) == 0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_itself_is_the_token() {
        let token = Token::new(" sesame-7\n").unwrap();
        for (offered, same) in
            [("sesame-7", true), ("sesame-8", false), ("sesame-", false), ("sesame-77", false), ("", false)]
        {
            assert_eq!(token.is(offered.as_bytes()), same, "{offered:?}");
        }
        assert_eq!(format!("{token:?}"), "Token(…)");
    }

    #[test]
    fn what_no_header_can_carry_is_no_token() {
        for text in ["", " \n", "a b", "a\nb", "schlüssel"] {
            assert!(Token::new(text).is_none(), "{text:?}");
        }
    }
}
