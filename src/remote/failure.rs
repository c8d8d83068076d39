//! Why a question was not answered.

use std::{fmt, time::Duration};

use crate::error::{Error, Result};

/// Why a question was not answered. None of them holds a word of the server's: its errors may quote the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestFailure {
    /// The server takes text alone, and would read a control token in this one.
    ControlText,
    /// No connection came about.
    Unreachable,
    /// The connection ended before the answer did.
    Lost,
    /// Too late.
    TimedOut,
    /// HTTP 429, and how long to wait.
    Busy(Option<Duration>),
    /// HTTP 5xx or 408, and how long to wait.
    Failed(u16, Option<Duration>),
    /// Not an answer: no JSON, no choice.
    Garbled,
    /// An answer to this question, but of no use: cut off by a filter, no text, counts that cannot be.
    Unusable,
    /// Another HTTP status: asking again changes nothing.
    Refused(u16),
    /// The certificate is not one that is trusted here.
    Untrusted,
    /// At an `https` address, something that is no TLS.
    NoTls,
}

impl RequestFailure {
    /// Whether asking again may help.
    pub fn may_pass(self) -> bool {
        !matches!(self, Self::ControlText | Self::Refused(_) | Self::Untrusted | Self::NoTls)
    }

    /// How long the server asks to wait.
    pub(super) fn wait(self) -> Option<Duration> {
        match self {
            Self::Busy(wait) | Self::Failed(_, wait) => wait,
            _ => None,
        }
    }

    /// Whether no question would be answered: the server is gone, or refuses us, not this question.
    pub fn is_everyones(self) -> bool {
        matches!(
            self,
            Self::Unreachable | Self::Untrusted | Self::NoTls | Self::Refused(300..=399 | 401..=405 | 407)
        )
    }

    /// Whether it says nothing of the question: the server had trouble of its own, and may answer it another time.
    pub fn is_the_servers(self) -> bool {
        matches!(self, Self::Lost | Self::TimedOut | Self::Busy(_) | Self::Failed(..) | Self::Garbled)
    }

    /// As an error about the server at `url`; `key` is the config's key that names it.
    pub fn into_error(self, key: &str, url: &str) -> Error {
        let error = Error::run(format!("{key}: the server {url} {self}"));
        match self {
            Self::Unreachable => error.hint("is it running, and is this its address? The same command goes on"),
            Self::Refused(401 | 403) => {
                error.hint("it wants a key: put it into the variable that remote.key_env names")
            }
            Self::Refused(300..=399) => error.hint("redirects are not followed: give the address it redirects to"),
            Self::Refused(404 | 405) => error.hint("the address ends in /v1, mostly: http://HOST:PORT/v1"),
            Self::Untrusted => error.hint("a certificate of your own is trusted by SSL_CERT_FILE=FILE.pem"),
            Self::NoTls => error.hint(
                "give http:// instead of https://, if the server is yours: without TLS others on the way read along",
            ),
            Self::ControlText => error.hint("a server that takes token ids (vLLM) has no such trouble"),
            _ => error.hint("what was finished is kept: the same command goes on where this one stopped"),
        }
    }

    /// The error, where no question would be answered.
    pub fn raise_if_everyones(self, key: &str, url: &str) -> Result<()> {
        if self.is_everyones() { Err(self.into_error(key, url)) } else { Ok(()) }
    }
}

impl fmt::Display for RequestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ControlText => f.write_str("takes text alone, and would read a control token in that of a record"),
            Self::Unreachable => f.write_str("cannot be reached"),
            Self::Lost => f.write_str("closed the connection before its answer was over"),
            Self::TimedOut => f.write_str("did not answer within remote.timeout_s"),
            Self::Busy(_) => f.write_str("is busy (HTTP 429)"),
            Self::Failed(status, _) => write!(f, "failed (HTTP {status})"),
            Self::Garbled | Self::Unusable => f.write_str("sent what is no answer"),
            Self::Refused(status) => write!(f, "refused (HTTP {status})"),
            Self::Untrusted => f.write_str("has a certificate that is not trusted"),
            Self::NoTls => f.write_str("does not speak TLS there"),
        }
    }
}
