//! What the metrics of K > 2 classes are computed from: one row a record, in columns.

use crate::{
    labels::Class,
    metrics::{self, bootstrap::Resampler, clusters::Clusters},
};

/// Why there is no interval where a stratum of the resamples is a single cluster.
const ONE_GROUP: &str = "no interval: one group alone holds some rarest class";

/// A record: what the head and the text say of it, and what is true.
#[derive(Debug, Clone, Copy)]
pub struct Row<'a> {
    /// Probability of each class, (K).
    pub probabilities: &'a [f64],
    /// Gold class.
    pub label: u8,
    /// The class that the text names; `None`: unparsable.
    pub verbalized: Option<u8>,
    /// Records of one group are resampled together; a record without a group is a group of its own.
    pub group: Option<&'a str>,
}

/// Predictions of a split over K > 2 classes with their gold classes, in columns of equal length n.
#[derive(Debug, Clone)]
pub struct Sample {
    classes: usize,
    /// (n, K), row-major.
    probabilities: Vec<f64>,
    labels: Vec<u8>,
    predicted: Vec<u8>,
    verbalized: Vec<Option<u8>>,
    clusters: Clusters,
    silent: bool,
}

impl Sample {
    /// The rows in their order.
    ///
    /// # Errors
    /// Names the first row (from 1) that has not `classes` probabilities or a class of `classes` or more.
    ///
    /// ```
    /// use clsgen::metrics::multiclass::{Row, Sample};
    /// let row = |probabilities| Row { probabilities, label: 2, verbalized: Some(1), group: None };
    /// let sample = Sample::new(3, [row(&[0.2, 0.4, 0.4])].into_iter()).unwrap();
    /// assert_eq!(sample.predicted(), [1], "of equals the lowest");
    /// assert!(Sample::new(2, [row(&[0.5, 0.5])].into_iter()).is_err());
    /// ```
    pub fn new<'a>(classes: usize, rows: impl Iterator<Item = Row<'a>>) -> Result<Self, String> {
        let mut sample = Self {
            classes,
            probabilities: Vec::new(),
            labels: Vec::new(),
            predicted: Vec::new(),
            verbalized: Vec::new(),
            clusters: Clusters::default(),
            silent: false,
        };
        for (i, row) in rows.enumerate() {
            if row.probabilities.len() != classes {
                return Err(format!("row {}: {} probabilities of {classes} classes", i + 1, row.probabilities.len()));
            }
            if let Some(class) =
                [Some(row.label), row.verbalized].into_iter().flatten().find(|&c| c as usize >= classes)
            {
                return Err(format!("row {}: class {class} of {classes} classes", i + 1));
            }
            sample.probabilities.extend_from_slice(row.probabilities);
            sample.labels.push(row.label);
            sample.predicted.push(argmax(row.probabilities));
            sample.verbalized.push(row.verbalized);
            sample.clusters.push(row.group);
        }
        Ok(sample)
    }

    /// Says that no text was generated at all, so that there is no parsable rate to speak of.
    pub fn set_silent(&mut self) {
        self.silent = true;
    }

    /// Whether no text was generated at all.
    pub fn is_silent(&self) -> bool {
        self.silent
    }

    /// K.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Records, n.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no record.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Probabilities, (n, K) row-major.
    pub fn probabilities(&self) -> &[f64] {
        &self.probabilities
    }

    /// Each record's probabilities, (K).
    pub fn rows(&self) -> impl Iterator<Item = &[f64]> {
        self.probabilities.chunks_exact(self.classes.max(1))
    }

    /// Probability of `class`, (n).
    pub fn column(&self, class: u8) -> Vec<f64> {
        self.rows().map(|row| row[usize::from(class)]).collect()
    }

    /// The same records with other probabilities, (n, K) row-major: `predicted` follows them.
    #[must_use]
    pub fn with_probabilities(&self, probabilities: Vec<f64>) -> Self {
        let predicted = probabilities.chunks_exact(self.classes.max(1)).map(argmax).collect();
        Self { probabilities, predicted, ..self.clone() }
    }

    /// Gold classes.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// The most probable class; of equals the lowest.
    pub fn predicted(&self) -> &[u8] {
        &self.predicted
    }

    /// The same as answers, none of which is unparsable.
    pub fn calls(&self) -> Vec<Option<u8>> {
        self.predicted.iter().copied().map(Some).collect()
    }

    /// Verbalized classes; `None` is unparsable.
    pub fn verbalized(&self) -> &[Option<u8>] {
        &self.verbalized
    }

    /// Which records belong together.
    pub fn grouping(&self) -> &Clusters {
        &self.clusters
    }

    /// Indices of the parsable records.
    pub fn parsable(&self) -> Vec<u32> {
        (0..self.len() as u32).filter(|&i| self.verbalized[i as usize].is_some()).collect()
    }

    /// Records of each gold class, (K).
    pub fn class_counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.classes];
        self.labels.iter().for_each(|&label| counts[usize::from(label)] += 1);
        counts
    }

    /// `class` against the rest: its probability, and whether gold and text name it. All that two classes know
    /// (thresholds, decision curves, operating points) is known of it then.
    pub fn one_vs_rest(&self, class: u8) -> metrics::Sample {
        let verbalized = self.verbalized.iter().map(|label| label.map(|label| label == class)).collect();
        let labels = self.labels.iter().map(|&label| label == class).collect();
        metrics::Sample::from_columns(self.column(class), labels, verbalized, self.clusters.clone(), self.silent)
    }

    /// Resamples of the clusters, stratified by the rarest class that a cluster holds; of equally rare ones
    /// the lowest.
    pub(crate) fn resampler(&self, seed: u64) -> Resampler {
        let counts = self.class_counts();
        let rarest = |members: &[u32]| {
            let held = members.iter().map(|&i| usize::from(self.labels[i as usize]));
            held.min_by_key(|&class| (counts[class], class)).unwrap_or_default()
        };
        Resampler::stratified(&self.clusters, &vec![ONE_GROUP; self.classes], rarest, seed)
    }
}

/// The class of the highest probability; of equals the lowest.
fn argmax(row: &[f64]) -> u8 {
    Class::of_largest(row.iter().copied()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rows: &[(u8, Option<&str>)]) -> Sample {
        let row = |&(label, group)| Row { probabilities: &[0.2, 0.3, 0.5], label, verbalized: None, group };
        Sample::new(3, rows.iter().map(row)).unwrap()
    }

    #[test]
    fn a_resample_keeps_the_classes_shares() {
        let sample =
            sample(&[0, 1, 1, 2, 2, 2, 2].repeat(5).into_iter().map(|class| (class, None)).collect::<Vec<_>>());
        let resampler = sample.resampler(7);
        for resample in 0..50 {
            let mut counts = [0; 3];
            for (&label, weight) in sample.labels().iter().zip(resampler.weights(resample)) {
                counts[usize::from(label)] += weight;
            }
            assert_eq!(counts, [5, 10, 20]);
        }
    }

    #[test]
    fn a_cluster_is_drawn_among_those_of_its_rarest_class() {
        // Class 0 is the rarest: two clusters hold it, beside others; the two without it hold class 1 at the rarest.
        let groups = [("a", 0), ("a", 2), ("b", 0), ("b", 1), ("c", 1), ("c", 2), ("d", 1), ("d", 2), ("d", 2)];
        let sample = sample(&groups.map(|(group, class)| (class, Some(group))));
        let resampler = sample.resampler(7);
        for resample in 0..50 {
            let weights = resampler.weights(resample);
            assert_eq!((weights[0] + weights[2], weights[4] + weights[6]), (2, 2));
            assert!(weights[0] == weights[1] && weights[2] == weights[3] && weights[7] == weights[8]);
        }
    }

    #[test]
    fn a_row_that_does_not_fit_is_named() {
        let row = |label| Row { probabilities: &[0.5, 0.2, 0.3], label, verbalized: None, group: None };
        assert_eq!(Sample::new(3, [row(0), row(3)].into_iter()).unwrap_err(), "row 2: class 3 of 3 classes");
        assert_eq!(Sample::new(4, [row(0)].into_iter()).unwrap_err(), "row 1: 3 probabilities of 4 classes");
    }
}
