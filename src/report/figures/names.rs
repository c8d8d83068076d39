//! What the classes of a figure are called.

/// Letters of a class in a legend, and in the head of a matrix.
const LEGEND: usize = 30;
const HEAD: usize = 10;

/// The two sides of a figure: class 0 and class 1 or, of more than two classes, the rest and the one that
/// `eval.positive` names.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sides<'a>(pub Option<&'a str>);

impl Sides<'_> {
    /// Side 0 or 1 in a legend.
    pub(super) fn legend(self, side: usize) -> String {
        match (self.0, side) {
            (None, _) => format!("Class {side}"),
            (Some(positive), 1) => shortened(positive, LEGEND),
            (Some(_), _) => "The rest".to_owned(),
        }
    }

    /// The same behind "is" and "called".
    pub(super) fn head(self, side: usize) -> String {
        match (self.0, side) {
            (None, _) => side.to_string(),
            (Some(positive), 1) => shortened(positive, HEAD),
            (Some(_), _) => "the rest".to_owned(),
        }
    }

    /// The same in a figure's numbers.
    pub(super) fn key(self, side: usize) -> String {
        match (self.0, side) {
            (None, _) => side.to_string(),
            (Some(positive), 1) => positive.to_owned(),
            (Some(_), _) => "rest".to_owned(),
        }
    }

    /// What the shares of a side are called there.
    pub(super) fn share(self, side: usize) -> String {
        let class = if self.0.is_none() { "class_" } else { "" };
        format!("share_of_{class}{}", self.key(side))
    }
}

/// A name of at most so many letters.
pub(super) fn shortened(name: &str, letters: usize) -> String {
    if name.chars().count() <= letters {
        return name.to_owned();
    }
    let start: String = name.chars().take(letters.saturating_sub(1)).collect();
    format!("{}…", start.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_more_than_two_classes_the_positive_one_and_the_rest_are_named() {
        let told = |sides: Sides<'_>| [0, 1].map(|side| [sides.legend(side), sides.head(side), sides.share(side)]);
        assert_eq!(told(Sides(None)), [["Class 0", "0", "share_of_class_0"], ["Class 1", "1", "share_of_class_1"]]);
        let named = told(Sides(Some("no difference")));
        assert_eq!(named[0], ["The rest", "the rest", "share_of_rest"]);
        assert_eq!(named[1], ["no difference", "no differ…", "share_of_no difference"]);
    }
}
