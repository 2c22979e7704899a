//! Offset message ids: hex upper case of `IP | port i32 | physical offset i64` of the store host.
//! Source: `apache/rocketmq: common/.../message/MessageDecoder.java` createMessageId.

use std::net::{IpAddr, SocketAddr};

/// Both digits of every byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789ABCDEF";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

/// Appends the id (32 characters for IPv4, 56 for IPv6).
pub fn write(store_host: SocketAddr, physical_offset: i64, out: &mut String) {
    let (id, len) = encode(store_host, physical_offset);
    out.push_str(std::str::from_utf8(&id[..len]).expect("hex digits are text"));
}

/// The id's characters and how many they are.
fn encode(store_host: SocketAddr, physical_offset: i64) -> ([u8; 56], usize) {
    let mut id = [0; 56];
    let mut len = 0;
    let mut hex = |bytes: &[u8]| {
        for byte in bytes {
            id[len..len + 2].copy_from_slice(&HEX[usize::from(*byte)]);
            len += 2;
        }
    };
    match store_host.ip() {
        IpAddr::V4(ip) => hex(&ip.octets()),
        IpAddr::V6(ip) => hex(&ip.octets()),
    }
    hex(&u32::from(store_host.port()).to_be_bytes());
    hex(&physical_offset.to_be_bytes());
    (id, len)
}

/// The id as a string of its own.
pub fn format(store_host: SocketAddr, physical_offset: i64) -> String {
    let mut out = String::with_capacity(56);
    write(store_host, physical_offset, &mut out);
    out
}

/// The store host and physical offset of an id; `None` when the text is no offset message id.
/// A client's unique key has the same lengths and may parse: its "port" is then mostly out of range.
pub fn parse(id: &str) -> Option<(SocketAddr, i64)> {
    let mut bytes = [0u8; 28];
    let len = id.len() / 2;
    if id.len() != 32 && id.len() != 56 {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(id.as_bytes().chunks_exact(2)) {
        let digit = |b: u8| char::from(b).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()?;
    }
    let (ip, rest): (IpAddr, &[u8]) = if len == 16 {
        (<[u8; 4]>::try_from(&bytes[..4]).ok()?.into(), &bytes[4..16])
    } else {
        (
            <[u8; 16]>::try_from(&bytes[..16]).ok()?.into(),
            &bytes[16..28],
        )
    };
    let port = u32::from_be_bytes(rest[..4].try_into().ok()?);
    let offset = i64::from_be_bytes(rest[4..].try_into().ok()?);
    Some((SocketAddr::new(ip, u16::try_from(port).ok()?), offset))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_and_read_back() {
        for (host, offset, id) in [
            (
                "192.168.1.2:10911",
                66_051,
                "C0A8010200002A9F0000000000010203",
            ),
            (
                "[::1]:10911",
                7,
                "0000000000000000000000000000000100002A9F0000000000000007",
            ),
        ] {
            let host: SocketAddr = host.parse().unwrap();
            assert_eq!(format(host, offset), id);
            assert_eq!(parse(id), Some((host, offset)));
            assert_eq!(parse(&id.to_lowercase()), Some((host, offset)));
            for cut in 0..id.len() {
                assert_eq!(parse(&id[..cut]).filter(|_| cut != 32), None, "{cut}");
            }
        }
        assert_eq!(
            parse("C0A8010200012A9F0000000000010203"),
            None,
            "a port beyond 65535"
        );
        assert_eq!(parse("G0A8010200002A9F0000000000010203"), None);
        assert_eq!(parse("名名名名名名名名名名XX"), None);
    }
}
