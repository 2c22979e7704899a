//! How brokers are named by number: the letters of a group, and which group a slave is dealt to.

/// `a`, `b`, … `z`, `aa`: the letters of the k-th broker name, k from 1.
pub fn letters(mut number: u32) -> String {
    let mut text = Vec::new();
    while number > 0 {
        number -= 1;
        text.push(b'a' + (number % 26) as u8);
        number /= 26;
    }
    text.reverse();
    String::from_utf8(text).expect("only ASCII letters were pushed")
}

/// The master that the k-th slave follows, and its broker id there: slaves are dealt in turn.
pub fn dealt(slave: u32, masters: u32) -> (u32, u32) {
    ((slave - 1) % masters + 1, (slave - 1) / masters + 1)
}

/// The node that is `broker-a:1` in a cluster of so many masters; `None` where the text is no broker's name and id.
pub fn node_of(broker: &str, masters: u32) -> Option<String> {
    let (group, id) = broker.strip_prefix("broker-")?.split_once(':')?;
    let id: u32 = id.parse().ok()?;
    let master = (1..=masters).find(|k| letters(*k) == group)?;
    Some(match id {
        0 => format!("rmqmaster{master}"),
        id => format!(
            "rmqslave{}",
            (id - 1).checked_mul(masters)?.checked_add(master)?
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_name_and_id_lead_to_the_node_that_they_were_dealt_to() {
        for masters in 1..=30 {
            for slave in 1..=60 {
                let (master, id) = dealt(slave, masters);
                let broker = format!("broker-{}:{id}", letters(master));
                assert_eq!(
                    node_of(&broker, masters),
                    Some(format!("rmqslave{slave}")),
                    "{broker}"
                );
            }
        }
        assert_eq!(node_of("broker-b:0", 2).as_deref(), Some("rmqmaster2"));
        for wrong in [
            "broker-c:0",
            "broker-a",
            "broker-a:x",
            "broker-a:4294967295",
            "a:0",
        ] {
            assert_eq!(node_of(wrong, 2), None, "{wrong}");
        }
    }
}
