//! Names to addresses without the C library: a static binary cannot load its name-service modules.
//!
//! IP literals are taken as they are; names go through /etc/hosts, then the servers of /etc/resolv.conf (in a container
//! Docker's 127.0.0.11). Answers are kept for a few seconds only: a container that comes back may have another address.

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::OnceLock;
use std::time::Duration;

/// How long an answer is believed, whatever TTL it came with (Docker's is 600 s).
const KEEP: Duration = Duration::from_secs(3);
/// How long one server may take for one question.
const ASK: Duration = Duration::from_secs(1);

/// Resolves `host:port` in-process (static binaries cannot load name-service modules).
pub async fn resolve(address: &str) -> io::Result<SocketAddr> {
    if let Ok(literal) = address.parse() {
        return Ok(literal);
    }
    let bad = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address:?} is no host:port"),
        )
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    let port: u16 = port.parse().map_err(|_| bad())?;
    if host.is_empty() {
        return Err(bad());
    }
    let found = resolver()?.lookup_ip(host).await.map_err(|error| {
        io::Error::new(
            io::ErrorKind::NotFound,
            format!("resolving {host}: {error}"),
        )
    })?;
    let ip = found
        .iter()
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")))?;
    Ok(SocketAddr::new(ip, port))
}

/// This machine's own address on the way to `address`, by the routing table; nothing is sent.
pub async fn address_toward(address: &str) -> io::Result<IpAddr> {
    let target = resolve(address).await?;
    let any: SocketAddr = if target.is_ipv4() {
        ([0, 0, 0, 0], 0).into()
    } else {
        ([0u16; 8], 0).into()
    };
    let socket = tokio::net::UdpSocket::bind(any).await?;
    socket.connect(target).await?;
    Ok(socket.local_addr()?.ip())
}

fn resolver() -> io::Result<&'static TokioResolver> {
    static RESOLVER: OnceLock<Result<TokioResolver, String>> = OnceLock::new();
    RESOLVER
        .get_or_init(|| {
            // Without a readable /etc/resolv.conf there are no servers, and /etc/hosts alone answers.
            let mut builder = TokioResolver::builder_tokio().unwrap_or_else(|error| {
                tracing::warn!(%error, "/etc/resolv.conf cannot be used; names come from /etc/hosts only");
                TokioResolver::builder_with_config(ResolverConfig::default(), TokioRuntimeProvider::default())
            });
            let options = builder.options_mut();
            options.ip_strategy = LookupIpStrategy::Ipv4thenIpv6;
            options.timeout = ASK;
            options.attempts = 2;
            options.positive_max_ttl = Some(KEEP);
            options.positive_min_ttl = None;
            // A name that is not there yet belongs to a container about to start: ask again at once.
            options.negative_min_ttl = None;
            options.negative_max_ttl = Some(Duration::ZERO);
            builder.build().map_err(|error| error.to_string())
        })
        .as_ref()
        .map_err(|error| io::Error::other(format!("setting up name resolution: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literals_need_no_resolver_and_nonsense_is_refused() {
        assert_eq!(
            resolve("127.0.0.1:9876").await.unwrap(),
            ([127, 0, 0, 1], 9876).into()
        );
        assert_eq!(
            resolve("[::1]:9876").await.unwrap().to_string(),
            "[::1]:9876"
        );
        for nonsense in ["", "localhost", ":9876", "localhost:port"] {
            assert!(resolve(nonsense).await.is_err(), "{nonsense:?}");
        }
    }

    #[tokio::test]
    async fn localhost_is_known_without_a_server() {
        assert!(resolve("localhost:9876").await.unwrap().ip().is_loopback());
    }

    #[tokio::test]
    async fn the_way_to_loopback_starts_at_loopback() {
        assert!(
            address_toward("127.0.0.1:9876")
                .await
                .unwrap()
                .is_loopback()
        );
    }
}
