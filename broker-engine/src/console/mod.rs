//! The web console: asks the cluster over the wire like any client. Never imports `broker`, `store` or `namesrv`.
//!
//! Read-only. `GET /` is one page with its script and style, all in the binary; it refreshes itself from:
//!
//! | path | answer |
//! |---|---|
//! | `/api/overview` | name servers, brokers by cluster, topics with their routes, groups with their lag ([`cluster::Overview`]) |
//! | `/api/topic?name=T` | queues of one topic with their offsets ([`cluster::TopicQueues`]) |
//! | `/api/group?name=G` | one group's members and its offset and lag in each queue ([`cluster::GroupDetail`]) |
//! | `/healthz` | `ok` as long as the server runs |
//!
//! A request whose `Host` is neither an address, nor `localhost`, nor a configured name is refused: a page of another
//! site must not read a cluster through a browser whose DNS it controls (DNS rebinding).

pub mod cluster;

use crate::net::Client;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cluster::Cluster;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::sync::watch;

/// How a console is set up.
#[derive(Clone, Debug)]
pub struct ConsoleOptions {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Name servers, `host:port`.
    pub namesrv: Vec<String>,
    /// Host names, besides addresses and `localhost`, that browsers may call it by.
    pub hosts: Vec<String>,
}

/// Why a console could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ConsoleError {
    /// Its port is taken or not allowed.
    #[error("the console cannot listen on {listen}: {source}")]
    Listen {
        /// The address asked for.
        listen: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// Accepting connections failed.
    #[error("the console stopped serving: {0}")]
    Serve(std::io::Error),
}

struct Console {
    cluster: Cluster,
    hosts: Vec<String>,
}

/// Serves the console until `stop` turns true.
pub async fn run(
    options: ConsoleOptions,
    mut stop: watch::Receiver<bool>,
) -> Result<(), ConsoleError> {
    let listener = tokio::net::TcpListener::bind(options.listen)
        .await
        .map_err(|source| ConsoleError::Listen {
            listen: options.listen,
            source,
        })?;
    let console = Arc::new(Console {
        cluster: Cluster::new(Client::new(), options.namesrv),
        hosts: options
            .hosts
            .iter()
            .map(|host| host.to_ascii_lowercase())
            .collect(),
    });
    axum::serve(listener, router(console))
        .with_graceful_shutdown(async move {
            // An error means that the sender is gone, which is a stop as well.
            let _ = stop.wait_for(|stopping| *stopping).await;
        })
        .await
        .map_err(ConsoleError::Serve)
}

fn router(console: Arc<Console>) -> Router {
    Router::new()
        .route(
            "/",
            get(|| {
                asset(
                    "text/html; charset=utf-8",
                    include_str!("assets/index.html"),
                )
            }),
        )
        .route(
            "/app.js",
            get(|| {
                asset(
                    "text/javascript; charset=utf-8",
                    include_str!("assets/app.js"),
                )
            }),
        )
        .route(
            "/app.css",
            get(|| asset("text/css; charset=utf-8", include_str!("assets/app.css"))),
        )
        .route(
            "/icon.svg",
            get(|| asset("image/svg+xml", include_str!("assets/icon.svg"))),
        )
        .route("/api/overview", get(overview))
        .route("/api/topic", get(topic))
        .route("/api/group", get(group))
        .route("/healthz", get(|| async { "ok" }))
        .layer(middleware::from_fn_with_state(console.clone(), guard))
        .with_state(console)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Refuses foreign host names and sets the headers that keep a browser from running anything but our own files.
async fn guard(State(console): State<Arc<Console>>, request: Request, next: Next) -> Response {
    if !host_allowed(request.headers(), &console.hosts) {
        return (
            StatusCode::FORBIDDEN,
            "This console answers to addresses, to localhost and to its configured host names only.\n\
             Call it by one of those, or add the name to the console's --host option.\n",
        )
            .into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether the request's `Host`, and its `Origin` if it has one, is an address, `localhost` or a configured name.
fn host_allowed(headers: &HeaderMap, names: &[String]) -> bool {
    let Some(host) = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
    else {
        return false;
    };
    let origin_allowed = match headers.get(header::ORIGIN) {
        None => true,
        Some(origin) => origin
            .to_str()
            .ok()
            .and_then(|origin| origin.split_once("://"))
            .is_some_and(|(_, authority)| authority == host),
    };
    origin_allowed && name_allowed(host, names)
}

fn name_allowed(authority: &str, names: &[String]) -> bool {
    let host = match authority.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => authority
            .rsplit_once(':')
            .map_or(authority, |(host, _)| host),
    }
    .to_ascii_lowercase();
    host == "localhost" || host.parse::<IpAddr>().is_ok() || names.contains(&host)
}

fn answer<T: serde::Serialize>(outcome: Result<T, cluster::AskError>) -> Response {
    match outcome {
        Ok(value) => axum::Json(value).into_response(),
        Err(error) => (
            StatusCode::BAD_GATEWAY,
            axum::Json(serde_json::json!({ "error": error.to_string() })),
        )
            .into_response(),
    }
}

#[derive(serde::Deserialize)]
struct Named {
    name: String,
}

async fn overview(State(console): State<Arc<Console>>) -> Response {
    answer(console.cluster.overview().await)
}

async fn topic(
    State(console): State<Arc<Console>>,
    Query(Named { name }): Query<Named>,
) -> Response {
    answer(console.cluster.topic(&name).await)
}

async fn group(
    State(console): State<Arc<Console>>,
    Query(Named { name }): Query<Named>,
) -> Response {
    answer(console.cluster.group(&name).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>, allowed: bool) {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let names = vec!["rmqconsole".to_string()];
        assert_eq!(
            host_allowed(&headers, &names),
            allowed,
            "host {host}, origin {origin:?}"
        );
    }

    #[test]
    fn addresses_localhost_and_configured_names_are_answered() {
        check("127.0.0.1:8181", None, true);
        check("[::1]:8181", None, true);
        check("localhost:8181", None, true);
        check("LOCALHOST", None, true);
        check("rmqconsole:8080", None, true);
        check("127.0.0.1:8181", Some("http://127.0.0.1:8181"), true);
    }

    #[test]
    fn a_foreign_name_or_origin_is_refused() {
        check("rebound.example:8181", None, false);
        check("127.0.0.1.example", None, false);
        check("127.0.0.1:8181", Some("http://evil.example"), false);
        check("127.0.0.1:8181", Some("null"), false);
        check("", None, false);
    }
}
