use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

fn free_port() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

fn wait_up(addr: &str) {
    for _ in 0..500 {
        if std::net::TcpStream::connect(addr).is_ok() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("{addr} did not come up");
}

fn sink_args() -> sink::SinkArgs {
    let Cmd::Sink { a } = Cli::parse_from(["rmqload", "sink"]).cmd else { panic!() };
    a
}

fn run(args: &[&str]) -> (Map<String, Value>, bool) {
    let cli = Cli::parse_from([&["rmqload", "produce"], args].concat());
    let Cmd::Produce { c, s } = cli.cmd else { panic!() };
    produce(&c, s.cfg(&c, vec![c.topic.clone()])).unwrap()
}

#[test]
fn everything_sent_to_the_sink_is_acknowledged_and_stored() {
    for (ser, store, extra) in [("json", sink::Store::Mmap, "1"), ("rocketmq", sink::Store::Write, "1"), ("json", sink::Store::Write, "5")] {
        let addr = free_port();
        let file = std::env::temp_dir().join(format!("rmqload-test-{}-{ser}-{extra}", std::process::id()));
        let (a, f) = (addr.clone(), file.to_str().unwrap().to_string());
        let args = sink::SinkArgs { listen: a, file: f, store, file_mb: 4, sync: true, ..sink_args() };
        std::thread::spawn(move || sink::serve(&args));
        wait_up(&addr);
        let (m, ok) = run(&[
            "--addr",
            &addr,
            "--serialize",
            ser,
            "--count",
            "5000",
            "--size",
            "100",
            "--in-flight",
            "32",
            "--batch",
            extra,
            "--keys",
            "--tags",
            "2",
            "--offsets",
        ]);
        assert!(ok, "{m:?}");
        assert_eq!(m["acked_total"], 5000);
        assert_eq!((&m["refused"], &m["unanswered"], &m["bad_frames"]), (&json!(0), &json!(0), &json!(0)));
        assert_eq!(m["latency"]["count"].as_u64().unwrap() * extra.parse::<u64>().unwrap(), 5000);
        let stored = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        if extra == "1" {
            let mut filler = record::Filler::new(100);
            let n = stored.chunks_exact(100).take_while(|b| filler.check(b).is_ok()).count();
            assert_eq!(n, 5000);
        }
    }
}

#[test]
fn an_open_loop_keeps_its_rate() {
    let addr = free_port();
    let a = addr.clone();
    let args = sink::SinkArgs { listen: a, store: sink::Store::None, ..sink_args() };
    std::thread::spawn(move || sink::serve(&args));
    wait_up(&addr);
    let (m, ok) = run(&["--addr", &addr, "--rate", "2000", "--seconds", "1", "--size", "64"]);
    assert!(ok);
    let n = m["acked_total"].as_u64().unwrap();
    assert!((1990..=2001).contains(&n), "{n}");
}

/// A server that refuses every third request and hangs up once.
#[test]
fn refusals_are_counted_and_a_lost_connection_is_taken_up_again() {
    let l = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = l.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let mut seen = 0;
        for s in l.incoming() {
            let mut s = s.unwrap();
            let (mut buf, mut tmp) = (vec![], [0u8; 4096]);
            'conn: loop {
                let n = s.read(&mut tmp).unwrap_or(0);
                if n == 0 {
                    break;
                }
                buf.extend_from_slice(&tmp[..n]);
                while let Ok(Some((f, used))) = codec::split_frame(&buf) {
                    let o = codec::Header::parse(&f).unwrap().opaque;
                    buf.drain(..used);
                    seen += 1;
                    if seen == 10 {
                        break 'conn;
                    }
                    let (code, remark) = if seen % 3 == 0 { (2, "busy \\\"now\\\"") } else { (0, "") };
                    let h = format!("{{\"code\":{code},\"extFields\":{{\"queueOffset\":\"{seen}\"}},\"flag\":1,\"opaque\":{o},\"remark\":\"{remark}\"}}");
                    let mut out = vec![];
                    let at = codec::begin_frame(&mut out);
                    out.extend_from_slice(h.as_bytes());
                    let end = out.len();
                    codec::end_header(&mut out, at, end, 0, Serialize::Json);
                    s.write_all(&out).unwrap();
                }
            }
        }
    });
    let (m, ok) = run(&["--addr", &addr, "--connections", "1", "--in-flight", "1", "--count", "21", "--size", "64", "--reconnect"]);
    assert!(ok, "{m:?}");
    assert_eq!((&m["refused"], &m["unanswered"], &m["reconnects"], &m["acked_total"]), (&json!(7), &json!(1), &json!(1), &json!(13)));
    assert_eq!(m["errors"][0]["code"], 2);
    assert_eq!(m["errors"][0]["first_remark"], "busy \"now\"");
    let (m, ok) = run(&["--addr", "127.0.0.1:1", "--count", "5", "--size", "64"]);
    assert!(!ok && m["failed"].as_str().unwrap().contains("127.0.0.1:1"));
}

/// Both ways to answer pulls bring whole, right records: what `consume` checks on any server.
#[test]
fn ready_made_pulls_are_read_to_the_end() {
    for (pulls, ser) in [(ready::Pulls::Copy, "json"), (ready::Pulls::Sendfile, "rocketmq")] {
        let addr = free_port();
        let file = std::env::temp_dir().join(format!("rmqload-pulls-{}-{ser}", std::process::id()));
        let args = sink::SinkArgs {
            listen: addr.clone(),
            file: file.to_str().unwrap().into(),
            store: sink::Store::None,
            pulls: Some(pulls),
            pull_messages: 2000,
            pull_queues: 3,
            ..sink_args()
        };
        std::thread::spawn(move || sink::serve(&args));
        wait_up(&addr);
        let cli = Cli::parse_from(["rmqload", "fanout", "--addr", &addr, "--queues", "3", "--serialize", ser, "--groups", "2"]);
        let Cmd::Fanout { c, p, groups, connections } = cli.cmd else { panic!() };
        let names = (0..groups).map(|g| g.to_string()).collect();
        let (m, ok) = consume(&c, &p, connections, names, From::Min, None, None).unwrap();
        std::fs::remove_file(file.with_extension("pulls")).unwrap();
        assert!(ok, "{m:?}");
        // 666 in each of three queues, read twice, 32 at a time.
        assert_eq!((&m["messages"], &m["missing"], &m["pulls"]), (&json!(3996), &json!(0), &json!(126)));
        // Sends are still answered.
        let (m, ok) = run(&["--addr", &addr, "--count", "100", "--serialize", ser]);
        assert!(ok, "{m:?}");
    }
}
