//! HTTP: one request, one answer.

use std::{
    env,
    io::Read,
    os::unix::ffi::OsStrExt,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use ureq::{
    Agent,
    http::{HeaderMap, Response},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{
    RemoteModel, RequestFailure,
    proxy::{is_this_machine, proxy},
};
use crate::{
    config,
    error::{Error, Result},
    storage,
};

/// Longest answer read: log-probabilities of a long prompt take a few megabytes.
const MOST_BYTES: u64 = 64 << 20;

/// Talks to one server.
pub(super) struct Client {
    agent: Agent,
    url: String,
    /// `Bearer …`; never shown.
    key: Option<String>,
    longest_wait: Duration,
}

impl Client {
    pub fn new(model: &RemoteModel, remote: &config::Remote) -> Result<Self> {
        if is_open(model) {
            tracing::warn!("{}: what prompts hold of records goes to {} unencrypted", model.key, model.url);
        }
        let timeout = Duration::from_secs(remote.timeout_s);
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(timeout))
            .timeout_connect(Some(timeout.min(Duration::from_secs(30))))
            // uvicorn, under vLLM and others, closes a connection after five idle seconds.
            .max_idle_age(Duration::from_secs(3))
            .max_idle_connections(remote.concurrency)
            .max_idle_connections_per_host(remote.concurrency)
            .user_agent(concat!("clsgen/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .proxy(proxy(&model.url)?);
        if let Some(roots) = roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            url: model.url.clone(),
            key: key(&remote.key_env, model)?,
            longest_wait: timeout,
        })
    }

    /// GETs JSON.
    pub fn get(&self, path: &str) -> Result<Value, RequestFailure> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        self.read(request.call())
    }

    /// POSTs JSON and reads JSON.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Value, RequestFailure> {
        let mut request = self.agent.post(format!("{}{path}", self.url)).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        self.read(request.send(body))
    }

    fn read(&self, reply: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, RequestFailure> {
        let reply = reply.map_err(|error| failure(&error))?;
        let status = reply.status().as_u16();
        match status {
            200..=299 => {}
            429 => return Err(RequestFailure::Busy(self.wait(reply.headers()))),
            408 | 500..=599 => return Err(RequestFailure::Failed(status, self.wait(reply.headers()))),
            _ => return Err(RequestFailure::Refused(status)),
        }
        let mut bytes = Vec::new();
        let mut body = reply.into_body().into_with_config().limit(u64::MAX).reader().take(MOST_BYTES + 1);
        body.read_to_end(&mut bytes).map_err(|error| failure(&error.into()))?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(RequestFailure::Garbled);
        }
        serde_json::from_slice(&bytes).map_err(|_| RequestFailure::Garbled)
    }

    /// `Retry-After` (seconds or a date), at most `remote.timeout_s`.
    fn wait(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get("retry-after")?.to_str().ok()?.trim();
        let seconds = text.parse::<u64>().ok().map(Duration::from_secs).or_else(|| {
            let then = SystemTime::from(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
            Some(then.duration_since(SystemTime::now()).unwrap_or_default())
        });
        Some(seconds?.min(self.longest_wait))
    }
}

/// A failure without a status.
fn failure(error: &ureq::Error) -> RequestFailure {
    use ureq::{Error as E, Timeout};
    match error {
        E::Timeout(Timeout::Connect | Timeout::Resolve) => RequestFailure::Unreachable,
        E::Timeout(_) => RequestFailure::TimedOut,
        E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) => RequestFailure::Unreachable,
        E::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::HostUnreachable
            | std::io::ErrorKind::NetworkUnreachable
            | std::io::ErrorKind::AddrNotAvailable => RequestFailure::Unreachable,
            std::io::ErrorKind::TimedOut => RequestFailure::TimedOut,
            // rustls reports a bad certificate, which it names, and what is no TLS as I/O errors.
            std::io::ErrorKind::InvalidData if error.to_string().contains("certificate") => RequestFailure::Untrusted,
            std::io::ErrorKind::InvalidData if error.to_string().contains("InvalidContentType") => {
                RequestFailure::NoTls
            }
            _ => RequestFailure::Lost,
        },
        E::Tls(_) | E::Rustls(_) | E::Pem(_) | E::TlsRequired => RequestFailure::Untrusted,
        E::Protocol(_) | E::LargeResponseHeader(..) | E::Http(_) => RequestFailure::Garbled,
        _ => RequestFailure::Lost,
    }
}

/// Whether others on the way read along.
fn is_open(model: &RemoteModel) -> bool {
    model.url.starts_with("http://") && !is_this_machine(&model.url)
}

/// The key in the variable `name`, if there is one.
fn key(name: &str, model: &RemoteModel) -> Result<Option<String>> {
    let Some(key) = env::var_os(name) else { return Ok(None) };
    let key = key.as_bytes().trim_ascii();
    if key.is_empty() {
        return Ok(None);
    }
    let printable = |key: &[u8]| key.iter().all(|byte| (0x21..0x7f).contains(byte));
    let Some(key) = std::str::from_utf8(key).ok().filter(|_| printable(key)) else {
        return Err(Error::usage(format!("remote.key_env: the variable {name} holds no key that HTTP can carry")));
    };
    if is_open(model) {
        tracing::warn!("{}: the key in {name} goes to {} unencrypted: it is no https address", model.key, model.url);
    }
    Ok(Some(format!("Bearer {key}")))
}

/// The certificates of `SSL_CERT_FILE`, as OpenSSL and Python read it; `None`: Mozilla's.
fn roots() -> Result<Option<RootCerts>> {
    let Some(path) = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else { return Ok(None) };
    let path = std::path::PathBuf::from(path);
    let pem = std::fs::read(&path)
        .map_err(|e| Error::usage(format!("SSL_CERT_FILE {}: {}", path.display(), storage::reason(&e))))?;
    let found = parse_pem(&pem).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    let found: Vec<_> = found.collect();
    if found.is_empty() {
        return Err(Error::usage(format!("SSL_CERT_FILE {}: it holds no certificate", path.display())));
    }
    Ok(Some(found.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trouble_with_a_certificate_is_told_as_that() {
        // As rustls words them.
        let told = |text: &str| failure(&std::io::Error::new(std::io::ErrorKind::InvalidData, text).into());
        assert_eq!(told("invalid peer certificate: UnknownIssuer"), RequestFailure::Untrusted);
        assert_eq!(told("peer sent no certificates"), RequestFailure::Untrusted);
        assert_eq!(told("received corrupt message of type InvalidContentType"), RequestFailure::NoTls);
        assert_eq!(told("received fatal alert: HandshakeFailure"), RequestFailure::Lost);
    }
}
