//! The proxy through which a server is asked, if any.

use std::{env, net::IpAddr};

use ureq::{Proxy, http::Uri};

use crate::error::{Error, Result};

/// The proxy that the environment names for the address's scheme, as curl and Python read it; a lowercase name goes
/// before an uppercase one. A warning tells of it; this machine is never asked through one.
pub(super) fn proxy(url: &str) -> Result<Option<Proxy>> {
    if is_this_machine(url) {
        return Ok(None);
    }
    let variables = if url.starts_with("https://") {
        ["https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"]
    } else {
        ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]
    };
    let Some((name, address)) = first_set(&variables) else { return Ok(None) };
    if first_set(&["no_proxy", "NO_PROXY"]).is_some_and(|(_, list)| excepts(&list, &host(url))) {
        return Ok(None);
    }
    let wrong = || Error::usage(format!("the variable {name} names no proxy")).hint("as in http://HOST:PORT");
    let proxy = Proxy::new(&address).map_err(|_| wrong())?;
    tracing::warn!(
        "{url} is asked through the proxy {}:{} of {name}; NO_PROXY with its host in it would avoid that",
        proxy.host(),
        proxy.port()
    );
    Ok(Some(proxy))
}

/// Whether a server's address is this machine's own.
pub(super) fn is_this_machine(url: &str) -> bool {
    let host = host(url);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn host(url: &str) -> String {
    let uri = url.parse::<Uri>().ok();
    let host = uri.as_ref().and_then(Uri::host).unwrap_or_default();
    host.trim_matches(['[', ']']).to_ascii_lowercase()
}

/// The first of these variables that is set to something, and to what.
fn first_set<'a>(names: &[&'a str]) -> Option<(&'a str, String)> {
    let value = |name: &&'a str| Some((*name, env::var(name).ok()?.trim().to_owned()));
    names.iter().filter_map(value).find(|(_, value)| !value.is_empty())
}

/// Whether NO_PROXY's list has this host: by `*`, by its name or one that it is below, by its address or a network of
/// it (`10.0.0.0/8`), or by what it begins with (`10.0.*`). ureq knows names alone, and none below them.
fn excepts(list: &str, host: &str) -> bool {
    list.split([',', ' ']).map(|entry| entry.trim().to_ascii_lowercase()).any(|entry| {
        // A port says nothing; an IPv6 address has colons of its own.
        let bracketed = entry.strip_prefix('[').and_then(|rest| rest.split_once(']'));
        let entry = match bracketed.or_else(|| entry.split_once(':')) {
            Some((address, _)) if bracketed.is_some() => address,
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => entry.as_str(),
        };
        let name = entry.trim_start_matches('*').trim_start_matches('.');
        match name.strip_suffix('*') {
            _ if entry == "*" => true,
            _ if name.is_empty() => false,
            Some(start) => host.starts_with(start),
            None => {
                host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')) || within(name, host)
            }
        }
    })
}

/// Whether an address is of a network, `ADDRESS/BITS`.
fn within(network: &str, host: &str) -> bool {
    let Some((base, bits)) = network.split_once('/') else { return false };
    let Ok(bits) = bits.parse::<u32>() else { return false };
    match (base.parse(), host.parse()) {
        (Ok(IpAddr::V4(base)), Ok(IpAddr::V4(host))) if bits <= 32 => {
            (base.to_bits() ^ host.to_bits()).checked_shr(32 - bits).unwrap_or(0) == 0
        }
        (Ok(IpAddr::V6(base)), Ok(IpAddr::V6(host))) if bits <= 128 => {
            (base.to_bits() ^ host.to_bits()).checked_shr(128 - bits).unwrap_or(0) == 0
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_excepts_hosts_as_curl_and_python_read_it() {
        for (list, host) in [
            ("*", "gpu.corp.local"),
            ("corp.local", "gpu.corp.local"),
            ("corp.local", "corp.local"),
            (".corp.local", "gpu.corp.local"),
            ("*.corp.local", "a.gpu.corp.local"),
            ("other, CORP.local:8000", "gpu.corp.local"),
            ("10.0.0.0/8", "10.20.30.40"),
            ("10.20.30.40", "10.20.30.40"),
            ("10.20.*", "10.20.30.40"),
            ("0.0.0.0/0", "192.0.2.1"),
            ("2001:db8::/32", "2001:db8::7"),
            ("[2001:db8::7]", "2001:db8::7"),
            ("[2001:db8::7]:8000", "2001:db8::7"),
        ] {
            assert!(excepts(list, host), "{list} {host}");
        }
        for (list, host) in [
            ("", "gpu.corp.local"),
            (",,", "gpu.corp.local"),
            ("corp.local", "gpu.notcorp.local"),
            ("p.local", "gpu.corp.local"),
            ("10.0.0.0/8", "11.0.0.1"),
            ("10.0.0.0/33", "10.0.0.1"),
            ("10.0.0.0/8", "10.corp.local"),
            ("2001:db8::/32", "2001:db9::7"),
        ] {
            assert!(!excepts(list, host), "{list} {host}");
        }
    }

    #[test]
    fn this_machine_goes_by_name_and_by_address() {
        for url in ["http://localhost:8000/v1", "http://LOCALHOST/v1", "http://127.0.0.9:1/v1", "https://[::1]:8000/v1"]
        {
            assert!(is_this_machine(url), "{url}");
        }
        assert!(!is_this_machine("http://localhost.example.org/v1") && !is_this_machine("http://10.0.0.1/v1"));
    }
}
