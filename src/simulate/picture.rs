//! What an image is, told in words from its bytes.

/// The most of an image that is unpacked to look for its size.
const HEAD: usize = 64;

/// Tells of an image that is written as base64, as a data URL, or is elsewhere.
/// `None` if it is none of these.
pub(super) fn tell(written: &str) -> Option<String> {
    if written.starts_with("http://") || written.starts_with("https://") {
        return Some("elsewhere".to_owned());
    }
    let base64 = match written.strip_prefix("data:") {
        Some(url) => url.split_once(";base64,")?.1,
        None => written,
    };
    let length = length(base64)?;
    let head = unpack(&base64.as_bytes()[..base64.len().min(HEAD)]);
    Some(match png(&head) {
        Some((width, height)) => format!("{width}x{height} pixels in {length} bytes"),
        None => format!("{length} bytes"),
    })
}

/// How many bytes a base64 text stands for.
fn length(base64: &str) -> Option<usize> {
    let bare = base64.trim_end_matches('=');
    let fits = base64.len() - bare.len() <= 2 && bare.bytes().all(|it| six_bits(it).is_some());
    (fits && !bare.is_empty() && bare.len() % 4 != 1).then_some(bare.len() * 3 / 4)
}

fn six_bits(byte: u8) -> Option<u32> {
    Some(u32::from(match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' | b'-' => 62,
        b'/' | b'_' => 63,
        _ => return None,
    }))
}

fn unpack(base64: &[u8]) -> Vec<u8> {
    let bits: Vec<u32> = base64.iter().copied().map_while(six_bits).collect();
    let four = |it: &[u32]| it.iter().fold(0, |sum, it| sum << 6 | it).to_be_bytes();
    bits.chunks_exact(4).flat_map(|it| four(it)[1..].to_vec()).collect()
}

/// Width and height, where the file's head says so.
fn png(bytes: &[u8]) -> Option<(u32, u32)> {
    let rest = bytes.strip_prefix(b"\x89PNG\r\n\x1a\n")?;
    let number = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
    Some((number(8)?, number(12)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One red pixel.
    const PIXEL: &str =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC";

    #[test]
    fn an_image_is_told_by_its_size() {
        assert_eq!(tell(PIXEL).unwrap(), "1x1 pixels in 69 bytes");
        assert_eq!(tell(&format!("data:image/png;base64,{PIXEL}")).unwrap(), "1x1 pixels in 69 bytes");
        assert_eq!(tell("aGVsbG8=").unwrap(), "5 bytes");
        assert_eq!(tell("https://example.org/a.png").unwrap(), "elsewhere");
    }

    #[test]
    fn what_is_no_base64_is_no_image() {
        for written in ["", "a", "====", "a b c", "ä", "data:image/png,x", "data:image/png;base64,"] {
            assert_eq!(tell(written), None, "{written}");
        }
    }
}
