//! A metric over runs: mean and standard deviation (n − 1).

use serde::Serialize;

/// Values of runs, and how they are spread.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Spread {
    /// Their mean; `None` where it is undefined in any.
    pub mean: Option<f64>,
    /// Their standard deviation, with n − 1.
    pub sd: Option<f64>,
    /// Runs.
    pub n: usize,
    /// Each run's.
    pub values: Vec<Option<f64>>,
    /// Why there is no mean.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl Spread {
    /// Over these values; a mean over some of the runs would be of other runs in each metric.
    ///
    /// ```
    /// use clsgen::metrics::runs::Spread;
    /// let spread = Spread::of(vec![Some(0.5), Some(0.75), Some(1.0)]);
    /// assert_eq!((spread.mean, spread.sd), (Some(0.75), Some(0.25)));
    /// assert_eq!(Spread::of(vec![Some(0.5), None]).reason.unwrap(), "undefined in 1 of 2 runs");
    /// ```
    pub fn of(values: Vec<Option<f64>>) -> Self {
        let n = values.len();
        let known: Vec<f64> = values.iter().flatten().copied().collect();
        if known.len() < n || n == 0 {
            let reason = Some(format!("undefined in {} of {n} runs", n - known.len()));
            return Self { mean: None, sd: None, n, values, reason };
        }
        let mean = known.iter().sum::<f64>() / n as f64;
        let square = known.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
        let sd = (n > 1).then(|| (square / (n - 1) as f64).sqrt());
        Self { mean: Some(mean), sd, n, values, reason: None }
    }

    /// The lowest of those that are defined.
    pub fn lowest(&self) -> Option<f64> {
        self.values.iter().flatten().copied().reduce(f64::min)
    }

    /// The highest of those that are defined.
    pub fn highest(&self) -> Option<f64> {
        self.values.iter().flatten().copied().reduce(f64::max)
    }
}
