//! An order to a node of this engine to cut a peer off, or to let it in again: a network that fails between two nodes, made on
//! purpose. RocketMQ has nothing like it; the code lies above all of its own that fit the binary header's 16 bits.

use crate::command::{Command, ExtFields};
use crate::json;
use serde::{Deserialize, Serialize};

/// Request code of an [`Order`].
pub const CODE: i32 = 30_901;

/// Header field of a name server's answer to 106 and of a broker's to 28: the peers that it is cut off from, by `,`. There is
/// none while it is cut off from nobody.
pub const CUT_OFF: &str = "rmqctlCutOff";

/// What a node is to do, as the request's body has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Order {
    /// Close the connections that it made to a peer and make none, until told otherwise or until it ends.
    #[serde(rename_all = "camelCase")]
    Cut {
        /// The peer's name, for people.
        peer: String,
        /// Every `host:port` by which it may know the peer.
        addresses: Vec<String>,
        /// After so many milliseconds it heals by itself.
        lasts_ms: Option<u64>,
    },
    /// Let one peer in again, or all of them.
    #[serde(rename_all = "camelCase")]
    Heal {
        /// All when `None`.
        peer: Option<String>,
    },
}

impl Order {
    /// The request that carries it.
    pub fn command(&self) -> Command {
        Command::request(CODE, ExtFields::new()).with_body(json::to_fastjson(self))
    }

    /// Of a request's body; the error says what is wrong with it.
    pub fn of(command: &Command) -> Result<Order, String> {
        json::from_slice(&command.body).map_err(|error| format!("the body is no order: {error}"))
    }
}

/// The peers in an answer's header.
pub fn cut_off(ext: &ExtFields) -> Vec<String> {
    let peers = ext.get(CUT_OFF).unwrap_or_default().split(',');
    let peers = peers.filter(|peer| !peer.is_empty());
    peers.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_back_from_its_request() {
        let orders = [
            Order::Cut {
                peer: "rmqslave1".into(),
                addresses: vec!["rmqslave1:11911".into(), "127.0.0.1:11912".into()],
                lasts_ms: Some(10_000),
            },
            Order::Cut {
                peer: "rmqnamesrv".into(),
                addresses: vec!["rmqnamesrv:9876".into()],
                lasts_ms: None,
            },
            Order::Heal {
                peer: Some("rmqslave1".into()),
            },
            Order::Heal { peer: None },
        ];
        for order in orders {
            let command = order.command();
            assert_eq!(command.code, CODE);
            assert_eq!(Order::of(&command), Ok(order));
        }
        let other = Command::request(CODE, ExtFields::new()).with_body("{}");
        assert!(Order::of(&other).unwrap_err().contains("no order"));
    }

    #[test]
    fn the_code_fits_the_binary_header() {
        assert!(i16::try_from(CODE).is_ok());
    }

    #[test]
    fn peers_are_read_from_an_answer() {
        assert!(cut_off(&ExtFields::new()).is_empty());
        let ext = ExtFields::new().with(CUT_OFF, "rmqslave1,rmqnamesrv");
        assert_eq!(cut_off(&ext), ["rmqslave1", "rmqnamesrv"]);
    }
}
