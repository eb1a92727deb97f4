//! What passes a seam, and what does not.

use proptest::prelude::*;

use super::*;

fn begun(text: &str) -> Begun {
    let mut begun = Begun::default();
    begun.say(text);
    begun
}

fn text(text: &str) -> Event {
    Event::Text(text.to_owned())
}

fn stop() -> Event {
    Event::Finished { reason: Reason::Stop, stop: None }
}

/// What passes of these pieces, then `#` and the reason.
fn sewn(seam: &mut Seam, pieces: &[&str]) -> Result<String, Misfit> {
    let mut out = String::new();
    for event in pieces.iter().map(|it| text(it)).chain([stop()]) {
        seam.turn(event, &mut |event| match event {
            Event::Text(text) => out.push_str(&text),
            Event::Finished { stop, .. } => out.push_str(&format!("#{}", stop.unwrap_or_default())),
            other => panic!("{other:?}"),
        })?;
    }
    Ok(out)
}

fn check(seam: Seam, pieces: &[&str], expected: &str) {
    assert_eq!(sewn(&mut seam.clone(), pieces), Ok(expected.to_owned()), "for {pieces:?}");
}

fn after(all: &str, told: usize, stops: &[&str]) -> Seam {
    let stops: Vec<String> = stops.iter().map(|it| (*it).to_owned()).collect();
    let begun = begun(all);
    Seam::after(&begun, Told::Text(told), Repeats::Perhaps, None).stopped_by(&begun, &stops)
}

#[test]
fn what_is_new_passes_as_it_comes() {
    check(after("a b", 3, &[]), &[" c", " d"], " c d#");
    check(after("a b", 3, &[]), &[], "#");
    check(after("la la la la la la", 17, &[]), &[" la", " la la la la la"], " la la la la la la#");
}

#[test]
fn what_is_said_again_is_taken_off() {
    let said = "One, two, three";
    check(after(said, said.len(), &[]), &["One, ", "two, three", ", four"], ", four#");
    check(after(said, said.len(), &[]), &["One, ", "too"], "One, too#");
    check(after(said, said.len(), &[]), &["One"], "One#");
    check(Seam::again(&begun(said)), &["One, ", "two, three, four"], ", four#");
    assert_eq!(sewn(&mut Seam::again(&begun(said)), &["One, ", "too"]), Err(Misfit));
    assert_eq!(sewn(&mut Seam::again(&begun(said)), &["One"]), Err(Misfit));
}

#[test]
fn a_word_that_was_cut_is_said_again() {
    check(after("an unbel", 2, &[]), &[" un", "believ", "able"], "ievable#");
    assert_eq!(sewn(&mut after("an unbel", 2, &[]), &[" un", "couth"]), Err(Misfit));
}

#[test]
fn blanks_at_the_end_are_not_doubled() {
    check(after("a \n", 1, &[]), &[" ", "\nb"], "b#");
    check(after("a \n", 1, &[]), &["b"], "b#");
    check(after("a ", 1, &[]), &["  b"], " b#");
    check(after("a b ", 1, &[]), &[" b", "c"], "c#");
}

#[test]
fn a_stop_string_holds_across_the_seam() {
    check(after("a EN", 4, &["END"]), &["D of it"], "#END");
    check(after("a E", 3, &["END"]), &["N", "D of it"], "#END");
    check(after("a E", 3, &["END"]), &["N", "T"], "NT#");
    check(after("a E", 3, &["END"]), &["N"], "N#");
    check(after("aa", 2, &["aab", "ac"]), &["c"], "#ac");
    check(after("a EN", 1, &["END"]), &[" "], "#");
}

#[test]
fn thoughts_that_were_shown_are_not_shown_again() {
    let mut begun = Begun::default();
    begun.think("hm, so");
    let check = |begun: &Begun, thoughts: &[&str], expected: &[&str]| {
        let (mut seam, mut shown) = (Seam::again(begun), Vec::new());
        let thoughts = thoughts.iter().map(|it| Event::Thinking((*it).to_owned()));
        for event in thoughts.chain([text("a")]) {
            seam.turn(event, &mut |it| {
                if let Event::Thinking(text) = it {
                    shown.push(text);
                }
            })
            .unwrap();
        }
        assert_eq!(shown, expected);
    };
    check(&begun, &["hm", ", so it", " is"], &[" it", " is"]);
    check(&begun, &["hm", "m, so", " it"], &[]);
    check(&begun, &["hm"], &[]);
    begun.say("a");
    check(&begun, &["hm, so", " it"], &[]);
}

/// What is shown of thoughts and text that follow on these thoughts.
fn shown(told: Told, events: &[Event]) -> Result<(String, String), Misfit> {
    let mut begun = Begun::default();
    begun.think("hm, so it");
    let mut seam = Seam::after(&begun, told, Repeats::Hardly, None);
    let (mut thoughts, mut said) = (String::new(), String::new());
    for event in events.iter().cloned().chain([stop()]) {
        seam.turn(event, &mut |it| match it {
            Event::Thinking(text) => thoughts += &text,
            Event::Text(text) => said += &text,
            _ => {}
        })?;
    }
    Ok((thoughts, said))
}

#[test]
fn thinking_goes_on_where_it_was_cut() {
    let thought = |text: &str| Event::Thinking(text.to_owned());
    let is = |told, events: &[Event], thoughts: &str, said: &str| {
        assert_eq!(shown(told, events), Ok((thoughts.to_owned(), said.to_owned())), "{events:?}");
    };
    let all = Told::Thinking(9);
    is(all, &[thought(" is"), text("a")], " is", "a");
    is(all, &[text("a")], "", "a");
    is(all, &[], "", "");
    // The last word is said again.
    is(Told::Thinking(6), &[thought(" i"), thought("t is"), text("a")], " is", "a");
    assert_eq!(shown(Told::Thinking(6), &[thought(" i"), text("a")]), Err(Misfit));
    assert_eq!(shown(Told::Thinking(6), &[thought(" no")]), Err(Misfit));
}

#[test]
fn thinking_that_comes_as_text_is_shown_as_thinking() {
    let mut begun = Begun::default();
    begun.think("hm, so");
    let mut seam = Seam::after(&begun, Told::Thinking(3), Repeats::Hardly, None);
    seam.learn(Learned { tokens: None, closing: Some("</think>".to_owned()) });
    let mut out = Vec::new();
    for event in [text(" so it"), text(" is\n</th"), text("ink>\n\na"), text(" b"), stop()] {
        seam.turn(event, &mut |it| out.push(it)).unwrap();
    }
    let thought = |text: &str| Event::Thinking(text.to_owned());
    assert_eq!(out, [thought(" it"), thought(" is"), text("a"), text(" b"), stop()]);
}

#[test]
fn counts_are_those_of_the_whole_answer() {
    let usage = Usage { input_tokens: Some(12), output_tokens: Some(3), ..Usage::default() };
    let counted = |limit| {
        let mut seam = Seam::after(&begun("a"), Told::Text(1), Repeats::Hardly, limit);
        assert!(seam.is_about());
        seam.learn(Learned { tokens: Some(4), closing: None });
        assert!(!seam.is_about());
        seam
    };
    let mut seam = counted(Some(5));
    seam.turn(Event::Usage(usage), &mut |_| {}).unwrap();
    assert_eq!((seam.usage().input_tokens, seam.usage().output_tokens), (Some(8), Some(7)));
    let mut mute = counted(Some(4));
    let mut out = Vec::new();
    for event in [text("x"), Event::Usage(usage), stop()] {
        mute.turn(event, &mut |it| out.push(it)).unwrap();
    }
    assert_eq!(mute.usage().output_tokens, Some(4));
    assert_eq!(out.last(), Some(&Event::Finished { reason: Reason::Length, stop: None }));
    let mut begun_thinking = Begun::default();
    begun_thinking.think("hm");
    let mut seam = Seam::after(&begun_thinking, Told::Thinking(2), Repeats::Hardly, None);
    seam.turn(Event::Usage(usage), &mut |_| {}).unwrap();
    assert_eq!(seam.usage().reasoning_tokens, None);
    let thought = Usage { reasoning_tokens: Some(2), ..usage };
    seam.turn(Event::Usage(thought), &mut |_| {}).unwrap();
    assert_eq!(seam.usage().reasoning_tokens, Some(3));
    let mut again = Seam::again(&begun("a"));
    again.turn(Event::Usage(usage), &mut |_| {}).unwrap();
    assert_eq!(again.usage(), usage);
}

proptest! {
    #[test]
    fn however_it_is_cut_the_text_is_whole(
        words in prop::collection::vec("[a-cä]{1,3}|[ \n]{1,2}", 1..12),
        cut in 0_usize..200,
        pieces in prop::collection::vec(1_usize..4, 1..60),
        whole_words: bool,
        echoes: bool,
    ) {
        let whole = words.concat();
        let cut = (0..=cut.min(whole.len())).rev().find(|it| whole.is_char_boundary(*it)).unwrap();
        let told = super::super::words(&whole[..cut], whole_words);
        prop_assume!(told > 0);
        let seam = Seam::after(&begun(&whole[..cut]), Told::Text(told), Repeats::Perhaps, None);
        let echoes = echoes && !seam.text.echo().is_empty();
        let mut rest = if echoes { whole.clone() } else { whole[told..].to_owned() };
        // Going on with what it began with is not to be told from saying it again.
        let echo = seam.text.echo();
        prop_assume!(echoes || echo.is_empty() || !rest.starts_with(echo));
        let mut said = Vec::new();
        for size in pieces {
            let at = (size.min(rest.len())..=rest.len()).find(|it| rest.is_char_boundary(*it)).unwrap();
            said.push(rest.drain(..at).collect::<String>());
        }
        said.push(rest);
        let said: Vec<&str> = said.iter().map(String::as_str).filter(|it| !it.is_empty()).collect();
        let new = sewn(&mut seam.clone(), &said).unwrap();
        prop_assert_eq!(format!("{}{}", &whole[..cut], new), format!("{whole}#"));
    }
}
