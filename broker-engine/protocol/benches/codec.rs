//! What the headers of one message cost: the fast way that dispatch takes, and the generic one beside it.
//!
//!     cargo bench -p rocketmq-protocol
//!     cargo bench -p rocketmq-protocol -- send_head

use bytes::{BufMut, BytesMut};
use criterion::{Criterion, criterion_group, criterion_main};
use rocketmq_protocol::hot::{Hot, PullHead, PullReply, SendHead, SendReplies, SendReply};
use rocketmq_protocol::record::{self, Record};
use rocketmq_protocol::{Frame, Serialize};
use std::hint::black_box;
use std::net::SocketAddr;

/// As the Java client sends it: short names, and control characters escaped in the properties.
const SEND: &str = r#"{"code":310,"extFields":{"a":"rmqload","b":"TopicTest","c":"TBW102","d":"4","e":"2","f":"0","g":"1700000000123","h":"0","i":"UNIQ_KEY\u00017F0000010E8C1B2844C02A6D5F330000\u0002WAIT\u0001true\u0002TAGS\u0001TagA\u0002","j":"0","k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":77,"serializeTypeCurrentRPC":"JSON","version":479}"#;
const PULL: &str = r#"{"code":11,"extFields":{"consumerGroup":"g","topic":"TopicTest","queueId":"1","queueOffset":"17","maxMsgNums":"32","sysFlag":"3","commitOffset":"12","suspendTimeoutMillis":"15000","subscription":"TagA || TagB","subVersion":"1700000000000","expressionType":"TAG","maxMsgBytes":"2147483647","lo":"false"},"flag":0,"language":"JAVA","opaque":8,"serializeTypeCurrentRPC":"JSON","version":479}"#;

fn frame(header: &str) -> Frame {
    let mut bytes = BytesMut::new();
    bytes.put_u32(header.len() as u32 + 4);
    bytes.put_u32(header.len() as u32);
    bytes.put_slice(header.as_bytes());
    Frame::cut(&mut bytes)
        .expect("its lengths are right")
        .expect("it is whole")
}

/// The same header in RocketMQ's own binary form.
fn binary(header: &str) -> Frame {
    let mut command = frame(header).decode().expect("it is a header");
    command.serialize = Serialize::RocketMq;
    Frame::cut(&mut BytesMut::from(&command.to_bytes()[..]))
        .expect("its lengths are right")
        .expect("it is whole")
}

fn headers(c: &mut Criterion) {
    let mut group = c.benchmark_group("send_head");
    for (form, frame) in [("json", frame(SEND)), ("binary", binary(SEND))] {
        group.bench_function(format!("{form}/hot"), |b| {
            b.iter(|| matches!(Hot::scan(black_box(&frame)), Some(Hot::Send(_))));
        });
        group.bench_function(format!("{form}/generic"), |b| {
            b.iter(|| {
                let command = black_box(&frame).decode().expect("it is a header");
                SendHead::from_command(&command)
                    .expect("it is a send")
                    .queue_id
            });
        });
    }
    group.finish();
    let mut group = c.benchmark_group("pull_head");
    let frame = frame(PULL);
    group.bench_function("json/hot", |b| {
        b.iter(|| matches!(Hot::scan(black_box(&frame)), Some(Hot::Pull(_))));
    });
    group.bench_function("json/generic", |b| {
        b.iter(|| {
            let command = black_box(&frame).decode().expect("it is a header");
            PullHead::from_command(&command)
                .expect("it is a pull")
                .queue_id
        });
    });
    group.finish();
}

fn replies(c: &mut Criterion) {
    let mut out = BytesMut::with_capacity(4096);
    let mut group = c.benchmark_group("reply");
    for (form, serialize) in [("json", Serialize::Json), ("binary", Serialize::RocketMq)] {
        let send = SendReply {
            opaque: 123_456,
            serialize,
            msg_id: "7F00000100002A9F0000000012345678",
            queue_id: 3,
            queue_offset: 1_234_567,
            transaction_id: Some("7F0000010E8C1B2844C02A6D5F330000"),
            recall_handle: None,
        };
        let mut replies = SendReplies::new(0, "DefaultRegion", true);
        group.bench_function(format!("send/{form}"), |b| {
            b.iter(|| {
                out.clear();
                replies.encode(black_box(&send), &mut out);
                out.len()
            });
        });
        let pull = PullReply {
            opaque: 123_456,
            serialize,
            code: 0,
            remark: Some("FOUND"),
            suggest_which_broker_id: 0,
            next_begin_offset: 1_234_599,
            min_offset: 0,
            max_offset: 2_345_678,
            topic_sys_flag: 0,
            group_sys_flag: 0,
        };
        group.bench_function(format!("pull/{form}"), |b| {
            b.iter(|| {
                out.clear();
                black_box(&pull).encode_head(32 << 10, &mut out);
                out.len()
            });
        });
    }
    group.finish();
}

fn records(c: &mut Criterion) {
    let host = SocketAddr::from(([127, 0, 0, 1], 10911));
    let mut out = BytesMut::with_capacity(64 << 10);
    let mut group = c.benchmark_group("record");
    for size in [128, 1024] {
        let body = vec![b'x'; size];
        let record = Record {
            queue_id: 1,
            flag: 0,
            queue_offset: 0,
            physical_offset: 0,
            sys_flag: 0,
            born_timestamp: 1_700_000_000_123,
            born_host: host,
            store_timestamp: 0,
            store_host: host,
            reconsume_times: 0,
            prepared_transaction_offset: 0,
            body: &body,
            topic: "TopicTest",
            properties: "UNIQ_KEY\u{1}7F0000010E8C1B2844C02A6D5F330000\u{2}WAIT\u{1}true\u{2}",
        };
        group.bench_function(format!("encode/{size}"), |b| {
            b.iter(|| {
                out.clear();
                record::encode(black_box(&record), &mut out).expect("it fits")
            });
        });
    }
    group.finish();
}

criterion_group!(benches, headers, replies, records);
criterion_main!(benches);
