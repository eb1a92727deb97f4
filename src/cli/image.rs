//! An image for a model: told by its content, whatever its name says.

use std::{fs::File, io::Read, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{Trouble, say};
use crate::wire::{ImageUrl, Part};

/// The largest that is sent. No server takes more, and three of them in base64 are
/// what the daemon takes in one request.
const LARGEST: u64 = 20 << 20;

/// The image in a file, as a piece of a question.
pub(super) fn part(path: &Path) -> Result<Part, Trouble> {
    let refuse = |why: String| Trouble::Usage(format!("{} {why}", path.display()));
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
    read.map_err(|error| Trouble::Usage(format!("cannot read {}: {error}", path.display())))?;
    if bytes.len() as u64 > LARGEST {
        return Err(refuse(format!("is larger than {}", say::bytes(LARGEST))));
    }
    let Some(media_type) = media_type(&bytes) else {
        return Err(refuse("is no image that models understand: PNG, JPEG, GIF or WebP".to_owned()));
    };
    Ok(Part::ImageUrl {
        image_url: ImageUrl { url: format!("data:{media_type};base64,{}", STANDARD.encode(&bytes)) },
    })
}

/// What the first bytes say. A name or an ending may be wrong; these are what a
/// server's decoder goes by.
fn media_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_told_by_its_first_bytes() {
        for (bytes, expected) in [
            (&b"\x89PNG\r\n\x1a\n\0\0"[..], Some("image/png")),
            (b"\xff\xd8\xff\xe0", Some("image/jpeg")),
            (b"GIF89a\x01", Some("image/gif")),
            (b"GIF87a", Some("image/gif")),
            (b"RIFF\x24\0\0\0WEBPVP8 ", Some("image/webp")),
            (b"RIFF\x24\0\0\0WAVEfmt ", None),
            (b"GIF88a", None),
            (b"BM\0\0", None),
            (b"<svg xmlns", None),
            (b"\x89PNG", None),
            (b"", None),
        ] {
            assert_eq!(media_type(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn base64_is_as_the_standard_has_it() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(STANDARD.encode(bytes.as_bytes()), text);
        }
        assert_eq!(STANDARD.encode([0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn what_is_no_image_or_too_large_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cat.png");
        let said = |path: &Path| part(path).err().map(|it| it.to_string()).unwrap_or_default();
        assert!(said(&path).contains("cannot read") && said(&path).contains("cat.png"), "{}", said(&path));
        std::fs::write(&path, "not a cat").unwrap();
        assert!(said(&path).ends_with("cat.png is no image that models understand: PNG, JPEG, GIF or WebP"));
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(said(&path).ends_with("cat.png is larger than 21 MB"), "{}", said(&path));
    }
}
