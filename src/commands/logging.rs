//! Messages on stderr: `warning: …`, `error: …`, plain notes. Only our own; a dependency's could quote a record.

use std::{fmt, io::IsTerminal};

use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_subscriber::{
    Layer,
    filter::Targets,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::SubscriberExt,
    registry::LookupSpan,
    util::SubscriberInitExt,
};

use crate::{
    foreign,
    parallel::{self, Collective},
};

/// Sends `tracing` events to stderr from the level the flags choose. A second call changes nothing.
///
/// Every rank would say the same: of others than rank 0 only errors are heard, unless `-v` asks for more.
pub fn start(ranks: &Collective, quiet: bool, verbose: u8) {
    let level = match (quiet, verbose) {
        (_, 0) if !ranks.is_root() => LevelFilter::ERROR,
        (true, _) => LevelFilter::WARN,
        (false, 0) => LevelFilter::INFO,
        (false, 1) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .event_format(Plain { prefix: parallel::prefix(), color })
        .with_filter(Targets::new().with_target("clsgen", level));
    let _ = tracing_subscriber::registry().with(layer).try_init();
}

/// One line an event, no time and no module: the reader is a person at a terminal.
struct Plain {
    /// What each line begins with.
    prefix: String,
    color: bool,
}

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (word, color) = match *event.metadata().level() {
            Level::ERROR => ("error: ", "\x1b[31m"),
            Level::WARN => ("warning: ", "\x1b[33m"),
            Level::INFO => ("", ""),
            Level::DEBUG => ("debug: ", "\x1b[2m"),
            Level::TRACE => ("trace: ", "\x1b[2m"),
        };
        write!(writer, "{}", self.prefix)?;
        if self.color && !color.is_empty() {
            write!(writer, "{color}{word}\x1b[0m")?;
        } else {
            write!(writer, "{word}")?;
        }
        let mut told = String::new();
        context.field_format().format_fields(Writer::new(&mut told), event)?;
        writeln!(writer, "{}", foreign::printable(&told))
    }
}
