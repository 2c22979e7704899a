use super::*;
use crate::Frame;
use proptest::prelude::*;

fn json(header: &str) -> Result<Command, HeaderError> {
    Command::decode(Serialize::Json, header.as_bytes(), Bytes::new())
}

#[test]
fn a_header_is_written_as_fastjson_does() {
    let mut command = Command::request(
        310,
        ExtFields::new()
            .with("a", "P")
            .with("i", "k\u{1}v\u{2}")
            .with("e", 3),
    );
    command.opaque = 9;
    command.remark = Some("say \"hi\"".into());
    let bytes = command.with_body(&b"xyz"[..]).to_bytes();
    let header = r#"{"code":310,"extFields":{"a":"P","i":"k\u0001v\u0002","e":"3"},"flag":0,"language":"RUST","opaque":9,"remark":"say \"hi\"","serializeTypeCurrentRPC":"JSON","version":479}"#;
    let len = u32::try_from(header.len()).unwrap();
    let want = [
        &(len + 7).to_be_bytes()[..],
        &len.to_be_bytes(),
        header.as_bytes(),
        b"xyz",
    ]
    .concat();
    assert_eq!(
        String::from_utf8_lossy(&bytes),
        String::from_utf8_lossy(&want)
    );
}

#[test]
fn a_header_is_read_leniently() {
    let command = json(
        r#" {"opaque":"7","unknown":[{}],"language":"GO","extFields":{"n":5,"b":true,"none":null,"s":"1","s":"2"},"code":11,"flag":2,"remark":null}"#,
    )
    .unwrap();
    let want = Command {
        code: 11,
        language: Language(9),
        version: 0,
        opaque: 7,
        flag: 2,
        ext: ExtFields::new().with("n", 5).with("b", true).with("s", 2),
        ..Command::request(0, ExtFields::new())
    };
    assert_eq!(command, want);
    // Bare control characters, as no JSON writer should send them.
    assert_eq!(
        json("{\"code\":1,\"extFields\":{\"i\":\"a\u{1}b\"}}")
            .unwrap()
            .ext
            .get("i"),
        Some("a\u{1}b")
    );
    assert_eq!(json("{}").unwrap().code, 0);
    assert_eq!(
        json(r#"{"extFields":null,"language":null}"#)
            .unwrap()
            .language,
        Language::OTHER
    );
}

#[test]
fn what_is_no_header_is_refused() {
    for bad in [
        "",
        "[]",
        "{",
        "{\"code\":\"x\"}",
        "{\"code\":99999999999}",
        "{\"extFields\":[]}",
        "\u{0}",
    ] {
        assert!(
            matches!(json(bad), Err(HeaderError::Unreadable(_))),
            "{bad}"
        );
    }
    assert_eq!(
        json(&" ".repeat(HEADER_MAX + 1)),
        Err(HeaderError::TooLong(HEADER_MAX + 1))
    );
    let many: Vec<String> = (0..=EXT_FIELDS_MAX)
        .map(|n| format!("\"f{n}\":\"\""))
        .collect();
    let many = format!("{{\"extFields\":{{{}}}}}", many.join(","));
    assert_eq!(json(&many), Err(HeaderError::TooManyFields));
}

#[test]
fn fields_are_read_as_their_types() {
    let ext = ExtFields::new()
        .with("n", 5)
        .with("e", "")
        .with("t", "TRUE")
        .with("z", "0")
        .with("x", "1x");
    assert_eq!(ext.i32("n"), Ok(5));
    assert_eq!(ext.opt_i64("e"), Ok(None));
    assert_eq!(ext.i64("e"), Err(HeaderError::Missing("e")));
    assert_eq!(ext.bool_or("t", false), Ok(true));
    assert_eq!(ext.bool_or("z", true), Ok(false));
    assert_eq!(ext.bool_or("absent", true), Ok(true));
    assert_eq!(
        ext.i32("x").unwrap_err().to_string(),
        "the header field x is \"1x\", which is not a i32"
    );
}

#[test]
fn request_codes_beyond_16_bits_survive_the_binary_form() {
    for code in [200_050, 200_051, 200_053, 200_151, 310, 11] {
        let mut request = Command::request(code, ExtFields::new());
        request.serialize = Serialize::RocketMq;
        assert_eq!(reread(&request).code, code);
    }
}

fn reread(command: &Command) -> Command {
    let mut buf = BytesMut::from(&command.to_bytes()[..]);
    let frame = Frame::cut(&mut buf).unwrap().unwrap();
    assert!(buf.is_empty());
    frame.decode().unwrap()
}

fn command() -> impl Strategy<Value = Command> {
    (
        any::<(i16, i16, i32, i32, bool)>(),
        0u8..14,
        proptest::option::of(".{1,20}"),
        proptest::collection::btree_map("[a-zA-Z_]{1,8}", ".{1,20}", 0..8),
        proptest::collection::vec(any::<u8>(), 0..50),
    )
        .prop_map(
            |((code, version, opaque, flag, binary), language, remark, ext, body)| Command {
                code: i32::from(code).abs() % 3000,
                language: Language(language),
                version: i32::from(version),
                opaque,
                flag,
                remark,
                ext: ExtFields(ext.into_iter().collect()),
                body: body.into(),
                serialize: if binary {
                    Serialize::RocketMq
                } else {
                    Serialize::Json
                },
            },
        )
}

proptest! {
    #[test]
    fn any_command_is_read_back_in_both_forms(command in command()) {
        prop_assert_eq!(reread(&command), command);
    }

    #[test]
    fn a_header_cut_at_any_byte_is_an_error(command in command()) {
        let bytes = command.to_bytes();
        let header = &bytes[FRAME_PREFIX..bytes.len() - command.body.len()];
        for n in 0..header.len() {
            prop_assert!(Command::decode(command.serialize, &header[..n], Bytes::new()).is_err(), "{}", n);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        for serialize in [Serialize::Json, Serialize::RocketMq] {
            let _ = Command::decode(serialize, &bytes, Bytes::new());
        }
    }
}
