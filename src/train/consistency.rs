//! The consistency loss: head and text are pulled towards one answer.
//!
//! KL(p ‖ q), the mean over the records that have a target: p is the head's softmax, q the LM head's over the labels,
//! read teacher-forced where the verdict line names one: softmax over the first token in which the labels differ.
//! Gradients go through both.

use super::examples::Example;
use crate::{
    error::{Error, Result},
    labels::Class,
    metrics::log_softmax,
    prompt::Prompter,
};

/// The token that tells each label from the others, and where a target has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelTokens {
    /// By class.
    ids: Vec<u32>,
    /// How far from its end a target of that class has it: 1 is the last token.
    from_end: Vec<usize>,
}

impl LabelTokens {
    /// Those of the task's labels.
    ///
    /// # Errors
    /// Two labels share it, or no target names its label (exit 2): the LM's answer could not be read from one token.
    pub fn new(prompter: &Prompter) -> Result<Self> {
        let labels = prompter.labels();
        let target = |class: Class| prompter.target("x", class).map(|target| target.ids);
        let targets: Vec<Vec<u32>> = (0..labels.count()).filter_map(Class::new).map(target).collect::<Result<_>>()?;
        // No target is the beginning of another: each ends in the end token.
        let longest = targets.iter().map(Vec::len).max().unwrap_or(0);
        let place = (0..longest).find(|&i| targets.iter().any(|target| target.get(i) != targets[0].get(i)));
        let place = place.ok_or_else(|| {
            Error::usage("train.w_consistency: the prompt's response is the explanation alone, which names no label")
                .hint("leave key response out of the prompt file, or train.w_consistency out")
        })?;
        let ids: Vec<u32> = targets.iter().filter_map(|target| target.get(place).copied()).collect();
        for (k, id) in ids.iter().enumerate() {
            if let Some(first) = ids[..k].iter().position(|other| other == id) {
                return Err(Error::usage(format!(
                    "train.w_consistency: the labels {:?} and {:?} have the first token in common that tells labels \
                     apart",
                    labels[first], labels[k]
                ))
                .hint(
                    "name labels that differ at once, such as 0:alive and 1:death; or leave train.w_consistency out",
                ));
            }
        }
        let from_end = targets.iter().map(|target| target.len().saturating_sub(place)).collect();
        Ok(Self { ids, from_end })
    }

    /// Fails (exit 3) where a target does not name its class by that token: the tokenizer reads its verdict line in
    /// another way behind that explanation.
    pub fn check(&self, examples: &[Example]) -> Result<()> {
        let named = |example: &Example| self.place(&example.target, example.class).is_some();
        let bad = examples.iter().find(|example| !example.target.is_empty() && !named(example));
        bad.map_or(Ok(()), |bad| {
            let number = bad.record;
            Err(Error::data(format!("record {number}: train.w_consistency: its label has other tokens than usual"))
                .hint("end that record's explanation in a full stop, or leave train.w_consistency out"))
        })
    }

    /// Where a target of this class names it.
    fn place(&self, target: &[u32], class: u32) -> Option<usize> {
        let class = class as usize;
        let place = target.len().checked_sub(*self.from_end.get(class)?)?;
        (target.get(place) == self.ids.get(class)).then_some(place)
    }

    /// The labels' tokens, by class.
    pub(super) fn ids(&self) -> &[u32] {
        &self.ids
    }

    /// How many rows before the end of a target's logits its label is predicted, from 1; it depends on the class, since
    /// labels differ in length.
    pub(super) fn rows_from_end(&self, class: u32) -> usize {
        self.from_end[class as usize]
    }
}

/// KL of the head's distribution from the LM's over the classes, and its gradients by the logits of each.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Divergence {
    pub kl: f64,
    pub by_head: Vec<f64>,
    pub by_lm: Vec<f64>,
}

impl Divergence {
    /// `head`, `lm`: one logit a class.
    pub fn of(head: &[f32], lm: &[f32]) -> Self {
        let log_p = log_softmax(head);
        let log_q = log_softmax(lm);
        let apart: Vec<f64> = log_p.iter().zip(&log_q).map(|(p, q)| p - q).collect();
        let kl = log_p.iter().zip(&apart).map(|(p, apart)| p.exp() * apart).sum();
        Self {
            kl,
            by_head: log_p.iter().zip(&apart).map(|(p, apart)| p.exp() * (apart - kl)).collect(),
            by_lm: log_p.iter().zip(&log_q).map(|(p, q)| q.exp() - p.exp()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_the_slopes_of_the_divergence() {
        for (head, lm) in [
            (vec![0.4f32, -1.1], vec![2.5f32, 3.0]),
            (vec![0.4, -1.1, 0.3], vec![-2.5, 3.0, 9.0]),
            (vec![30.0, -30.0], vec![-5.0, 5.0]),
        ] {
            let found = Divergence::of(&head, &lm);
            assert!(found.kl >= 0.0 && found.kl.is_finite());
            let slope = |logits: &[f32], k: usize, kl: &dyn Fn(&[f32]) -> f64| {
                let at = |step: f32| {
                    let mut moved = logits.to_vec();
                    moved[k] += step;
                    kl(&moved)
                };
                (at(1.0 / 64.0) - at(-1.0 / 64.0)) * 32.0
            };
            for k in 0..head.len() {
                let by_head = slope(&head, k, &|moved| Divergence::of(moved, &lm).kl);
                let by_lm = slope(&lm, k, &|moved| Divergence::of(&head, moved).kl);
                assert!((found.by_head[k] - by_head).abs() < 1e-3, "{found:?} {by_head}");
                assert!((found.by_lm[k] - by_lm).abs() < 1e-3, "{found:?} {by_lm}");
            }
        }
        // One answer, whatever the constant: nothing to pull.
        let same = Divergence::of(&[1.0, -2.0], &[8.0, 5.0]);
        assert!(same.kl.abs() < 1e-12 && same.by_head.iter().chain(&same.by_lm).all(|slope| slope.abs() < 1e-12));
    }
}
