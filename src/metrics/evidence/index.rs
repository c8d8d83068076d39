//! Where words stand in a row: a suffix array over the words of all fields.
//!
//! Building it takes O(n log² n) of n words, a search O(log n) comparisons of as many words as match, however often a
//! text repeats itself.

use std::collections::HashMap;

use super::words::words;

/// A word of no field.
const UNKNOWN: u32 = u32::MAX;

/// The words of the fields, each as a number, with one of its own between two fields.
pub(super) struct Index<'a> {
    ids: HashMap<String, u32>,
    text: Vec<u32>,
    /// Of each word its field, where it begins and ends there; of what stands between fields nothing that is read.
    places: Vec<(&'a str, usize, usize)>,
    /// Begins of all suffixes, in the order of what stands there.
    suffixes: Vec<u32>,
    /// The smallest begin of each node's suffixes: leaves are the second half, node k's are 2k and 2k + 1.
    first: Vec<u32>,
}

/// Words in a row, in a field.
pub(super) struct QuotedSpan<'a> {
    pub field: &'a str,
    /// In code points.
    pub start: usize,
    pub end: usize,
}

impl<'a> Index<'a> {
    pub fn new(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut ids: HashMap<String, u32> = HashMap::new();
        let mut text = Vec::new();
        let mut places = Vec::new();
        for (number, (field, content)) in fields.into_iter().enumerate() {
            for word in words(content) {
                let next = ids.len() as u32;
                text.push(*ids.entry(word.text).or_insert(next));
                places.push((field, word.start, word.end));
            }
            // Nothing that is said has this number.
            text.push(UNKNOWN - 1 - number as u32);
            places.push((field, 0, 0));
        }
        let suffixes = sorted(&text);
        let mut first = vec![0; suffixes.len()];
        first.extend(&suffixes);
        for node in (1..suffixes.len()).rev() {
            first[node] = first[2 * node].min(first[2 * node + 1]);
        }
        Self { ids, text, places, suffixes, first }
    }

    /// The number of a word in its compared form.
    pub fn id(&self, word: &str) -> u32 {
        self.ids.get(word).copied().unwrap_or(UNKNOWN)
    }

    /// Where all of these words first stand in a row.
    pub fn place(&self, said: &[u32]) -> Option<QuotedSpan<'a>> {
        let from = self.suffixes.partition_point(|&at| self.behind(at) < said);
        let to = self.suffixes.partition_point(|&at| self.begin_of(at, said.len()) <= said);
        let begin = self.smallest(from, to)? as usize;
        let (field, start, _) = *self.places.get(begin)?;
        let (.., end) = *self.places.get(begin + said.len().checked_sub(1)?)?;
        Some(QuotedSpan { field, start, end })
    }

    /// The most of these words, from the first on, that stand in a row, if they are so many.
    pub fn longest(&self, said: &[u32], least: usize) -> Option<(usize, QuotedSpan<'a>)> {
        let at = self.suffixes.partition_point(|&at| self.behind(at) < said);
        let beside = [at.checked_sub(1), Some(at)].into_iter().flatten().filter_map(|at| self.suffixes.get(at));
        let alike = |&at: &u32| self.behind(at).iter().zip(said).take_while(|(a, b)| a == b).count();
        let length = beside.map(alike).max().filter(|&length| length >= least)?;
        Some((length, self.place(&said[..length])?))
    }

    fn behind(&self, at: u32) -> &[u32] {
        &self.text[at as usize..]
    }

    fn begin_of(&self, at: u32, length: usize) -> &[u32] {
        let behind = self.behind(at);
        &behind[..length.min(behind.len())]
    }

    /// The smallest of these suffixes.
    fn smallest(&self, from: usize, to: usize) -> Option<u32> {
        let mut low = from + self.suffixes.len();
        let mut high = to + self.suffixes.len();
        let mut smallest = None;
        let mut take =
            |node: usize| smallest = Some(smallest.map_or(self.first[node], |was: u32| was.min(self.first[node])));
        while low < high {
            if low % 2 == 1 {
                take(low);
                low += 1;
            }
            if high % 2 == 1 {
                high -= 1;
                take(high);
            }
            low /= 2;
            high /= 2;
        }
        smallest
    }
}

/// The begins of all suffixes in their order, by doubling how much of each is compared.
fn sorted(text: &[u32]) -> Vec<u32> {
    let mut suffixes: Vec<u32> = (0..text.len() as u32).collect();
    // From 1: a suffix that ends is less than one that goes on.
    let mut ranks: Vec<u32> = text.iter().map(|&id| id + 1).collect();
    let mut compared = 1;
    suffixes.sort_unstable_by_key(|&at| ranks[at as usize]);
    while compared < text.len() {
        let key = |at: u32| {
            let behind = ranks.get(at as usize + compared).copied().unwrap_or(0);
            (u64::from(ranks[at as usize]) << 32) | u64::from(behind)
        };
        suffixes.sort_unstable_by_key(|&at| key(at));
        let mut next = vec![0; ranks.len()];
        let mut rank = 0;
        let mut before = None;
        for &at in &suffixes {
            let key = key(at);
            rank += u32::from(before != Some(key));
            before = Some(key);
            next[at as usize] = rank;
        }
        ranks = next;
        if rank as usize == text.len() {
            break;
        }
        compared *= 2;
    }
    suffixes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_stretch_is_found_at_its_first_place() {
        let index = Index::new([("a", "x y z x y w"), ("b", "y w x y z q x y w")]);
        let ids = |said: &str| said.split(' ').map(|word| index.id(word)).collect::<Vec<_>>();
        let longest = |said: &str| {
            index.longest(&ids(said), 1).map(|(length, place)| (length, place.field, place.start, place.end))
        };
        assert_eq!(longest("x y w y"), Some((3, "a", 6, 11)));
        assert_eq!(longest("y z q x"), Some((4, "b", 6, 13)));
        assert_eq!(longest("w y"), Some((1, "a", 10, 11)), "not over the end of a field");
        assert_eq!(longest("v x"), None);
        assert!(index.place(&ids("y w x y z q x y w")).is_some() && index.place(&ids("w y")).is_none());
        assert!(Index::new([]).longest(&[0], 1).is_none());
    }
}
