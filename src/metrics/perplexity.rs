//! Perplexity of a base and of what was tuned from it, on the same texts: what tuning forgot.
//!
//! exp(Σ −log p / tokens) over all texts (Jelinek et al., *J. Acoust. Soc. Am.* 62, 1977). Intervals resample texts.

use serde::{Deserialize, Serialize};

use super::{
    Metric, Options, Outcome,
    bootstrap::{Resampler, Statistic},
    clusters::Clusters,
};

const ONE_TEXT: &str = "no interval: one text";

/// A text as both models read it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Text {
    /// Tokens that are predicted.
    pub tokens: usize,
    /// Σ −log p of them under the base.
    pub base: f64,
    /// The same under the tuned model.
    pub tuned: f64,
}

/// `perplexity` in `metrics.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Perplexity {
    /// Texts, each counted once.
    pub texts: usize,
    /// Tokens of them that are predicted.
    pub tokens: usize,
    /// Of the base model before tuning.
    pub base: Metric,
    /// Of the tuned model.
    pub tuned: Metric,
    /// The tuned model's over the base's: above 1 it forgot.
    pub ratio: Metric,
}

impl Perplexity {
    /// Every metric with its key, in the order of the tables.
    pub fn named(&self) -> [(&'static str, &Metric); 3] {
        [("base", &self.base), ("tuned", &self.tuned), ("ratio", &self.ratio)]
    }
}

/// Both perplexities and their ratio, on the same resamples of the texts.
pub fn perplexity(texts: &[Text], options: &Options) -> Perplexity {
    let mut clusters = Clusters::default();
    texts.iter().for_each(|_| clusters.push(None));
    let compute = |weights: &[u32]| -> [Outcome; 3] {
        let mut sums = [0.0; 3];
        for (text, &weight) in texts.iter().zip(weights) {
            let each = [text.tokens as f64, text.base, text.tuned];
            sums.iter_mut().zip(each).for_each(|(sum, part)| *sum += f64::from(weight) * part);
        }
        let [tokens, base, tuned] = sums;
        if tokens == 0.0 {
            return [Err("no token"); 3];
        }
        [base / tokens, tuned / tokens, (tuned - base) / tokens].map(|mean| {
            let value = mean.exp();
            if value.is_finite() { Ok(value) } else { Err("too large for a number") }
        })
    };
    let resampler = Resampler::stratified(&clusters, &[ONE_TEXT], |_| 0, options.seed);
    let statistic = Statistic::several(texts.len(), compute);
    let mut measured = resampler.measure(&[statistic], options.bootstrap).into_iter();
    let mut next = || measured.next().unwrap_or_default();
    let tokens = texts.iter().map(|text| text.tokens).sum();
    Perplexity { texts: texts.len(), tokens, base: next(), tuned: next(), ratio: next() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn perplexity_is_over_tokens_not_over_texts() {
        let texts = [Text { tokens: 1, base: 2.0, tuned: 2.0 }, Text { tokens: 3, base: 6.0, tuned: 3.0 }];
        let found = perplexity(&texts, &Options { bootstrap: 300, ..Options::default() });
        assert!((found.base.value.unwrap() - 2f64.exp()).abs() < 1e-12);
        assert!((found.tuned.value.unwrap() - 1.25f64.exp()).abs() < 1e-12);
        assert!((found.ratio.value.unwrap() - (-0.75f64).exp()).abs() < 1e-12);
        // The base finds every token equally likely, whatever the resample.
        assert_eq!((found.base.ci95, found.base.reason.is_some(), found.tokens), (None, true, 4));
        assert!(found.ratio.ci95.is_some_and(|[low, high]| low < high));
        assert_eq!(perplexity(&[], &Options::default()).base.reason.unwrap(), "no token");
        assert_eq!(perplexity(&texts[..1], &Options::default()).base.reason.unwrap(), ONE_TEXT);
    }
}
