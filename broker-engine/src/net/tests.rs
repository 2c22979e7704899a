//! Real sockets on ephemeral ports; every wait is for an event, bounds are made small where a test is about reaching them.

use super::*;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use rocketmq_protocol::code::response;
use rocketmq_protocol::partition::Order;
use rocketmq_protocol::{Command, ExtFields};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the test's service does with a request, by its code.
mod code {
    /// Answered with the body it came with.
    pub const ECHO: i32 = 1;
    /// Never answered.
    pub const HOLD: i32 = 2;
    /// Answered with what the peer answers to a call of ours.
    pub const CALL_BACK: i32 = 3;
    /// Answered with as many bytes as the body says.
    pub const FLOOD: i32 = 4;
}

struct Echo {
    /// How many frames each `on_frames` brought.
    batches: Mutex<Vec<usize>>,
    closed: mpsc::UnboundedSender<u64>,
}

impl Service for Echo {
    fn begin(self: Arc<Self>) -> Box<dyn Round> {
        Box::new(Echoing(self))
    }
    fn on_close(&self, connection: &Connection) {
        let _ = self.closed.send(connection.id());
    }
}

struct Echoing(Arc<Echo>);

impl Round for Echoing {
    fn on_frames(&mut self, connection: &Connection, frames: &mut Vec<Frame>) {
        self.0.batches.lock().push(frames.len());
        for frame in frames.drain(..) {
            let request = frame.decode().unwrap();
            match request.code {
                code::ECHO => {
                    connection.reply(&request.response(0).with_body(request.body.clone()))
                }
                code::CALL_BACK => {
                    let connection = connection.clone();
                    tokio::spawn(async move {
                        let answer = connection
                            .call(Command::request(77, ExtFields::new()), PATIENCE)
                            .await
                            .unwrap();
                        connection.reply(&request.response(0).with_body(answer.body));
                    });
                }
                code::FLOOD => {
                    let count: usize = std::str::from_utf8(&request.body).unwrap().parse().unwrap();
                    connection.send(Bytes::from(vec![0; count]));
                }
                _ => {}
            }
        }
    }
}

struct Server {
    address: SocketAddr,
    service: Arc<Echo>,
    closed: mpsc::UnboundedReceiver<u64>,
    stop: watch::Sender<bool>,
    serving: tokio::task::JoinHandle<()>,
}

async fn server(limits: Limits) -> Server {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (closed, closings) = mpsc::unbounded_channel();
    let service = Arc::new(Echo {
        batches: Mutex::default(),
        closed,
    });
    let (stop, stopped) = watch::channel(false);
    let serving = tokio::spawn(serve(listener, service.clone(), limits, stopped));
    Server {
        address,
        service,
        closed: closings,
        stop,
        serving,
    }
}

fn request(code: i32, body: impl Into<Bytes>) -> Command {
    Command::request(code, ExtFields::new()).with_body(body)
}

async fn answer(stream: &mut TcpStream, buffer: &mut BytesMut) -> Command {
    loop {
        if let Some(frame) = Frame::cut(buffer).unwrap() {
            return frame.decode().unwrap();
        }
        assert_ne!(
            stream.read_buf(buffer).await.unwrap(),
            0,
            "the server closed the connection"
        );
    }
}

/// Whether the server closed the connection: reads until it has.
async fn ends(stream: &mut TcpStream) {
    let mut rest = vec![0; 64 << 10];
    while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
}

#[tokio::test]
async fn a_burst_of_calls_over_one_connection_gets_each_its_own_answer() {
    let server = server(Limits::default()).await;
    let client = Client::new();
    let address = server.address.to_string();
    let calls = (0..200).map(|n| {
        let (client, address) = (client.clone(), address.clone());
        async move {
            let answer = client
                .call(&address, request(code::ECHO, format!("{n}")), PATIENCE)
                .await
                .unwrap();
            assert_eq!(answer.body, format!("{n}"));
        }
    });
    futures_util::future::join_all(calls).await;
    let batches = server.service.batches.lock().clone();
    assert_eq!(batches.iter().sum::<usize>(), 200);
    assert!(
        batches.len() < 200,
        "frames of a burst arrive together: {batches:?}"
    );
}

#[tokio::test]
async fn a_frame_cut_at_every_byte_is_answered_all_the_same() {
    let server = server(Limits::default()).await;
    let frame = request(code::ECHO, "body").to_bytes();
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = BytesMut::new();
    for cut in 1..frame.len() {
        stream.write_all(&frame[..cut]).await.unwrap();
        tokio::task::yield_now().await;
        stream.write_all(&frame[cut..]).await.unwrap();
        assert_eq!(answer(&mut stream, &mut buffer).await.body, "body");
    }
}

#[tokio::test]
async fn a_large_body_goes_there_and_back_whole() {
    let server = server(Limits::default()).await;
    let body: Bytes = (0..6_000_000u32)
        .map(|n| n as u8)
        .collect::<Vec<_>>()
        .into();
    let answer = Client::new()
        .call(
            &server.address.to_string(),
            request(code::ECHO, body.clone()),
            PATIENCE,
        )
        .await
        .unwrap();
    assert!(answer.body == body);
}

#[tokio::test]
async fn a_server_can_call_the_client_over_the_clients_own_connection() {
    let server = server(Limits::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let mut buffer = BytesMut::new();
    let mut asked = request(code::CALL_BACK, "");
    asked.opaque = 4711;
    stream.write_all(&asked.to_bytes()).await.unwrap();
    let call = answer(&mut stream, &mut buffer).await;
    assert_eq!((call.code, call.is_response()), (77, false));
    stream
        .write_all(&call.response(0).with_body("from the client").to_bytes())
        .await
        .unwrap();
    let answered = answer(&mut stream, &mut buffer).await;
    assert_eq!(
        (answered.opaque, &answered.body[..]),
        (4711, &b"from the client"[..])
    );
}

#[tokio::test]
async fn a_bad_frame_ends_its_own_connection_only() {
    let mut server = server(Limits::default()).await;
    let mut good = TcpStream::connect(server.address).await.unwrap();
    for bad in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &[0x16, 3, 1, 2, 0],
        &[0, 0, 0, 5, 9, 0, 0, 0, 0],
        &[0xFF; 8],
    ] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(bad).await.unwrap();
        ends(&mut stream).await;
        server.closed.recv().await.unwrap();
    }
    good.write_all(&request(code::ECHO, "still here").to_bytes())
        .await
        .unwrap();
    assert_eq!(
        answer(&mut good, &mut BytesMut::new()).await.body,
        "still here"
    );
}

#[tokio::test]
async fn a_connection_beyond_the_allowed_number_is_closed() {
    let server = server(Limits {
        connections: 1,
        ..Limits::default()
    })
    .await;
    let mut first = TcpStream::connect(server.address).await.unwrap();
    first
        .write_all(&request(code::ECHO, "a").to_bytes())
        .await
        .unwrap();
    assert_eq!(answer(&mut first, &mut BytesMut::new()).await.body, "a");
    let mut second = TcpStream::connect(server.address).await.unwrap();
    ends(&mut second).await;
}

#[tokio::test]
async fn half_a_frame_is_waited_for_only_so_long() {
    let server = server(Limits {
        half_frame: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream
        .write_all(&request(code::ECHO, "half").to_bytes()[..20])
        .await
        .unwrap();
    ends(&mut stream).await;
}

#[tokio::test]
async fn a_silent_connection_is_closed() {
    let server = server(Limits {
        idle: Duration::from_millis(20),
        ..Limits::default()
    })
    .await;
    ends(&mut TcpStream::connect(server.address).await.unwrap()).await;
}

#[tokio::test]
async fn a_peer_that_takes_no_answers_is_closed_before_they_fill_the_memory() {
    let mut server = server(Limits {
        unsent_bytes: 1 << 20,
        ..Limits::default()
    })
    .await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    // One answer of far more than four times the bound, larger than the sockets' buffers.
    stream
        .write_all(&request(code::FLOOD, "64000000").to_bytes())
        .await
        .unwrap();
    server.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_call_without_an_answer_times_out_and_the_next_connects_anew() {
    let mut server = server(Limits::default()).await;
    let client = Client::new();
    let address = server.address.to_string();
    let error = client
        .call(&address, request(code::HOLD, ""), Duration::from_millis(20))
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Timeout { .. }), "{error}");
    server.closed.recv().await.unwrap();
    let answer = client
        .call(&address, request(code::ECHO, "again"), PATIENCE)
        .await
        .unwrap();
    assert_eq!(answer.body, "again");
}

#[tokio::test]
async fn a_call_to_nobody_says_so() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = Client::new()
        .call(&address, request(code::ECHO, ""), PATIENCE)
        .await
        .unwrap_err();
    assert!(matches!(error, CallError::Connect { .. }), "{error}");
}

fn cut(peer: &str, address: &str, lasts_ms: Option<u64>) -> Order {
    Order::Cut {
        peer: peer.into(),
        addresses: vec![address.into()],
        lasts_ms,
    }
}

#[tokio::test]
async fn a_peer_cut_off_is_left_and_not_dialled_until_healed_while_others_are_served() {
    let (mut near, far) = (
        server(Limits::default()).await,
        server(Limits::default()).await,
    );
    let partitions = Partitions::default();
    let client = Client::within(partitions.clone());
    let (near_address, far_address) = (near.address.to_string(), far.address.to_string());
    let echo = async |address: &str| {
        let asked = client.call(address, request(code::ECHO, "hello"), PATIENCE);
        asked.await.map(|answer| answer.body)
    };
    assert_eq!(echo(&near_address).await.unwrap(), "hello");
    let held = client.call(&near_address, request(code::HOLD, ""), PATIENCE);
    let cutting = async {
        // The held request has arrived when a second one on the same connection is answered.
        echo(&near_address).await.unwrap();
        // Known by another of its names: the port decides, on this one machine.
        let name = format!("localhost:{}", near.address.port());
        partitions.apply(cut("near", &name, None)).unwrap();
    };
    let (held, ()) = tokio::join!(held, cutting);
    assert!(matches!(held, Err(CallError::Closed { .. })), "{held:?}");
    near.closed.recv().await.unwrap();
    let refused = echo(&near_address).await.unwrap_err();
    assert!(
        matches!(&refused, CallError::CutOff { peer, .. } if peer == "near"),
        "{refused}"
    );
    assert_eq!(echo(&far_address).await.unwrap(), "hello");
    partitions
        .apply(Order::Heal {
            peer: Some("near".into()),
        })
        .unwrap();
    assert_eq!(echo(&near_address).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_cut_that_lasts_heals_by_itself_and_not_the_one_that_came_after_it() {
    let partitions = Partitions::default();
    let mut changes = partitions.changes();
    let until = async |changes: &mut Changes, expected: &[&str]| {
        while partitions.peers() != expected {
            changes.next().await;
        }
    };
    partitions.apply(cut("a", "127.0.0.1:1", Some(50))).unwrap();
    partitions.apply(cut("b", "127.0.0.1:2", None)).unwrap();
    assert_eq!(partitions.peers(), ["a", "b"]);
    until(&mut changes, &["b"]).await;
    partitions.apply(cut("a", "127.0.0.1:1", Some(1))).unwrap();
    partitions.apply(cut("a", "127.0.0.1:1", None)).unwrap();
    partitions
        .apply(cut("c", "127.0.0.1:3", Some(100)))
        .unwrap();
    // The first of the two would have ended long before this one.
    until(&mut changes, &["b", "a"]).await;
    partitions.apply(Order::Heal { peer: None }).unwrap();
    assert!(partitions.peers().is_empty());
    for nonsense in [
        cut("", "127.0.0.1:1", None),
        cut("a,b", "127.0.0.1:1", None),
    ] {
        assert!(partitions.apply(nonsense).is_err());
    }
}

#[test]
fn an_order_is_taken_from_this_machine_only() {
    let (host, own): (SocketAddr, SocketAddr) = (
        ([172, 18, 0, 1], 40000).into(),
        ([172, 18, 0, 3], 10911).into(),
    );
    let loopback: SocketAddr = ([127, 0, 0, 1], 10911).into();
    let heal = Order::Heal { peer: None }.command();
    let code = |peer, local| {
        let connection = Connection::new(peer, local);
        Partitions::default().obey(&connection, &heal).code
    };
    assert_eq!(code(host, own), response::NO_PERMISSION);
    assert_eq!(
        code(([172, 18, 0, 3], 40000).into(), own),
        response::SUCCESS
    );
    assert_eq!(
        code(([127, 0, 0, 1], 40000).into(), loopback),
        response::SUCCESS
    );
    assert_eq!(
        code("[::ffff:127.0.0.1]:40000".parse().unwrap(), loopback),
        response::SUCCESS
    );
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_it() {
    let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = bind(address).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_stopping_server_writes_what_is_queued_and_ends_calls_in_flight() {
    let server = server(Limits::default()).await;
    let client = Client::new();
    let address = server.address.to_string();
    let echoed = client
        .call(&address, request(code::ECHO, "before"), PATIENCE)
        .await
        .unwrap();
    assert_eq!(echoed.body, "before");
    let held = client.call(&address, request(code::HOLD, ""), PATIENCE);
    let stop = async {
        // The held request has arrived when a second one on the same connection is answered.
        client
            .call(&address, request(code::ECHO, "after"), PATIENCE)
            .await
            .unwrap();
        server.stop.send(true).unwrap();
    };
    let (held, ()) = tokio::join!(held, stop);
    assert!(matches!(held, Err(CallError::Closed { .. })), "{held:?}");
    server.serving.await.unwrap();
}

#[tokio::test]
async fn half_frames_may_take_so_much_on_all_connections_together_and_no_more() {
    let mut server = server(Limits {
        half_bytes: 3 << 20,
        ..Limits::default()
    })
    .await;
    // Eight megabytes are announced on each of four, and one comes.
    let mut begun = (8u32 << 20).to_be_bytes().to_vec();
    begun.extend([0, 0, 0, 2]);
    begun.resize(1 << 20, b' ');
    let mut streams = vec![];
    for _ in 0..4 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // The one that is cut off may be while it still writes.
        let _ = stream.write_all(&begun).await;
        streams.push(stream);
    }
    tokio::time::timeout(PATIENCE, server.closed.recv())
        .await
        .unwrap()
        .unwrap();
    // The others go on, and what the closed one held is free again: a small frame passes.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let asked = request(code::ECHO, "still there");
    stream.write_all(&asked.to_bytes()).await.unwrap();
    let answered = answer(&mut stream, &mut BytesMut::new()).await;
    assert_eq!(answered.body, "still there");
    assert!(server.closed.try_recv().is_err(), "one was enough");
}
