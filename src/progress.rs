//! Progress bars: drawn on a terminal, unless `--quiet`; elsewhere they only count.

use std::{
    io::IsTerminal,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar over `total` items (`None` where a stream has no known length), `done` of which were finished by an earlier
/// command and do not count for the estimate of the time left. `template` is indicatif's.
pub fn bar(quiet: bool, total: Option<usize>, done: usize, template: &str) -> ProgressBar {
    let drawn = !quiet && std::io::stderr().is_terminal();
    let target = if drawn { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let bar = ProgressBar::with_draw_target(total.map(|total| total as u64), target).with_position(done as u64);
    let bar = bar.with_elapsed(Duration::ZERO);
    bar.reset_eta();
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// The bar of what is being measured.
static MEASURED: Mutex<Option<ProgressBar>> = Mutex::new(None);

fn measured() -> MutexGuard<'static, Option<ProgressBar>> {
    MEASURED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows how many resamples are measured, until it is dropped: the metrics are pure functions, and those of a million
/// records take a minute.
#[derive(Debug)]
pub struct Measuring(ProgressBar);

/// From now on [`resampled`] counts resamples of so many `records`.
pub fn measuring(quiet: bool, records: usize) -> Measuring {
    let template = format!("{{spinner}} measuring {records} records: {{pos}} resamples, {{elapsed}}");
    let bar = bar(quiet, None, 0, &template);
    *measured() = Some(bar.clone());
    Measuring(bar)
}

impl Drop for Measuring {
    fn drop(&mut self) {
        *measured() = None;
        self.0.finish_and_clear();
    }
}

/// One more resample is measured.
pub fn resampled() {
    if let Some(bar) = &*measured() {
        bar.inc(1);
    }
}
