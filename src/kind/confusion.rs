//! The confusion matrix: every kind by itself against every recorded server, whatever the order
//! of the table is. Each is claimed by its own kind and by none other.

use std::{collections::BTreeMap, fmt::Write as _};

use super::{
    recorded::{Recordings, expected},
    *,
};

/// What a kind makes of a recorded server if it is the only one, told the root and the list first:
/// the last resort asks for them in any case.
fn alone(kind: &dyn Kind, recordings: &Recordings, name: &str) -> Verdict {
    let mut answers = Answers::default();
    for path in ["/", listing::PATH] {
        let question = Question::get(path);
        let answer = recordings.reply(name, &question, true);
        answers.push(question, answer);
    }
    loop {
        match kind.recognise(&answers) {
            Verdict::Ask(question) if answers.to(&question).is_none() => {
                let answer = recordings.reply(name, &question, true);
                answers.push(question, answer);
            }
            Verdict::Ask(_) => return Verdict::No,
            verdict => return verdict,
        }
    }
}

#[test]
fn each_recorded_server_is_claimed_by_its_own_kind_and_by_no_other() {
    let recordings = Recordings::read();
    let last_resort = openai_like::OpenAiLike.id();
    let kinds: Vec<_> = KINDS.iter().filter(|it| it.provider().is_none()).collect();
    let mut rows: BTreeMap<(&str, &str), Vec<bool>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for name in recordings.answering() {
        let is = expected(name);
        let claims: Vec<bool> =
            kinds.iter().map(|kind| matches!(alone(**kind, &recordings, name), Verdict::Proof(_))).collect();
        for (kind, claims) in kinds.iter().zip(&claims) {
            let own = is == Some(kind.id());
            // The last resort takes whatever lists models, once nobody else does.
            let right = *claims == own || (kind.id() == last_resort && is.is_some());
            if !right {
                wrong.push(format!("{name} is {is:?}; {} says {claims}", kind.id()));
            }
        }
        rows.insert((is.unwrap_or("~nothing"), name), claims);
    }
    #[expect(clippy::print_stdout, reason = "the matrix is what is asked for with --nocapture")]
    {
        println!("{}", table(&kinds, &rows));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// One row for each recording, one column for each kind.
fn table(kinds: &[&&dyn Kind], rows: &BTreeMap<(&str, &str), Vec<bool>>) -> String {
    let mut table = String::from(
        "Confusion matrix: # claims it as what it is, ! as what it is not, + as a last resort\n",
    );
    for (number, kind) in kinds.iter().enumerate() {
        writeln!(table, "{:>3} {}", number + 1, kind.name()).expect("a text takes all");
    }
    write!(table, "{:44}", "").expect("a text takes all");
    for number in 1..=kinds.len() {
        write!(table, "{number:>3}").expect("a text takes all");
    }
    for ((is, name), claims) in rows {
        write!(table, "\n{name:44}").expect("a text takes all");
        for (kind, claims) in kinds.iter().zip(claims) {
            let own = *is == kind.id();
            let sign = match (claims, own, kind.id() == openai_like::OpenAiLike.id()) {
                (false, ..) => '.',
                (true, true, _) => '#',
                (true, false, true) => '+',
                (true, false, false) => '!',
            };
            write!(table, "{sign:>3}").expect("a text takes all");
        }
    }
    table
}

#[test]
fn every_kind_that_is_recognised_has_a_recording() {
    let recordings = Recordings::read();
    let seen: BTreeSet<_> = recordings.answering().filter_map(expected).collect();
    for kind in KINDS.iter().filter(|it| it.provider().is_none()) {
        assert!(seen.contains(kind.id()), "{} has none", kind.name());
    }
}

#[test]
fn a_gateway_is_asked_for_its_list_and_nothing_that_may_bill() {
    let recordings = Recordings::read();
    for name in recordings.answering().filter(|it| it.starts_with("litellm-")) {
        for key in [true, false] {
            let (_, answers) = recordings.talk(name, key);
            let asked: Vec<_> = answers.iter().map(|(it, _)| it.path.clone()).collect();
            assert!(asked.iter().all(|it| it == "/" || it == listing::PATH), "{name}: {asked:?}");
        }
    }
}

#[test]
fn what_a_gateway_says_of_itself_makes_it_no_nearer() {
    let recordings = Recordings::read();
    let mut seen = 0;
    for name in recordings.answering() {
        if let (Some("litellm" | "openwebui" | "sglangrouter"), Verdict::Proof(sighting)) =
            (expected(name), recordings.talk(name, true).0)
        {
            assert!(sighting.forwards, "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 3);
}
