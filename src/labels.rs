//! The classes of a task: K ≥ 2 names, and an index into them. Layer 0.
//!
//! The one place that knows how many classes there are. A task of two classes has a positive one, class 1, whose
//! probability is *the* probability; with more classes each has its own.

use std::{fmt, ops::Deref};

use serde::{Deserialize, Serialize};

/// A class of a task: its place among the task's [`Labels`], from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Class(u8);

impl Class {
    /// Class 0.
    pub const ZERO: Self = Self(0);
    /// Class 1: of two, the positive one.
    pub const ONE: Self = Self(1);

    /// The class at `index`, which the caller knows to be one of a task's.
    pub fn new(index: usize) -> Option<Self> {
        u8::try_from(index).ok().map(Self)
    }

    /// Its place among the labels.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Of two classes, the one that class 1's probability calls: class 1 from 0.5 on.
    pub fn of_probability(probability: f64) -> Self {
        if probability >= 0.5 { Self::ONE } else { Self::ZERO }
    }

    /// The class of the largest score, the lowest of those that share it; class 0 of no scores.
    pub fn of_largest(scores: impl IntoIterator<Item = f64>) -> Self {
        let largest = |best: (usize, f64), (index, score): (usize, f64)| {
            if score > best.1 { (index, score) } else { best }
        };
        let (index, _) = scores.into_iter().enumerate().fold((0, f64::NEG_INFINITY), largest);
        Self::new(index).unwrap_or_default()
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<Class> for u8 {
    fn from(class: Class) -> Self {
        class.0
    }
}

/// What a task calls its classes, as a model writes them: at least two names, each one line, no two alike.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Labels(Vec<String>);

/// More classes than this no head is asked for.
pub const MOST: usize = 100;

impl Labels {
    /// The labels of class 0, class 1, …; or what is wrong with them.
    pub fn new(names: Vec<String>) -> Result<Self, String> {
        if !(2..=MOST).contains(&names.len()) {
            return Err(format!("holds {} labels: a task has from 2 to {MOST} classes", names.len()));
        }
        for (k, name) in names.iter().enumerate() {
            // A verdict line is compared after trimming: outer blanks or a line break could never be found.
            if name.is_empty() || name.trim() != name || name.contains(['\n', '\r']) {
                return Err(format!("holds {name:?}: a label is one line, not empty, without blanks around it"));
            }
            if names[..k].contains(name) {
                let who = if names.len() == 2 { "the two classes need" } else { "classes need" };
                return Err(format!("holds {name:?} twice: {who} different labels"));
            }
        }
        Ok(Self(names))
    }

    /// The two labels of a task of two classes.
    pub fn two(zero: &str, one: &str) -> Self {
        Self(vec![zero.to_owned(), one.to_owned()])
    }

    /// Number of classes, K.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether there are two classes, of which class 1 is the positive one.
    pub fn are_two(&self) -> bool {
        self.0.len() == 2
    }

    /// Every class, in order.
    pub fn classes(&self) -> impl DoubleEndedIterator<Item = Class> + ExactSizeIterator + use<> {
        // At most `MOST` names, so every index fits.
        (0..self.0.len() as u8).map(Class)
    }

    /// The class at `index`, if the task has so many.
    pub fn class(&self, index: usize) -> Option<Class> {
        (index < self.0.len()).then(|| Class::new(index)).flatten()
    }

    /// The class of this name.
    pub fn named(&self, name: &str) -> Option<Class> {
        self.0.iter().position(|label| label == name).and_then(Class::new)
    }

    /// The name of a class; none for a class of another task.
    pub fn name(&self, class: Class) -> Option<&str> {
        self.0.get(class.index()).map(String::as_str)
    }
}

impl Deref for Labels {
    type Target = [String];

    fn deref(&self) -> &[String] {
        &self.0
    }
}

impl TryFrom<Vec<String>> for Labels {
    type Error = String;

    fn try_from(names: Vec<String>) -> Result<Self, String> {
        Self::new(names)
    }
}

impl From<Labels> for Vec<String> {
    fn from(labels: Labels) -> Self {
        labels.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_lines_that_tell_classes_apart() {
        let labels = |names: &[&str]| Labels::new(names.iter().map(|name| (*name).to_owned()).collect());
        for wrong in [&["one"][..], &["a", "a"], &["a", "b", "a"], &["a", ""], &["a", " b"], &["a", "b\nc"]] {
            assert!(labels(wrong).is_err(), "{wrong:?}");
        }
        let three = labels(&["decreased", "no difference", "increased"]).unwrap();
        assert_eq!((three.count(), three.are_two()), (3, false));
        assert_eq!((three.class(2), three.class(3)), (Some(Class(2)), None));
        assert_eq!((three.named("increased"), three.named("Increased")), (Some(Class(2)), None));
        assert_eq!(three.name(Class(1)), Some("no difference"));
        assert_eq!(serde_json::to_string(&three).unwrap(), r#"["decreased","no difference","increased"]"#);
        assert!(serde_json::from_str::<Labels>(r#"["a"]"#).is_err());
    }

    #[test]
    fn the_lowest_of_equal_scores_wins() {
        assert_eq!(Class::of_largest([0.2, 0.4, 0.4]), Class(1));
        assert_eq!(Class::of_largest([0.5, 0.5]), Class(0));
        assert_eq!(Class::of_largest([]), Class(0));
    }
}
