//! What the names of models say, remembered for as long as these models are known.
//!
//! A name is taken apart into a dozen words. Whoever looks for the same model under another name
//! looks at all that there are, and to do that anew for ten thousand of them, for each request that
//! finds its servers full, would take longer than all the rest of it.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::identity::Known;
use crate::server::Model;

/// So many more than were alive when it was looked last: then it is looked again who is gone.
const MORE: usize = 1024;

/// Names that were read.
#[derive(Default)]
pub struct Readings(Mutex<Books>);

#[derive(Default)]
struct Books {
    /// By where the model is in memory. Whoever is here keeps that place from being another's.
    all: HashMap<usize, (Weak<Model>, Arc<Known>)>,
    alive: usize,
}

impl Readings {
    /// What is known of a model by its names and by what its server tells.
    pub(super) fn of(&self, model: &Arc<Model>) -> Arc<Known> {
        let place = Arc::as_ptr(model) as usize;
        let mut books = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = books.all.get(&place) {
            return Arc::clone(known);
        }
        if books.all.len() > 2 * books.alive + MORE {
            books.all.retain(|_, (model, _)| model.strong_count() > 0);
            books.alive = books.all.len();
        }
        let known = Arc::new(Known::of(model));
        books.all.insert(place, (Arc::downgrade(model), Arc::clone(&known)));
        known
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_model_is_read_once_and_forgotten_when_nobody_has_it_any_more() {
        let readings = Readings::default();
        let model = Arc::new(Model::named("qwen3-8b"));
        let first = readings.of(&model);
        assert!(Arc::ptr_eq(&first, &readings.of(&model)));
        assert!(!Arc::ptr_eq(&first, &readings.of(&Arc::new(Model::named("qwen3-8b")))));
        for number in 0..5 * MORE {
            let name = format!("llama-{number}b");
            let known = readings.of(&Arc::new(Model::named(name.as_str())));
            assert_eq!(*known, Known::named(&name));
        }
        assert!(readings.0.lock().unwrap().all.len() <= 2 * MORE);
        assert!(Arc::ptr_eq(&first, &readings.of(&model)));
    }
}
