//! How much of a text can stay.

use crate::{config::Truncate, error::Result};

/// A text and the places at which it may be cut.
pub(super) struct Cuts<'a> {
    text: &'a str,
    /// Byte offsets from 0 to the text's length.
    boundaries: Vec<usize>,
    truncate: Truncate,
}

impl<'a> Cuts<'a> {
    /// `boundaries` as of [`super::TextTokenizer::boundaries`].
    pub(super) fn new(text: &'a str, boundaries: Vec<usize>, truncate: Truncate) -> Self {
        Self { text, boundaries, truncate }
    }

    /// Units between boundaries.
    fn len(&self) -> usize {
        self.boundaries.len() - 1
    }

    /// The text with `keep` of its units.
    pub(super) fn keep(&self, keep: usize) -> String {
        let (head, tail) = match self.truncate {
            Truncate::Tail => (keep, 0),
            Truncate::Head => (0, keep),
            Truncate::Middle => (keep.div_ceil(2), keep / 2),
        };
        let head = self.boundaries[head];
        let tail = self.boundaries[self.len() - tail];
        [&self.text[..head], &self.text[tail..]].concat()
    }

    /// The largest number of units, fewer than all, with which `tokens` (of the whole prompt) is at most `max`; `None`
    /// when even 0 is too many. `share` is a first guess, as a part of all.
    ///
    /// The length grows with the units, but not strictly: cut text is encoded anew, and a word that ends earlier may
    /// take a token more or less. So a bisection finds a place where the length crosses `max`, and the cuts beyond it
    /// are tried until the length is well past `max`.
    pub(super) fn longest(
        &self,
        max: usize,
        share: f64,
        tokens: impl Fn(&str) -> Result<usize>,
    ) -> Result<Option<usize>> {
        let fits = |keep: usize| -> Result<bool> { Ok(tokens(&self.keep(keep))? <= max) };
        if self.len() == 0 || !fits(0)? {
            return Ok(None);
        }
        let (mut low, mut high) = self.bracket(share, &fits)?;
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if fits(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        for keep in low + 1..self.len().min(low + BEYOND) {
            let length = tokens(&self.keep(keep))?;
            if length <= max {
                low = keep;
            } else if length > max + SLACK {
                break;
            }
        }
        Ok(Some(low))
    }

    /// Some `low < high` of which the first fits and the second does not, by doubling steps from the guess.
    fn bracket(&self, share: f64, fits: &impl Fn(usize) -> Result<bool>) -> Result<(usize, usize)> {
        // A float of a count: any guess does, it only saves steps.
        let guess = ((self.len() as f64 * share) as usize).clamp(0, self.len() - 1);
        let mut step = 1;
        if fits(guess)? {
            let mut low = guess;
            while low + step < self.len() && fits(low + step)? {
                low += step;
                step *= 2;
            }
            return Ok((low, self.len().min(low + step)));
        }
        let mut high = guess;
        while step < high && !fits(high - step)? {
            high -= step;
            step *= 2;
        }
        Ok((high.saturating_sub(step), high))
    }
}

/// Cuts that are tried beyond the crossing, at most.
const BEYOND: usize = 48;
/// Tokens by which a length must pass the window before no longer cut is tried.
const SLACK: usize = 6;

#[cfg(test)]
mod tests {
    use super::*;

    fn longest(n: usize, max: usize, share: f64, tokens: impl Fn(usize) -> usize) -> Option<usize> {
        let text = "x".repeat(n);
        Cuts::new(&text, (0..=n).collect(), Truncate::Tail).longest(max, share, |text| Ok(tokens(text.len()))).unwrap()
    }

    #[test]
    fn the_longest_cut_is_found_from_any_guess() {
        for n in [1, 2, 3, 10, 57] {
            for max in 5..5 + n {
                for share in [0.0, 0.3, 0.5, 0.99, 1.0, 7.0] {
                    assert_eq!(longest(n, max, share, |keep| keep + 5), Some(max - 5), "{n} {max} {share}");
                }
            }
        }
        assert_eq!(longest(10, 4, 0.5, |keep| keep + 5), None);
    }

    #[test]
    fn a_length_that_wavers_does_not_hide_a_longer_cut() {
        // Every third cut saves three tokens.
        let tokens = |keep: usize| keep + 5 - if keep.is_multiple_of(3) { 3 } else { 0 };
        for max in 6..40 {
            let best = (0..60).rfind(|&keep| tokens(keep) <= max);
            assert_eq!(longest(60, max, 0.4, tokens), best, "{max}");
        }
    }

    #[test]
    fn which_part_stays() {
        let keep = |truncate, n| Cuts::new("aébcd", vec![0, 1, 3, 4, 6], truncate).keep(n);
        assert_eq!(
            [keep(Truncate::Tail, 2), keep(Truncate::Head, 2), keep(Truncate::Middle, 3)],
            ["aé", "bcd", "aécd"]
        );
        assert_eq!([keep(Truncate::Tail, 0), keep(Truncate::Head, 0), keep(Truncate::Middle, 1)], ["", "", "a"]);
    }
}
