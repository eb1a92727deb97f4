//! Numbers, times and foreign text as a person reads them in a terminal.

use crate::wire::ReadingView;

/// Whole seconds in the two largest units: `3 d 4 h`, `12 min 5 s`, `45 s`.
pub(super) fn seconds(seconds: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let Some(first) = UNITS.iter().position(|(size, _)| seconds >= *size) else { return "0 s".to_owned() };
    let (size, unit) = UNITS[first];
    let whole = format!("{} {unit}", seconds / size);
    match UNITS.get(first + 1) {
        Some((next, unit)) if seconds % size >= *next => format!("{whole} {} {unit}", seconds % size / next),
        _ => whole,
    }
}

/// Milliseconds with about two digits that matter: `0.4 ms`, `38 ms`, `1.2 s`, `3 min 5 s`.
pub(super) fn ms(ms: f64) -> String {
    if ms < 9.95 {
        format!("{ms:.1} ms")
    } else if ms < 999.5 {
        format!("{ms:.0} ms")
    } else if ms < 99_950.0 {
        format!("{:.1} s", ms / 1000.0)
    } else {
        // A float beyond all integers becomes the largest one, which is what is wanted.
        seconds((ms / 1000.0) as u64)
    }
}

/// Bytes as disks are sold: `4.7 GB`.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 999.5 && unit + 1 < UNITS.len() {
        size /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && size < 9.95);
    format!("{size:.digits$} {}", UNITS[unit])
}

/// A number with its thousands apart: `1,204`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 server`, `2 servers`.
pub(super) fn plural(number: u64, word: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{} {word}{s}", count(number))
}

/// A share: `99.9 %`. It never rounds up to all or down to nothing.
pub(super) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent >= 100.0 || percent <= 0.0 {
        format!("{percent:.0} %")
    } else {
        format!("{:.1} %", percent.clamp(0.1, 99.9))
    }
}

/// Dollars with as many places as it takes to see something: `$12.50`, `$0.0004`.
pub(super) fn usd(dollars: f64) -> String {
    crate::generate::Usd::from_dollars(dollars).map_or_else(|| UNKNOWN.to_owned(), |it| it.to_string())
}

/// How busy a machine was, as far as that is known: `processor 43 %, memory 12.0 GiB`.
pub(super) fn reading(it: &ReadingView) -> Option<String> {
    let facts = [
        it.processor_percent.map(|it| format!("processor {it:.0} %")),
        it.memory_used_bytes.map(|it| format!("memory {}", bytes(it))),
        it.gpu_percent.map(|it| format!("GPU {it:.0} %")),
        it.gpu_memory_used_bytes.map(|it| format!("GPU memory {}", bytes(it))),
        it.gpu_temperature_celsius.map(|it| format!("{it:.0} °C")),
        it.gpu_power_watts.map(|it| format!("{it:.0} W")),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    (!facts.is_empty()).then(|| facts.join(", "))
}

/// The most of each.
pub(super) fn peak<'a>(readings: impl IntoIterator<Item = &'a ReadingView>) -> ReadingView {
    let most = |one: Option<f64>, other: Option<f64>| one.into_iter().chain(other).reduce(f64::max);
    readings.into_iter().fold(ReadingView::default(), |all, it| ReadingView {
        processor_percent: most(all.processor_percent, it.processor_percent),
        memory_used_bytes: all.memory_used_bytes.max(it.memory_used_bytes),
        gpu_percent: most(all.gpu_percent, it.gpu_percent),
        gpu_memory_used_bytes: all.gpu_memory_used_bytes.max(it.gpu_memory_used_bytes),
        gpu_temperature_celsius: most(all.gpu_temperature_celsius, it.gpu_temperature_celsius),
        gpu_power_watts: most(all.gpu_power_watts, it.gpu_power_watts),
    })
}

/// How long ago a moment of the API was: `3 s ago`.
pub(super) fn ago(moment: &str, now_ms: u64) -> String {
    match crate::wire::from_rfc3339(moment) {
        Some(then) => format!("{} ago", seconds(now_ms.saturating_sub(then) / 1000)),
        None => clean(moment),
    }
}

/// A word of the API, as the API writes it.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    let named = serde_json::to_value(value).ok();
    named.and_then(|it| it.as_str().map(str::to_owned)).unwrap_or_default()
}

/// What a number is when nobody knows it.
pub(super) const UNKNOWN: &str = "–";

/// The text, or a dash.
pub(super) fn or_dash(text: Option<impl AsRef<str>>) -> String {
    text.map_or_else(|| UNKNOWN.to_owned(), |it| clean(it.as_ref()))
}

/// Text from somewhere else, on one line and without power over the terminal.
pub(super) fn clean(text: &str) -> String {
    text.chars().map(|it| if is_harmless(it) { it } else { '\u{fffd}' }).collect()
}

/// Like `clean`, but line ends and tabs stay.
pub(super) fn clean_lines(text: &str) -> String {
    text.chars()
        .map(|it| if is_harmless(it) || matches!(it, '\n' | '\t') { it } else { '\u{fffd}' })
        .collect()
}

/// Control characters move the cursor or worse; direction marks make a line
/// read other than it is.
fn is_harmless(it: char) -> bool {
    !it.is_control()
        && !matches!(it, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many cells of a terminal the text takes.
pub(super) fn width(text: &str) -> usize {
    text.chars().map(cells).sum()
}

/// The text in at most `room` cells, with a mark where something is missing.
pub(super) fn cut(text: &str, room: usize) -> String {
    if width(text) <= room {
        return text.to_owned();
    }
    let mut used = 1;
    let mut kept = String::new();
    for it in text.chars() {
        used += cells(it);
        if used > room {
            break;
        }
        kept.push(it);
    }
    if room > 0 {
        kept.push('…');
    }
    kept
}

/// The blocks that terminals draw wide or on top of the last character. Not all
/// of Unicode: names of models and servers, which are Latin or East Asian.
fn cells(it: char) -> usize {
    match u32::from(it) {
        0x0300..=0x036f | 0x200b..=0x200d | 0x20d0..=0x20ff | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff => 2,
        0xfe30..=0xfe6f | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_their_two_largest_units() {
        for (given, said) in [
            (0, "0 s"),
            (45, "45 s"),
            (60, "1 min"),
            (725, "12 min 5 s"),
            (3_600, "1 h"),
            (3_605, "1 h"),
            (273_600, "3 d 4 h"),
        ] {
            assert_eq!(seconds(given), said);
        }
    }

    #[test]
    fn milliseconds_become_seconds_when_there_are_many() {
        for (given, said) in
            [(0.42, "0.4 ms"), (9.96, "10 ms"), (38.2, "38 ms"), (1_234.0, "1.2 s"), (185_000.0, "3 min 5 s")]
        {
            assert_eq!(ms(given), said);
        }
    }

    #[test]
    fn sizes_have_the_unit_that_keeps_them_short() {
        for (given, said) in [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (4_661_224_676, "4.7 GB"),
            (19_851_349_669, "20 GB"),
        ] {
            assert_eq!(bytes(given), said);
        }
    }

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([count(7), count(1_204), count(1_000_000)], ["7", "1,204", "1,000,000"]);
        assert_eq!([plural(1, "model"), plural(0, "model")], ["1 model", "0 models"]);
    }

    #[test]
    fn a_share_never_rounds_to_all_or_nothing() {
        let said = [1.0, 0.99999, 0.5, 0.00001, 0.0].map(percent);
        assert_eq!(said, ["100 %", "99.9 %", "50.0 %", "0.1 %", "0 %"]);
    }

    #[test]
    fn text_from_elsewhere_has_no_power_over_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\nc\u{9b}"), "a\u{fffd}[31mb\u{fffd}c\u{fffd}");
        assert_eq!(clean_lines("a\n\tb\r\u{7}"), "a\n\tb\u{fffd}\u{fffd}");
        assert_eq!(clean("x\u{202e}y"), "x\u{fffd}y");
    }

    #[test]
    fn cut_text_fits_and_shows_that_it_was_cut() {
        for room in 0..12 {
            assert!(width(&cut("模型 model", room)) <= room, "{room}");
        }
        assert_eq!(cut("model", 5), "model");
        assert_eq!(cut("model", 4), "mod…");
        assert_eq!(cut("模型模型", 6), "模型…");
    }
}
