//! One comparison of two sets of calls or probabilities, as tables and JSON hold it.

use serde::{Deserialize, Serialize};

use super::{
    Metric,
    bootstrap::{Resampler, Statistic},
    clusters::Clusters,
    significance::{mcnemar, sign_flip},
};

/// One metric's difference (second − first, model − method) and its test.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The metric by its key, such as `auroc` or `macro.f1`.
    pub metric: String,
    /// The difference, its interval, and the records it is over.
    pub difference: Metric,
    /// Two-sided p-value of no difference.
    pub p_value: Option<f64>,
    /// The test.
    pub test: String,
}

impl Comparison {
    /// A difference with its interval and p-value from [`Resampler::differences`].
    pub(super) fn of_resamples(metric: &str, (difference, p_value): (Metric, Option<f64>)) -> Self {
        Self { metric: metric.into(), difference, p_value, test: "paired bootstrap".into() }
    }

    /// Right and wrong calls: `of_record` is 1 where the minuend alone is right of a record, −1 where the subtrahend
    /// alone is. McNemar's exact test or, where records come in groups, its sign-flip over them; the interval is the
    /// bootstrap's.
    pub(super) fn of_right_calls(
        of_record: &[i64],
        clusters: &Clusters,
        resampler: &Resampler,
        resamples: usize,
    ) -> Self {
        let n = of_record.len();
        let grouped = clusters.count() < n;
        let p_value = if grouped {
            let mut of_group = vec![0; clusters.count()];
            clusters.of().iter().zip(of_record).for_each(|(&cluster, d)| of_group[cluster as usize] += d);
            sign_flip(&of_group)
        } else {
            let count = |sign: i64| of_record.iter().filter(|&&d| d == sign).count() as u64;
            mcnemar(count(1), count(-1))
        };
        let statistic = Statistic::new(n, move |weights: &[u32]| {
            let (sum, n) = of_record
                .iter()
                .zip(weights)
                .fold((0, 0), |(sum, n), (d, &w)| (sum + d * i64::from(w), n + i64::from(w)));
            if n == 0 { Err("no record") } else { Ok(sum as f64 / n as f64) }
        });
        let difference = resampler.measure(&[statistic], resamples).swap_remove(0);
        let test = if grouped { "sign-flip over groups, exact" } else { "McNemar, exact" };
        Self { metric: "accuracy".into(), difference, p_value: Some(p_value), test: test.into() }
    }
}
