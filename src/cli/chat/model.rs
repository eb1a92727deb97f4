//! The models of a conversation: what they are called, and which one is asked.

use crate::{cli::say, server::Capability, wire::ModelView};

/// What models can be called.
pub(super) fn names(models: &[ModelView]) -> Vec<String> {
    models.iter().flat_map(|it| [vec![it.name.to_string()], it.aliases.clone()].concat()).collect()
}

/// One line for each model that can be asked, with a mark at the one that is.
pub(super) fn list(models: &[ModelView], own: Option<&str>) -> String {
    let mark = |own: bool| if own { '*' } else { ' ' };
    let mut text = format!("{} auto: the one that lovabled finds best\n", mark(own.is_none()));
    for it in
        models.iter().filter(|it| it.capabilities.is_empty() || it.capabilities.contains(&Capability::Chat))
    {
        let is_own = own.is_some_and(|own| own == it.name.as_str() || it.aliases.iter().any(|it| it == own));
        let loaded = if it.servers.iter().any(|it| it.loaded == Some(true)) { " (loaded)" } else { "" };
        text.push_str(&format!("{} {}{loaded}\n", mark(is_own), say::clean(it.name.as_str())));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::sample;

    #[test]
    fn the_list_marks_the_model_that_is_asked() {
        let models = sample::models();
        let name = models[0].name.as_str();
        assert!(list(&models, None).starts_with("* auto"));
        assert!(list(&models, Some(name)).contains(&format!("\n* {name}")), "{}", list(&models, Some(name)));
        assert!(names(&models).iter().any(|it| it == name));
    }
}
