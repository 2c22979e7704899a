use super::scan::Kind;
use super::*;
use crate::Serialize;
use bytes::{BufMut, BytesMut};
use proptest::prelude::*;

fn frame(header: &[u8], kind: u8) -> Frame {
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::try_from(header.len()).unwrap() + 4);
    bytes.put_u32(u32::from(kind) << 24 | u32::try_from(header.len()).unwrap());
    bytes.put_slice(header);
    Frame::cut(&mut bytes).unwrap().unwrap()
}

fn cut(command: &Command) -> Frame {
    Frame::cut(&mut BytesMut::from(&command.to_bytes()[..]))
        .unwrap()
        .unwrap()
}

/// What the generic way makes of a header, in the scanner's terms.
fn generic(command: &Command) -> Option<Hot<'_>> {
    match Kind::of(&Head::from_command(command)) {
        Kind::SendLong | Kind::SendShort => SendHead::from_command(command).ok().map(Hot::Send),
        Kind::Pull => PullHead::from_command(command).ok().map(Hot::Pull),
        Kind::Other => Some(Hot::Other(Head::from_command(command))),
    }
}

/// The scanner reads it and finds what the generic way finds.
fn check_scanned(frame: &Frame) {
    let command = frame.decode().unwrap();
    let want = generic(&command);
    assert!(want.is_some());
    assert_eq!(Hot::scan(frame), want);
    assert_eq!(Head::scan(frame), Some(Head::from_command(&command)));
}

/// Where the scanner reads it, it finds what the generic way finds. A head alone may be read of a header whose custom fields
/// are broken.
fn check_agrees(frame: &Frame) {
    let command = frame.decode();
    match (Hot::scan(frame), &command) {
        (Some(Hot::Other(_)), Err(_)) | (None, _) => {}
        (hot, command) => assert_eq!(hot, generic(command.as_ref().unwrap())),
    }
    if let (Some(head), Ok(command)) = (Head::scan(frame), &command) {
        assert_eq!(head, Head::from_command(command));
    }
    // What an earlier send left in the room must not show.
    let mut room = b"left by an earlier and much longer property string".to_vec();
    match Hot::scan(frame) {
        Some(Hot::Send(send)) => assert_eq!(SendHead::scan(frame, &mut room), Some(send)),
        _ => assert_eq!(SendHead::scan(frame, &mut room), None),
    }
}

/// Shapes that have seen this header often enough to know it.
fn shapes_of(header: &str) -> Shapes {
    let mut shapes = Shapes::default();
    for _ in 0..2 {
        shapes.look(&mut frame(header.as_bytes(), 0));
    }
    shapes
}

/// With shapes known, a header is read as without.
fn check_like(shapes: &mut Shapes, header: &[u8]) {
    let mut looked = frame(header, 0);
    shapes.look(&mut looked);
    let fresh = frame(header, 0);
    assert_eq!(Head::scan(&looked), Head::scan(&fresh));
    assert_eq!(Hot::scan(&looked), Hot::scan(&fresh));
    check_agrees(&looked);
}

const JAVA_SEND: &str = r#"{"code":310,"extFields":{"a":"rmqload","b":"TopicTest","c":"TBW102","d":"4","e":"2","f":"0","g":"1700000000123","h":"0","i":"KEYS\u0001k1\u0002UNIQ_KEY\u00017F0000010E8C1B2844C02A6D5F330000\u0002WAIT\u0001true\u0002TAGS\u0001TagA\u0002","j":"0","k":"false","m":"false","n":"broker-a"},"flag":0,"language":"JAVA","opaque":77,"serializeTypeCurrentRPC":"JSON","version":479}"#;
const JAVA_PULL: &str = r#"{"code":11,"extFields":{"consumerGroup":"g","topic":"TopicTest","queueId":"1","queueOffset":"17","maxMsgNums":"32","sysFlag":"3","commitOffset":"12","suspendTimeoutMillis":"15000","subscription":"TagA || TagB","subVersion":"1700000000000","expressionType":"TAG","maxMsgBytes":"2147483647","lo":"false"},"flag":0,"language":"JAVA","opaque":8,"serializeTypeCurrentRPC":"JSON","version":479}"#;

#[test]
fn a_java_send_header_is_read_in_place() {
    let frame = frame(JAVA_SEND.as_bytes(), 0);
    check_scanned(&frame);
    let mut room = vec![];
    let send = SendHead::scan(&frame, &mut room).unwrap();
    assert_eq!(
        (
            &*send.topic,
            send.queue_id,
            send.born_timestamp,
            send.head.opaque
        ),
        ("TopicTest", 2, 1_700_000_000_123, 77)
    );
    assert!(send.properties.ends_with("TAGS\u{1}TagA\u{2}"));
    assert!(matches!(send.topic, Cow::Borrowed(_)));
}

#[test]
fn a_java_pull_header_is_read_in_place() {
    let frame = frame(JAVA_PULL.as_bytes(), 0);
    check_scanned(&frame);
    let pull = PullHead::scan(&frame).unwrap();
    assert_eq!(pull.clone().into_owned(), pull);
    assert_eq!(pull.subscription.as_deref(), Some("TagA || TagB"));
}

#[test]
fn fields_that_stand_before_the_code_and_spaces_are_read_too() {
    let at = JAVA_SEND.find("\"extFields\"").unwrap();
    let moved = format!(
        "{{ {} , \"code\" : 310 , \"remark\" : null }}\n",
        &JAVA_SEND[at..JAVA_SEND.len() - 1]
    );
    check_scanned(&frame(moved.as_bytes(), 0));
    let old = JAVA_PULL.replace("\"code\":11,", "\"code\":361,");
    check_scanned(&frame(old.as_bytes(), 0));
}

#[test]
fn the_binary_form_is_read_in_place_too() {
    for text in [JAVA_SEND, JAVA_PULL] {
        let mut command = frame(text.as_bytes(), 0).decode().unwrap();
        command.serialize = Serialize::RocketMq;
        check_scanned(&cut(&command));
    }
}

#[test]
fn the_long_names_of_send_message_10_are_read() {
    let ext = ExtFields::new()
        .with("producerGroup", "P")
        .with("topic", "T")
        .with("defaultTopic", "TBW102")
        .with("defaultTopicQueueNums", 4)
        .with("queueId", -1)
        .with("sysFlag", 4)
        .with("bornTimestamp", 5)
        .with("flag", 6)
        .with("properties", "a\u{1}b\u{2}")
        .with("maxReconsumeTimes", 16)
        .with("batch", true);
    check_scanned(&cut(&Command::request(10, ext)));
}

#[test]
fn a_batch_code_makes_a_batch() {
    let text = JAVA_SEND.replace("310", "320");
    let frame = frame(text.as_bytes(), 0);
    check_scanned(&frame);
    assert!(SendHead::scan(&frame, &mut vec![]).unwrap().batch);
}

#[test]
fn a_missing_or_malformed_field_is_left_to_the_generic_way_which_names_it() {
    for (from, to, what) in [
        ("\"b\":\"TopicTest\",", "", "the header lacks the field b"),
        (
            "\"e\":\"2\"",
            "\"e\":\"two\"",
            "the header field e is \"two\", which is not a i32",
        ),
        (
            "\"m\":\"false\"",
            "\"m\":\"maybe\"",
            "the header field m is \"maybe\", which is not a bool",
        ),
    ] {
        let frame = frame(JAVA_SEND.replace(from, to).as_bytes(), 0);
        assert_eq!(SendHead::scan(&frame, &mut vec![]), None);
        assert_eq!(
            SendHead::from_command(&frame.decode().unwrap())
                .unwrap_err()
                .to_string(),
            what
        );
    }
}

#[test]
fn a_field_that_comes_twice_is_left_to_the_generic_way() {
    let twice = JAVA_SEND.replace("\"e\":\"2\"", "\"e\":\"2\",\"e\":\"3\"");
    let frame_of_two = frame(twice.as_bytes(), 0);
    check_agrees(&frame_of_two);
    let command = frame_of_two.decode().unwrap();
    assert_eq!(SendHead::from_command(&command).unwrap().queue_id, 3);
    // The value that does not count has to be a text all the same.
    let broken = JAVA_SEND.replace("\"e\":\"2\"", "\"e\":\"\\q\",\"e\":\"3\"");
    let broken = frame(broken.as_bytes(), 0);
    assert_eq!(Hot::scan(&broken), None);
    assert!(broken.decode().is_err());
}

#[test]
fn a_header_cut_at_any_byte_is_not_read() {
    for text in [JAVA_SEND, JAVA_PULL] {
        for n in 0..text.len() {
            assert_eq!(Hot::scan(&frame(&text.as_bytes()[..n], 0)), None, "{n}");
        }
    }
}

#[test]
fn a_header_of_a_known_shape_is_read_by_it() {
    for (header, changes) in [
        (
            JAVA_SEND,
            [
                ("\"e\":\"2\"", "\"e\":\"3\""),
                ("0123\"", "0999\""),
                ("5F33", "0000"),
                ("\"opaque\":77", "\"opaque\":80"),
                ("TopicTest", "OtherTest"),
            ],
        ),
        (
            JAVA_PULL,
            [
                ("\"17\"", "\"49\""),
                ("\"12\"", "\"40\""),
                ("\"opaque\":8", "\"opaque\":9"),
                ("TagA ||", "TagX ||"),
                ("\"g\"", "\"h\""),
            ],
        ),
    ] {
        let mut shapes = shapes_of(header);
        assert_eq!(shapes.known(), 1);
        let mut text = header.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
            assert!(shapes.knows(text.as_bytes()), "{text}");
            check_like(&mut shapes, text.as_bytes());
        }
        // None of these is the same shape, whatever its length.
        for (from, to) in [
            ("\"opaque\"", "\"opaqua\""),
            ("\"flag\":0", "\"flag\":2"),
            ("\"code\":", "\"code\";"),
            ("TopicTest", "Topic\"est"),
            ("TopicTest", "Topic\\est"),
            ("TopicTest", "Topic\u{1}est"),
            ("TopicTest", "Topicé t"),
        ] {
            let text = header.replace(from, to);
            assert!(!shapes.knows(text.as_bytes()), "{text}");
            check_like(&mut shapes, text.as_bytes());
        }
    }
}

#[test]
fn a_number_that_is_none_is_not_read_by_a_known_shape() {
    for opaque in ["+7", "0x", "7 ", "07", "-0", "7,"] {
        let text = JAVA_SEND.replace("\"opaque\":77", &format!("\"opaque\":{opaque}"));
        check_like(&mut shapes_of(JAVA_SEND), text.as_bytes());
    }
}

#[test]
fn lengths_that_do_not_come_again_are_not_learnt() {
    let mut shapes = Shapes::default();
    for number in [7, 77, 777, 7777, 7, 77] {
        let text = JAVA_SEND.replace("\"opaque\":77", &format!("\"opaque\":{number}"));
        check_like(&mut shapes, text.as_bytes());
    }
    assert_eq!(shapes.known(), 0);
}

fn reply(serialize: Serialize) -> SendReply<'static> {
    SendReply {
        opaque: -5,
        serialize,
        msg_id: "C0A8010200002A9F0000000000010203",
        queue_id: 3,
        queue_offset: 9_007_199_254_740_993,
        transaction_id: Some("7F00\u{1}"),
        recall_handle: Some("handle"),
    }
}

#[test]
fn answers_decode_to_what_the_generic_way_would_write() {
    for serialize in [Serialize::Json, Serialize::RocketMq] {
        let mut request = Command::request(310, ExtFields::new());
        request.opaque = -5;
        request.serialize = serialize;
        let want = request
            .response(12)
            .with("MSG_REGION", "DefaultRegion")
            .with("TRACE_ON", true)
            .with("msgId", "C0A8010200002A9F0000000000010203")
            .with("queueId", 3)
            .with("queueOffset", 9_007_199_254_740_993i64)
            .with("transactionId", "7F00\u{1}")
            .with("recallHandle", "handle");
        let mut out = BytesMut::new();
        SendReplies::new(12, "DefaultRegion", true).encode(&reply(serialize), &mut out);
        assert_eq!(out, want.to_bytes());

        let want = request
            .response(0)
            .with("groupSysFlag", 2)
            .with("maxOffset", 40)
            .with("minOffset", 0)
            .with("nextBeginOffset", 34)
            .with("suggestWhichBrokerId", 0)
            .with("topicSysFlag", 1)
            .with_body(&b"records"[..]);
        let mut out = BytesMut::from(&b"before"[..]);
        let pull = PullReply {
            opaque: -5,
            serialize,
            code: 0,
            remark: None,
            suggest_which_broker_id: 0,
            next_begin_offset: 34,
            min_offset: 0,
            max_offset: 40,
            topic_sys_flag: 1,
            group_sys_flag: 2,
        };
        pull.encode_head(7, &mut out);
        out.put_slice(b"records");
        assert_eq!(out[6..], want.to_bytes());
    }
}

#[test]
fn the_answer_that_nearly_all_are_has_the_bytes_of_the_generic_way() {
    let long = "7F".repeat(40);
    for (id, region, trace_on, code, number) in [
        (
            Some("7F0000010E8C1B2844C02A6D5F330000"),
            "DefaultRegion",
            true,
            0,
            0,
        ),
        (Some("x"), "", false, 10, i64::MIN),
        (None, "DefaultRegion", false, 0, i64::MAX),
        (Some("\"quoted\""), "DefaultRegion", true, 0, 5),
        (Some(long.as_str()), "DefaultRegion", true, 11, 5),
        (Some("7F00"), "reg\\ion", true, 11, -5),
        (Some(&long[..64]), &long[..64], true, i32::MIN, i64::MIN),
    ] {
        let mut request = Command::request(310, ExtFields::new());
        request.opaque = i32::MIN;
        let mut want = request
            .response(code)
            .with("MSG_REGION", region)
            .with("TRACE_ON", trace_on)
            .with("msgId", &long[..64])
            .with("queueId", i32::MIN)
            .with("queueOffset", number);
        if let Some(id) = id {
            want = want.with("transactionId", id);
        }
        let mut out = BytesMut::from(&b"before"[..]);
        let whole = SendReply {
            opaque: i32::MIN,
            serialize: Serialize::Json,
            msg_id: &long[..64],
            queue_id: i32::MIN,
            queue_offset: number,
            transaction_id: id,
            recall_handle: None,
        };
        let mut replies = SendReplies::new(code, region, trace_on);
        // One that is longer came before, of the same batch.
        replies.encode(&whole, &mut BytesMut::new());
        let queue_id = 7;
        let shorter = SendReply {
            queue_id,
            ..whole.clone()
        };
        replies.encode(&shorter, &mut out);
        assert_eq!(out[6..], want.clone().with("queueId", queue_id).to_bytes());
        out.truncate(6);
        replies.encode(&whole, &mut out);
        assert_eq!(out[6..], want.to_bytes());
    }
}

/// Header texts that are nearly right: shuffled, with escapes, numbers as values, junk between.
fn header_text() -> impl Strategy<Value = String> {
    let name = prop_oneof![
        "[a-n]",
        "topic",
        "queueId",
        "sysFlag",
        "queueOffset",
        "consumerGroup",
        "maxMsgNums",
        "commitOffset",
        "suspendTimeoutMillis",
        "subVersion",
        "properties",
        "[a-z\\\\\"]{0,3}",
    ];
    let value = prop_oneof![
        "\"-?[0-9]{1,3}\"",
        "\"[a-zA-Z%_ é😀]{0,12}\"",
        "\"(\\\\[\"\\\\/bfnrtu]|\\\\u00[0-9a-f]{2}|\\\\ud83d|[a-z]){0,6}\"",
        "null",
        "-?[0-9]{1,3}",
        "\"(true|FALSE|1)\"",
    ];
    let code = prop_oneof![
        Just(310),
        Just(10),
        Just(11),
        Just(320),
        Just(361),
        Just(34)
    ];
    (
        code,
        proptest::collection::vec((name, value), 0..24),
        any::<u8>(),
        0usize..3,
    )
        .prop_map(|(code, fields, salt, place)| {
            let fields: Vec<String> = fields.iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
            let mut parts = vec![
                format!("\"flag\":{}", salt & 3),
                format!("\"language\":\"GO\",\"opaque\":{salt}"),
            ];
            parts.insert(place, format!("\"code\":{code}"));
            parts.insert(
                usize::from(salt) % 4,
                format!("\"extFields\":{{{}}}", fields.join(",")),
            );
            format!("{{{}}}", parts.join(","))
        })
}

proptest! {
    #[test]
    fn the_scanner_and_the_generic_way_agree_on_nearly_right_headers(text in header_text()) {
        check_agrees(&frame(text.as_bytes(), 0));
    }

    #[test]
    fn the_scanner_and_the_generic_way_agree_on_damaged_headers(
        pull: bool, binary: bool, at in any::<prop::sample::Index>(), byte: u8,
    ) {
        let mut command = frame(if pull { JAVA_PULL } else { JAVA_SEND }.as_bytes(), 0).decode().unwrap();
        command.serialize = if binary { Serialize::RocketMq } else { Serialize::Json };
        let mut header = cut(&command).header().to_vec();
        let at = at.index(header.len());
        header[at] = byte;
        check_agrees(&frame(&header, u8::from(binary)));
    }

    #[test]
    fn a_known_shape_changes_nothing_about_damaged_headers(
        pull: bool, damage in proptest::collection::vec((any::<prop::sample::Index>(), prop_oneof![any::<u8>(), 0x20u8..0x7F]), 1..4),
    ) {
        let header = if pull { JAVA_PULL } else { JAVA_SEND };
        let mut damaged = header.as_bytes().to_vec();
        for (at, byte) in damage {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        check_like(&mut shapes_of(header), &damaged);
    }

    #[test]
    fn a_known_shape_changes_nothing_about_nearly_right_headers(text in header_text(), at in any::<prop::sample::Index>(), byte in 0x20u8..0x7F) {
        let mut shapes = shapes_of(&text);
        let mut changed = text.into_bytes();
        let at = at.index(changed.len());
        changed[at] = byte;
        check_like(&mut shapes, &changed);
    }

    #[test]
    fn the_scanner_reads_any_send(
        group in ".{1,10}", topic in "[a-zA-Z%]{1,20}", properties in ".{0,40}", numbers in any::<(i32, i64, i32, bool)>(),
    ) {
        let ext = ExtFields::new()
            .with("a", group).with("b", topic).with("c", "TBW102").with("d", 8).with("e", numbers.0).with("f", numbers.2)
            .with("g", numbers.1).with("h", 0).with("i", properties).with("k", numbers.3).with("l", 16);
        let command = Command::request(310, ext);
        // In the binary form an empty text is none, which is the same for the properties.
        for serialize in [Serialize::Json, Serialize::RocketMq] {
            check_scanned(&cut(&Command { serialize, ..command.clone() }));
        }
    }
}
