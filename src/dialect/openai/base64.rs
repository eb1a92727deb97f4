//! Vectors as OpenAI's clients like them: little-endian numbers in base64.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Writes a vector.
pub(super) fn write(vector: &[f32]) -> String {
    let bytes: Vec<u8> = vector.iter().flat_map(|it| it.to_le_bytes()).collect();
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let six = (bits >> (18 - 6 * place)) as usize & 63;
            out.push(if place > three.len() { '=' } else { char::from(ALPHABET[six]) });
        }
    }
    out
}

/// Reads a vector; `None` for what is none.
pub(super) fn read(text: &str) -> Option<Vec<f32>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(six);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 255) as u8);
        }
    }
    let (numbers, rest) = bytes.as_chunks::<4>();
    let vector: Vec<f32> = numbers.iter().map(|it| f32::from_le_bytes(*it)).collect();
    (rest.is_empty() && !vector.is_empty()).then_some(vector)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_vector_is_written_as_python_writes_it() {
        // base64.b64encode(struct.pack("<3f", 1.0, -0.5, 0.25))
        assert_eq!(write(&[1.0, -0.5, 0.25]), "AACAPwAAAL8AAIA+");
        assert_eq!(write(&[1.0]), "AACAPw==");
        assert_eq!(read("AACAPw=="), Some(vec![1.0]));
        assert_eq!(read("AACAPw"), Some(vec![1.0]));
    }

    #[test]
    fn what_is_no_vector_is_seen() {
        for text in ["", "=", "AAA=", "AACAPwAA", "AACA?w=="] {
            assert_eq!(read(text), None, "for {text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_can_be_read(vector in prop::collection::vec(-1e9_f32..1e9, 1..40)) {
            prop_assert_eq!(read(&write(&vector)), Some(vector));
        }
    }
}
