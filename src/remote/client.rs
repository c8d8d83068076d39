//! HTTP: one request, one answer.

use std::{
    env,
    io::Read,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use ureq::{
    Agent, Proxy,
    http::{HeaderMap, Response, Uri},
    tls::{PemItem, RootCerts, TlsConfig, parse_pem},
};

use super::{Place, Trouble};
use crate::{
    config,
    error::{Error, Result},
    storage,
};

/// An answer is at most so long: log-probabilities of a long prompt take a few megabytes.
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
    pub fn new(place: &Place, remote: &config::Remote) -> Result<Self> {
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
            .proxy(proxy(&place.url)?);
        if let Some(roots) = roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self {
            agent: config.build().new_agent(),
            url: place.url.clone(),
            key: key(&remote.key_env, place)?,
            longest_wait: timeout,
        })
    }

    /// What `path` gives.
    pub fn get(&self, path: &str) -> Result<Value, Trouble> {
        let mut request = self.agent.get(format!("{}{path}", self.url));
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        self.read(request.call())
    }

    /// What `path` answers to `body`.
    pub fn post(&self, path: &str, body: &[u8]) -> Result<Value, Trouble> {
        let mut request = self.agent.post(format!("{}{path}", self.url)).content_type("application/json");
        if let Some(key) = &self.key {
            request = request.header("Authorization", key);
        }
        self.read(request.send(body))
    }

    fn read(&self, reply: Result<Response<ureq::Body>, ureq::Error>) -> Result<Value, Trouble> {
        let reply = reply.map_err(|error| trouble(&error))?;
        let status = reply.status().as_u16();
        match status {
            200..=299 => {}
            429 => return Err(Trouble::Busy(self.wait(reply.headers()))),
            408 | 500..=599 => return Err(Trouble::Failed(status, self.wait(reply.headers()))),
            _ => return Err(Trouble::Refused(status)),
        }
        let mut bytes = Vec::new();
        let mut body = reply.into_body().into_with_config().limit(u64::MAX).reader().take(MOST_BYTES + 1);
        body.read_to_end(&mut bytes).map_err(|error| match error.kind() {
            std::io::ErrorKind::TimedOut => Trouble::TimedOut,
            _ => Trouble::Lost,
        })?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(Trouble::Garbled);
        }
        serde_json::from_slice(&bytes).map_err(|_| Trouble::Garbled)
    }

    /// `Retry-After`, seconds or a date, up to the time that a request may take.
    fn wait(&self, headers: &HeaderMap) -> Option<Duration> {
        let text = headers.get("retry-after")?.to_str().ok()?.trim();
        let seconds = text.parse::<u64>().ok().map(Duration::from_secs).or_else(|| {
            let then = SystemTime::from(jiff::fmt::rfc2822::parse(text).ok()?.timestamp());
            Some(then.duration_since(SystemTime::now()).unwrap_or_default())
        });
        Some(seconds?.min(self.longest_wait))
    }
}

/// What went wrong below HTTP.
fn trouble(error: &ureq::Error) -> Trouble {
    use ureq::{Error as E, Timeout};
    match error {
        E::Timeout(Timeout::Connect | Timeout::Resolve) => Trouble::Unreachable,
        E::Timeout(_) => Trouble::TimedOut,
        E::HostNotFound | E::ConnectionFailed | E::ConnectProxyFailed(_) => Trouble::Unreachable,
        E::Io(error) => match error.kind() {
            std::io::ErrorKind::ConnectionRefused
            | std::io::ErrorKind::HostUnreachable
            | std::io::ErrorKind::NetworkUnreachable
            | std::io::ErrorKind::AddrNotAvailable => Trouble::Unreachable,
            std::io::ErrorKind::TimedOut => Trouble::TimedOut,
            // rustls refuses a certificate by an error of the stream.
            std::io::ErrorKind::InvalidData => Trouble::Untrusted,
            _ => Trouble::Lost,
        },
        E::Tls(_) | E::Rustls(_) | E::Pem(_) | E::TlsRequired => Trouble::Untrusted,
        E::Protocol(_) | E::LargeResponseHeader(..) | E::Http(_) => Trouble::Garbled,
        _ => Trouble::Lost,
    }
}

/// The key in the variable `name`, if there is one.
fn key(name: &str, place: &Place) -> Result<Option<String>> {
    let Some(key) = env::var_os(name) else { return Ok(None) };
    let key = key.into_string().unwrap_or_default();
    let key = key.trim();
    if key.is_empty() {
        return Ok(None);
    }
    if !key.bytes().all(|byte| (0x21..0x7f).contains(&byte)) {
        return Err(Error::usage(format!("remote.key_env: the variable {name} holds no key that HTTP can carry")));
    }
    if place.url.starts_with("http://") && !is_this_machine(&place.url) {
        tracing::warn!("{}: the key in {name} goes to {} unencrypted: it is no https address", place.key, place.url);
    }
    Ok(Some(format!("Bearer {key}")))
}

/// The proxy that HF's tools and curl would take: of the environment, by the address's scheme. A warning names it; this
/// machine is never asked through one.
fn proxy(url: &str) -> Result<Option<Proxy>> {
    if is_this_machine(url) {
        return Ok(None);
    }
    let variables = if url.starts_with("https://") {
        ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]
    } else {
        ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"]
    };
    let set = |name: &&str| env::var(name).is_ok_and(|value| !value.trim().is_empty());
    let Some(name) = variables.into_iter().find(set) else { return Ok(None) };
    let wrong = || Error::usage(format!("the variable {name} names no proxy")).hint("as in http://HOST:PORT");
    let given = Proxy::new(env::var(name).unwrap_or_default().trim()).map_err(|_| wrong())?;
    let mut proxy = Proxy::builder(given.protocol()).host(given.host()).port(given.port());
    if let Some(user) = given.username() {
        proxy = proxy.username(user);
    }
    if let Some(password) = given.password() {
        proxy = proxy.password(password);
    }
    let except = env::var("NO_PROXY").or_else(|_| env::var("no_proxy")).unwrap_or_default();
    for host in except.split(',').map(str::trim).filter(|host| !host.is_empty()) {
        proxy = proxy.no_proxy(host);
    }
    let proxy = proxy.build().map_err(|_| wrong())?;
    if url.parse::<Uri>().is_ok_and(|uri| proxy.is_no_proxy(&uri)) {
        return Ok(None);
    }
    tracing::warn!(
        "{url} is asked through the proxy {}:{} of {name}; NO_PROXY would leave it out",
        proxy.host(),
        proxy.port()
    );
    Ok(Some(proxy))
}

fn is_this_machine(url: &str) -> bool {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The certificates of `SSL_CERT_FILE`, as OpenSSL and Python read it; without it Mozilla's.
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
