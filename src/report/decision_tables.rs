//! The numbers behind the decision curve and the risk–coverage curve.

use super::table::{Table, interval, number};
use crate::metrics::{
    curves::BandedCurve,
    decision_curves::{DecisionCurves, covered},
};

/// The two tables: `decision_curve` and `risk_coverage`, of `n` records.
pub fn decision_tables(title: &str, curves: &DecisionCurves, n: usize) -> [Table; 2] {
    let columns = ["Threshold", "Net benefit, model", "95 % CI", "Net benefit, treating all", "95 % CI, treating all"];
    let mut benefit = Table::new("decision_curve", &format!("Decision curve: {title}"), &columns);
    for (k, threshold) in curves.model.x.iter().enumerate() {
        let [model, model_ci] = at(&curves.model, k);
        let [all, all_ci] = at(&curves.all, k);
        benefit.row([format!("{threshold:.2}"), model, model_ci, all, all_ci]);
    }
    benefit.note(
        "Net benefit in true positives a record, false alarms weighed by the odds of the threshold; treating no one \
        is 0. Resamples \
         keep the classes' shares, so treating all varies only where groups do. No interval where the resamples do \
         not vary.",
    );
    let mut risk =
        Table::new("risk_coverage", &format!("Risk–coverage: {title}"), &["Coverage", "Records", "Risk", "95 % CI"]);
    for (k, coverage) in curves.risk.x.iter().enumerate() {
        let [value, ci] = at(&curves.risk, k);
        risk.row([format!("{coverage:.2}"), covered(k + 1, n).to_string(), value, ci]);
    }
    risk.note(
        "Risk: share of wrong calls at 0.5 among the most confident records, those of equal confidence as if in \
        random order.",
    );
    [benefit, risk]
}

fn at(curve: &BandedCurve, k: usize) -> [String; 2] {
    [number(Some(curve.y[k])), interval(curve.band[k])]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Sample, decision_curves::decision_curves};

    #[test]
    fn a_row_a_point_each_with_its_interval() {
        let mut sample = Sample::new();
        (0..50).for_each(|i| sample.push(f64::from(i) / 50.0, i % 3 == 0 || i > 30, None, None));
        let curves = decision_curves(&sample, 300, 1).unwrap();
        let [benefit, risk] = decision_tables("t", &curves, 50);
        assert_eq!((benefit.rows.len(), risk.rows.len()), (99, 100));
        // No interval where all resamples agree.
        let told = |cell: &str| cell.contains(" to ") || cell == "–";
        assert!(benefit.rows[..20].iter().all(|row| row.len() == 5 && told(&row[2]) && row[4] == "–"));
        assert!(risk.rows.iter().all(|row| told(&row[3])));
        let intervals =
            |rows: &[Vec<String>], cell: usize| rows.iter().filter(|row| row[cell].contains(" to ")).count();
        assert!(intervals(&benefit.rows[..20], 2) >= 10 && intervals(&risk.rows, 3) >= 50);
        assert_eq!(
            (benefit.rows[19][0].as_str(), risk.rows[99][0].as_str(), risk.rows[99][1].as_str()),
            ("0.20", "1.00", "50")
        );
    }
}
