//! What a running node says its properties are, and how it is told new ones.

use std::time::Duration;

use rocketmq_protocol::{Command, ExtFields};

use crate::client::{Peer, join};
use crate::properties;
use crate::spec::Properties;
use crate::topology::{Node, Role};

/// Request codes used here (`apache/rocketmq: remoting/.../protocol/RequestCode.java`).
const UPDATE_BROKER_CONFIG: i32 = 25;
const GET_BROKER_CONFIG: i32 = 26;
const UPDATE_NAMESRV_CONFIG: i32 = 318;
const GET_NAMESRV_CONFIG: i32 = 319;
/// Response codes (`ResponseCode.java`).
const SUCCESS: i32 = 0;
const NO_PERMISSION: i32 = 16;

/// How long a node may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a running node has not taken new values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Untold {
    /// It answered that these may not change while it runs.
    Refused(String),
    /// It was not reached, or does not like the values.
    Failed(String),
}

/// The properties that a running node works with, as it says them.
pub async fn ask(node: &Node, advertise: &str) -> Result<Properties, String> {
    let code = match node.role {
        Role::Namesrv => GET_NAMESRV_CONFIG,
        _ => GET_BROKER_CONFIG,
    };
    let answer = call(node, advertise, Command::request(code, ExtFields::new())).await?;
    if answer.code != SUCCESS {
        let remark = answer.remark.unwrap_or_default();
        return Err(format!("it answered with code {}: {remark}", answer.code));
    }
    Ok(said(&String::from_utf8_lossy(&answer.body)))
}

/// Gives a running node new values; it takes all of them or none.
pub async fn tell(node: &Node, advertise: &str, values: &Properties) -> Result<(), Untold> {
    let code = match node.role {
        Role::Namesrv => UPDATE_NAMESRV_CONFIG,
        _ => UPDATE_BROKER_CONFIG,
    };
    let body: String = values
        .iter()
        .map(|(key, value)| properties::line(key, value))
        .collect();
    let request = Command::request(code, ExtFields::new()).with_body(body);
    let answer = call(node, advertise, request)
        .await
        .map_err(Untold::Failed)?;
    let remark = answer.remark.unwrap_or_default();
    match answer.code {
        SUCCESS => Ok(()),
        NO_PERMISSION => Err(Untold::Refused(remark)),
        code => Err(Untold::Failed(format!(
            "it answered with code {code}: {remark}"
        ))),
    }
}

async fn call(node: &Node, advertise: &str, request: Command) -> Result<Command, String> {
    let port = node.port("main").or_else(|| node.port("namesrv"));
    let port = port
        .and_then(|port| port.host)
        .ok_or("it publishes no port")?;
    let address = join(advertise, port);
    let asked = async {
        let mut peer = Peer::connect(&address).await?;
        peer.call(request).await
    };
    tokio::time::timeout(ANSWER_TIMEOUT, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {ANSWER_TIMEOUT:?}")))
        .map_err(|why| format!("{address}: {why}"))
}

/// `key=value` lines as both engines write them: nothing in them is escaped.
fn said(text: &str) -> Properties {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::{Arc, Mutex};

    use bytes::BytesMut;
    use rocketmq_protocol::Frame;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::topology::Port;

    /// A node on loopback at the returned port: it keeps properties, and refuses to change those of the store.
    pub async fn listen(first: &[(&str, &str)]) -> (u16, Arc<Mutex<Properties>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let held: Arc<Mutex<Properties>> = Arc::new(Mutex::new(first.iter().map(owned).collect()));
        let kept = held.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let kept = kept.clone();
                tokio::spawn(async move {
                    let mut buffer = BytesMut::new();
                    while stream.read_buf(&mut buffer).await.is_ok_and(|n| n > 0) {
                        while let Ok(Some(frame)) = Frame::cut(&mut buffer) {
                            let answer = answer(&frame.decode().unwrap(), &kept);
                            let mut out = BytesMut::new();
                            answer.encode(&mut out);
                            stream.write_all(&out).await.unwrap();
                        }
                    }
                });
            }
        });
        (port, held)
    }

    async fn fake(first: &[(&str, &str)]) -> (Node, Arc<Mutex<Properties>>) {
        let (port, held) = listen(first).await;
        let spec = crate::spec::ClusterSpec::defaults("rmq", Default::default(), "/x".into());
        let all = crate::topology::desired(&spec, &crate::topology::Site::Network).unwrap();
        let mut node = all.nodes[1].clone();
        node.ports = vec![Port {
            purpose: "main",
            container: port,
            host: Some(port),
        }];
        (node, held)
    }

    fn answer(request: &Command, kept: &Mutex<Properties>) -> Command {
        let mut kept = kept.lock().unwrap();
        if request.code == GET_BROKER_CONFIG {
            let text: String = kept.iter().map(|(k, v)| format!("{k}={v}\n")).collect();
            return request.response(SUCCESS).with_body(text);
        }
        assert_eq!(request.code, UPDATE_BROKER_CONFIG);
        let new = properties::read(std::str::from_utf8(&request.body).unwrap()).unwrap();
        if let Some(fixed) = new.keys().find(|key| key.starts_with("store")) {
            let mut refusal = request.response(NO_PERMISSION);
            refusal.remark = Some(format!("{fixed} cannot change"));
            return refusal;
        }
        kept.extend(new);
        request.response(SUCCESS)
    }

    #[tokio::test]
    async fn a_node_says_what_it_has_and_takes_what_may_change() {
        let (node, held) = fake(&[("maxMessageSize", "4194304"), ("odd", "a=b")]).await;
        let said = ask(&node, "127.0.0.1").await.unwrap();
        assert_eq!(
            (said["maxMessageSize"].as_str(), said["odd"].as_str()),
            ("4194304", "a=b")
        );
        let new = Properties::from([("maxMessageSize".into(), "1024".into())]);
        assert_eq!(tell(&node, "127.0.0.1", &new).await, Ok(()));
        assert_eq!(held.lock().unwrap()["maxMessageSize"], "1024");
        let fixed = Properties::from([("storePathRootDir".into(), "/etc".into())]);
        assert_eq!(
            tell(&node, "127.0.0.1", &fixed).await,
            Err(Untold::Refused("storePathRootDir cannot change".into()))
        );
    }

    #[tokio::test]
    async fn a_node_that_is_away_is_named_with_its_address() {
        let (mut node, _) = fake(&[]).await;
        let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
        node.ports[0].host = Some(gone.local_addr().unwrap().port());
        let address = gone.local_addr().unwrap();
        drop(gone);
        let why = ask(&node, "127.0.0.1").await.unwrap_err();
        assert_eq!(why, format!("{address}: connection refused"));
    }
}
