//! Where two languages meet: which door of a server is knocked on, and what
//! translation needs beside the two dialects.

use super::Door;
use crate::generate::{Event, Reason};

/// How a server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// In the caller's own language: its bytes go on.
    Same,
    /// In another: at this door.
    Other(Door),
}

/// Picks the door of a server, whose doors for this operation are `doors`, truest first.
///
/// The caller's own language wins wherever the server's kind lists it at all: what the
/// kind does not trust, it does not list.
pub fn pick(doors: &[Door], caller: Door) -> Option<Way> {
    if doors.contains(&caller) {
        return Some(Way::Same);
    }
    doors.first().map(|door| Way::Other(*door))
}

/// Makes a forced call of a text that is its arguments.
#[derive(Clone, Debug)]
pub struct Calling {
    tool: Option<String>,
    begun: bool,
}

impl Calling {
    /// `tool` as in `Asked::forced`; without one, events stay as they are.
    pub fn new(tool: Option<String>) -> Self {
        Self { tool, begun: false }
    }

    /// Gives the event as the caller shall see it, one or two.
    pub fn turn(&mut self, event: Event, mut give: impl FnMut(Event)) {
        let Some(tool) = &self.tool else { return give(event) };
        match event {
            Event::Text(text) => {
                if !std::mem::replace(&mut self.begun, true) {
                    give(Event::Call { index: 0, id: None, name: tool.clone() });
                }
                give(Event::Arguments { index: 0, text });
            }
            Event::Finished { reason: Reason::Stop, stop } if self.begun => {
                give(Event::Finished { reason: Reason::ToolCalls, stop });
            }
            other => give(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_call_is_a_call_again() {
        let mut calling = Calling::new(Some("json".to_owned()));
        let mut out = Vec::new();
        for event in [
            Event::Text("{".to_owned()),
            Event::Text("}".to_owned()),
            Event::Finished { reason: Reason::Stop, stop: None },
        ] {
            calling.turn(event, |it| out.push(it));
        }
        let piece = |text: &str| Event::Arguments { index: 0, text: text.to_owned() };
        assert_eq!(
            out,
            [
                Event::Call { index: 0, id: None, name: "json".to_owned() },
                piece("{"),
                piece("}"),
                Event::Finished { reason: Reason::ToolCalls, stop: None },
            ]
        );
    }

    #[test]
    fn the_callers_own_language_wins_where_it_is_spoken() {
        let doors = [Door::OpenAiChat, Door::Messages];
        assert_eq!(pick(&doors, Door::Messages), Some(Way::Same));
        assert_eq!(pick(&doors, Door::Responses), Some(Way::Other(Door::OpenAiChat)));
        assert_eq!(pick(&[], Door::Responses), None);
    }
}
