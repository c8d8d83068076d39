//! Progress bars: drawn on a terminal, unless `--quiet`; elsewhere they only count.

use std::{io::IsTerminal, time::Duration};

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
