//! Whether the scored records are those that thresholds and calibrators were tuned on: by what they are, not by their
//! file's name.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::{
    data::{Prediction, Record},
    labels::Class,
};

/// Dev: its predictions and, where they can be read, its records.
pub struct Dev {
    labels: HashMap<String, Option<Class>>,
    texts: HashSet<BTreeMap<String, String>>,
}

impl Dev {
    /// `records` may hold more than was predicted; those of other ids do not count.
    pub fn new(predictions: &[Prediction], records: &[Record]) -> Self {
        let labels: HashMap<String, Option<Class>> =
            predictions.iter().filter_map(|p| Some((p.id.clone()?, p.label))).collect();
        let tuned = records.iter().filter(|record| labels.contains_key(&record.id));
        let texts: HashSet<_> = tuned.map(|record| record.fields.clone()).collect();
        Self { labels, texts }
    }

    /// How many of the scored records are dev's: the same text under whatever id, or, where texts are not known,
    /// the same id with the same label (tools that number records give two splits the same ids). Some of them alone
    /// are a warning, and none where ids may be shared by chance.
    pub fn holds(&self, predictions: &[Prediction], records: Option<&[Record]>) -> usize {
        let (shared, all) = match records.filter(|_| !self.texts.is_empty()) {
            Some(records) => {
                (records.iter().filter(|record| self.texts.contains(&record.fields)).count(), records.len())
            }
            None => {
                let same = |p: &&Prediction| {
                    p.id.as_ref().and_then(|id| self.labels.get(id)).is_some_and(|label| *label == p.label)
                };
                (predictions.iter().filter(same).count(), predictions.len())
            }
        };
        // Numbered records share ids by chance, but hardly every label with them.
        let ids = predictions.iter().filter(|p| p.id.as_ref().is_some_and(|id| self.labels.contains_key(id))).count();
        let known = (records.is_some() && !self.texts.is_empty()) || (shared > 1 && shared == ids);
        if shared > 0 && shared < all && known {
            tracing::warn!(
                "{shared} of the {all} scored records are dev's too: tuned and calibrated values are in-sample for \
                these"
            );
        }
        if shared == all || known { shared } else { 0 }
    }
}
