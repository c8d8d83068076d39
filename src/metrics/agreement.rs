//! Agreement between two sets of labels.
//!
//! Cohen's κ (*Educ. Psychol. Meas.* 20, 1960) is `1 − observed / expected` disagreement. With two classes and
//! counts a b c d it is `1 − n(b+c) / ((a+b)(b+d) + (a+c)(c+d))`: one division of integers, so equal tables give
//! equal bits. Where both raters give one and the same label throughout no disagreement is expected and κ is
//! undefined.

use super::{Outcome, classification::Confusion};

/// Cohen's κ of two raters.
///
/// ```
/// use clsgen::metrics::agreement::kappa;
/// assert_eq!(kappa(&[true, true, false, false], &[true, false, false, false]), Ok(0.5));
/// ```
pub fn kappa(first: &[bool], second: &[bool]) -> Outcome {
    Confusion::count(first.iter().zip(second).map(|(&a, &b)| (a, b, 1))).kappa()
}

/// The words of Landis and Koch for a κ (*Biometrics* 33, 1977, as the paper's §5.3.2 prints them).
///
/// ```
/// use clsgen::metrics::agreement::landis_koch;
/// assert_eq!(landis_koch(0.6187), "substantial");
/// assert_eq!(landis_koch(0.60), "moderate");
/// ```
pub fn landis_koch(kappa: f64) -> &'static str {
    // The bands are printed with two decimals (0.41–0.60, 0.61–0.80): what lies between belongs to the upper one.
    match kappa {
        k if k < 0.0 => "poor",
        k if k <= 0.20 => "slight",
        k if k <= 0.40 => "fair",
        k if k <= 0.60 => "moderate",
        k if k <= 0.80 => "substantial",
        _ => "almost perfect",
    }
}
