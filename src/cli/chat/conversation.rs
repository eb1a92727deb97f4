//! What was said so far, and how it looks in a file.

use serde_json::json;

use crate::wire::{Content, Message};

/// A conversation.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation {
    /// The model that is asked; the daemon chooses when there is none.
    pub(super) model: Option<String>,
    /// How the model is to behave.
    pub(super) system: Option<String>,
    exchanges: Vec<Exchange>,
    /// The last question, when nothing came for it.
    unanswered: Option<String>,
}

/// A question and what came for it.
#[derive(Clone)]
struct Exchange {
    question: String,
    answer: String,
    model: Option<String>,
}

// What people say to models is in no debug output.
impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("model", &self.model).finish_non_exhaustive()
    }
}

impl Conversation {
    /// One in which nothing was said.
    pub(super) fn new(model: Option<String>, system: Option<String>) -> Self {
        Self { model, system, ..Self::default() }
    }

    /// What a server is shown when this is asked now.
    pub(super) fn with(&self, question: &str) -> Vec<Message> {
        let message = |role: &str, text: &str| Message {
            role: role.to_owned(),
            content: Content::Text(text.to_owned()),
        };
        let system = self.system.iter().map(|it| message("system", it));
        let before = self
            .exchanges
            .iter()
            .flat_map(|it| [message("user", &it.question), message("assistant", &it.answer)]);
        system.chain(before).chain([message("user", question)]).collect()
    }

    /// Adds what came for a question. When nothing came, the question is kept to be asked again,
    /// and no server is shown it: many models do not understand two questions in a row.
    pub(super) fn add(&mut self, question: String, answer: String, model: Option<String>) {
        if answer.is_empty() {
            self.unanswered = Some(question);
        } else {
            self.unanswered = None;
            self.exchanges.push(Exchange { question, answer, model });
        }
    }

    /// The question to ask again, and takes its answer back.
    pub(super) fn retry(&mut self) -> Option<String> {
        self.unanswered.take().or_else(|| Some(self.exchanges.pop()?.question))
    }

    /// Forgets what was said.
    pub(super) fn clear(&mut self) {
        self.exchanges.clear();
        self.unanswered = None;
    }

    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
    }

    /// As a document for people.
    pub(super) fn markdown(&self) -> String {
        let mut text = "# Conversation\n".to_owned();
        if let Some(system) = &self.system {
            text.push_str(&format!("\n## System\n\n{}\n", system.trim_end()));
        }
        for it in &self.exchanges {
            let model = it.model.as_deref().unwrap_or("Model");
            text.push_str(&format!(
                "\n## You\n\n{}\n\n## {model}\n\n{}\n",
                it.question.trim_end(),
                it.answer.trim_end()
            ));
        }
        text
    }

    /// As messages for programs, in OpenAI's words; the model stands beside each answer.
    pub(super) fn json(&self) -> String {
        let system = self.system.iter().map(|it| json!({"role": "system", "content": it}));
        let said = self.exchanges.iter().flat_map(|it| {
            [
                json!({"role": "user", "content": it.question}),
                json!({"role": "assistant", "content": it.answer, "model": it.model}),
            ]
        });
        let messages: Vec<_> = system.chain(said).collect();
        format!("{:#}\n", json!({"messages": messages}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> Conversation {
        let mut conversation =
            Conversation { system: Some("be brief".to_owned()), ..Conversation::default() };
        conversation.add("hi?".to_owned(), "hello\n".to_owned(), Some("qwen3:8b".to_owned()));
        conversation.add("and?".to_owned(), "so".to_owned(), None);
        conversation
    }

    fn shown(conversation: &Conversation, question: &str) -> String {
        serde_json::to_string(&conversation.with(question)).unwrap()
    }

    #[test]
    fn a_server_is_shown_all_that_was_said() {
        assert_eq!(
            shown(&some(), "x"),
            r#"[{"role":"system","content":"be brief"},{"role":"user","content":"hi?"},{"role":"assistant","content":"hello\n"},{"role":"user","content":"and?"},{"role":"assistant","content":"so"},{"role":"user","content":"x"}]"#
        );
    }

    #[test]
    fn a_question_without_an_answer_is_kept_only_to_be_asked_again() {
        let mut conversation = some();
        conversation.add("lost".to_owned(), String::new(), None);
        assert!(!shown(&conversation, "x").contains("lost"));
        assert_eq!(conversation.retry().as_deref(), Some("lost"));
        assert_eq!(conversation.retry().as_deref(), Some("and?"));
        assert!(!shown(&conversation, "x").contains("so\""));
    }

    #[test]
    fn there_is_nothing_to_ask_again_before_the_first_question() {
        let mut conversation = some();
        conversation.clear();
        assert!(conversation.is_empty());
        assert_eq!(conversation.retry(), None);
        assert_eq!(conversation.system.as_deref(), Some("be brief"));
    }

    #[test]
    fn it_can_be_read_by_people_and_by_programs() {
        insta::assert_snapshot!(some().markdown(), @r"
        # Conversation

        ## System

        be brief

        ## You

        hi?

        ## qwen3:8b

        hello

        ## You

        and?

        ## Model

        so
        ");
        let value: serde_json::Value = serde_json::from_str(&some().json()).unwrap();
        assert_eq!(value["messages"][2]["content"], "hello\n");
        assert_eq!(value["messages"][2]["model"], "qwen3:8b");
    }

    #[test]
    fn nothing_that_was_said_is_in_debug_output() {
        assert!(!format!("{:?}", some().exchanges).contains("hello"));
    }
}
