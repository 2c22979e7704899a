use super::*;

fn vars(topic: &[u8]) -> SendVars<'_> {
    SendVars { opaque: 70001, topic, queue: 3, born_ms: 1_700_000_000_123, uniq: 0xabc, tag: 5 }
}

fn send(ser: Serialize, batch: bool) -> Vec<u8> {
    let t = SendTemplate::new(ser, "grp", Some("broker-a"), batch, true, 4, true, 0x1122);
    let mut out = vec![];
    let (at, end) = t.put(&mut out, &vars(b"TopicX"));
    out.extend_from_slice(b"BODY");
    t.finish(&mut out, at, end);
    out
}

#[test]
fn json_send_is_valid_json_with_every_field() {
    let out = send(Serialize::Json, false);
    let (f, used) = split_frame(&out).unwrap().unwrap();
    assert_eq!(used, out.len());
    assert_eq!(f.body, b"BODY");
    let v: Value = serde_json::from_slice(f.header).unwrap();
    assert_eq!(v["code"], 310);
    assert_eq!(v["opaque"], 70001);
    let e = &v["extFields"];
    assert_eq!(e["a"], "grp");
    assert_eq!(e["b"], "TopicX");
    assert_eq!(e["e"], "3");
    assert_eq!(e["g"], "1700000000123");
    assert_eq!(e["m"], "false");
    assert_eq!(e["n"], "broker-a");
    assert_eq!(e["i"], "KEYS\u{1}k0000000000000ABC\u{2}UNIQ_KEY\u{1}00000000000011220000000000000ABC\u{2}WAIT\u{1}true\u{2}TAGS\u{1}tag1\u{2}");
}

#[test]
fn both_serializations_carry_the_same_fields() {
    let (j, r) = (send(Serialize::Json, false), send(Serialize::Rocketmq, false));
    let (fj, _) = split_frame(&j).unwrap().unwrap();
    let (fr, used) = split_frame(&r).unwrap().unwrap();
    assert_eq!(used, r.len());
    assert!(!fr.json);
    assert_eq!(fr.body, b"BODY");
    let (hj, hr) = (Header::parse(&fj).unwrap(), Header::parse(&fr).unwrap());
    assert_eq!((hr.code, hr.opaque, hr.flag), (hj.code, hj.opaque, hj.flag));
    for k in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "m", "n"] {
        let a: String = serde_json::from_slice(hj.ext_raw(k).unwrap()).unwrap();
        assert_eq!(a.as_bytes(), hr.ext_raw(k).unwrap(), "field {k}");
    }
    assert_eq!(hr.ext_num("g"), Some(1_700_000_000_123));
}

#[test]
fn batch_send_uses_its_own_code() {
    for ser in [Serialize::Json, Serialize::Rocketmq] {
        let out = send(ser, true);
        let (f, _) = split_frame(&out).unwrap().unwrap();
        assert_eq!(Header::parse(&f).unwrap().code, 320);
    }
}

#[test]
fn pull_templates_match_the_plain_encoder() {
    for ser in [Serialize::Json, Serialize::Rocketmq] {
        let t = PullTemplate::new(ser, "g1", "T", 32, 15000, true);
        let mut out = vec![];
        t.put(&mut out, 9, 7, 123456);
        let (f, used) = split_frame(&out).unwrap().unwrap();
        assert_eq!(used, out.len());
        let h = Header::parse(&f).unwrap();
        assert_eq!((h.code, h.opaque), (11, 9));
        assert_eq!(h.ext_num("queueId"), Some(7));
        assert_eq!(h.ext_num("queueOffset"), Some(123456));
        assert_eq!(h.ext_num("maxMsgNums"), Some(32));
        assert_eq!(h.ext_num("sysFlag"), Some(6));
    }
}

fn frame(h: &[u8]) -> Frame<'_> {
    Frame { json: true, header: h, body: &[] }
}

#[test]
fn parses_a_java_style_response() {
    let h = br#"{"code":0,"extFields":{"queueId":"2","TRACE_ON":"true","msgId":"7F0000010000","queueOffset":"41"},"flag":1,"language":"JAVA","opaque":65537,"serializeTypeCurrentRPC":"JSON","version":479}"#;
    let f = frame(h);
    assert_eq!(fast_success(&f), Some(65537));
    let p = Header::parse(&f).unwrap();
    assert!(p.is_response());
    assert_eq!((p.code, p.opaque), (0, 65537));
    assert_eq!(p.ext_num("queueOffset"), Some(41));
    assert_eq!(p.ext_num("absent"), None);
}

#[test]
fn parses_errors_other_orders_spaces_and_escapes() {
    let h = br#" { "opaque" : 5 , "remark":"a \"q\" {x} \u0041","flag":1, "extFields": {"queueOffset": "9"}, "code":2, "nested":[1,{"code":7}] }"#;
    let f = frame(h);
    assert_eq!(fast_success(&f), None);
    let p = Header::parse(&f).unwrap();
    assert_eq!((p.code, p.opaque, p.flag), (2, 5, 1));
    assert_eq!(p.remark(), "a \"q\" {x} A");
    assert_eq!(p.ext_num("queueOffset"), Some(9));
}

#[test]
fn fast_path_is_not_fooled_by_a_remark_or_spaces() {
    let f = frame(br#"{"code":0,"remark":"\"opaque\":99","flag":1,"opaque":     12}"#);
    assert_eq!(fast_success(&f), Some(12));
}

#[test]
fn broken_headers_are_refused() {
    for h in [&b"{"[..], b"", b"[]", b"{\"code\":0}", b"{\"code\":0,\"opaque\":1", b"{\"code\" 0}"] {
        assert!(Header::parse(&frame(h)).is_none(), "{}", String::from_utf8_lossy(h));
    }
    assert!(Header::parse(&Frame { json: false, header: &[0; 20], body: &[] }).is_none());
    let mut b = [0u8; 21];
    b[16] = 200; // a remark longer than the header
    assert!(Header::parse(&Frame { json: false, header: &b, body: &[] }).is_none());
}

#[test]
fn frames_are_split_only_when_whole() {
    let out = send(Serialize::Json, false);
    for n in 0..out.len() {
        assert!(split_frame(&out[..n]).unwrap().is_none());
    }
    assert!(split_frame(&[0, 0, 0, 2, 0, 0, 0, 9]).is_err());
    assert_eq!(frame_need(&out), out.len());
}

#[test]
fn numeric_map_keys_are_accepted() {
    let v = lenient_json(br#"{"brokerDatas":[{"brokerAddrs":{0:"127.0.0.1:10911",1 :"x, 2:"},"brokerName":"a"}]}"#).unwrap();
    assert_eq!(v["brokerDatas"][0]["brokerAddrs"]["0"], "127.0.0.1:10911");
    assert_eq!(v["brokerDatas"][0]["brokerAddrs"]["1"], "x, 2:");
}
