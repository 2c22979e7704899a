//! The body of REGISTER_BROKER (103), plain and deflated.
//! Source: `apache/rocketmq: remoting/.../protocol/body/RegisterBrokerBody.java`.

use super::{DataVersion, TopicConfig, TopicConfigAndMappingSerializeWrapper};
use crate::json::{self, JsonError};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use std::sync::Arc;

/// A broker's topics, for the name server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct RegisterBrokerBody {
    pub filter_server_list: Vec<String>,
    pub topic_config_serialize_wrapper: TopicConfigAndMappingSerializeWrapper,
}

/// A registration that does not read.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RegisterError {
    #[error("the registration's body does not read: {0}")]
    Json(#[from] JsonError),
    #[error("the registration's deflated body does not inflate: {0}")]
    Inflate(std::io::Error),
    #[error("the registration's deflated body holds more than {INFLATED_MAX} bytes")]
    TooLong,
    #[error("the registration's deflated body ends inside {0}")]
    Truncated(&'static str),
    #[error("the registration holds {0:?}, which is no topic")]
    Topic(String),
}

/// The most that a deflated body may inflate to: far beyond a frame's size, far below a small machine's memory.
const INFLATED_MAX: usize = 64 << 20;

/// The first `MQVersion` that writes the mapping section: V5_0_0.
const MAPPING_SINCE: i32 = 413;

/// The first `MQVersion` that sends this body: V3_0_11. Older ones send the wrapper alone.
const BODY_SINCE: i32 = 37;

impl RegisterBrokerBody {
    /// Reads a request's body; `compressed` is the header's field, `version` the broker's `MQVersion`.
    pub fn decode(
        body: &[u8],
        compressed: bool,
        version: i32,
    ) -> Result<RegisterBrokerBody, RegisterError> {
        if compressed {
            return inflate(body, version);
        }
        if version < BODY_SINCE {
            return Ok(RegisterBrokerBody {
                filter_server_list: vec![],
                topic_config_serialize_wrapper: json::from_slice(body)?,
            });
        }
        Ok(json::from_slice(body)?)
    }
}

/// The deflated form, as a broker of [`MAPPING_SINCE`] or later sends it: for tables that are too large for a frame as they are. It
/// leaves out what `TopicConfig.encode` does: order and system flags.
pub fn deflate(body: &RegisterBrokerBody) -> std::io::Result<Vec<u8>> {
    fn part(to: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
        // A part is far below what a frame holds.
        to.write_all(&(bytes.len() as u32).to_be_bytes())?;
        to.write_all(bytes)
    }
    let wrapper = &body.topic_config_serialize_wrapper;
    let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    part(&mut to, json::to_fastjson(&wrapper.data_version).as_bytes())?;
    to.write_all(&(wrapper.topic_config_table.len() as u32).to_be_bytes())?;
    for topic in wrapper.topic_config_table.values() {
        part(&mut to, topic.to_line().as_bytes())?;
    }
    part(
        &mut to,
        json::to_fastjson(&body.filter_server_list).as_bytes(),
    )?;
    // No mappings: there are no static topics.
    to.write_all(&0u32.to_be_bytes())?;
    to.finish()
}

fn inflate(body: &[u8], version: i32) -> Result<RegisterBrokerBody, RegisterError> {
    let mut inflated = Vec::new();
    flate2::read::ZlibDecoder::new(body)
        .take(INFLATED_MAX as u64 + 1)
        .read_to_end(&mut inflated)
        .map_err(RegisterError::Inflate)?;
    if inflated.len() > INFLATED_MAX {
        return Err(RegisterError::TooLong);
    }
    let mut at = Parts(&inflated);
    let mut out = RegisterBrokerBody::default();
    let wrapper = &mut out.topic_config_serialize_wrapper;
    wrapper.data_version = json::from_slice::<DataVersion>(at.part("its data version")?)?;
    for _ in 0..at.length("its topic count")? {
        let line = String::from_utf8_lossy(at.part("a topic")?).into_owned();
        let config = TopicConfig::from_line(&line).ok_or(RegisterError::Topic(line))?;
        wrapper
            .topic_config_table
            .insert(config.topic_name.clone(), Arc::new(config));
    }
    // Nobody has filter servers any more; a list that does not read is passed over, as Java does.
    out.filter_server_list = json::from_slice(at.part("its filter servers")?).unwrap_or_default();
    if version >= MAPPING_SINCE {
        for _ in 0..at.length("its mapping count")? {
            let info: serde_json::Value = json::from_slice(at.part("a mapping")?)?;
            if let Some(topic) = info.get("topic").and_then(|t| t.as_str()) {
                wrapper
                    .topic_queue_mapping_info_map
                    .insert(topic.into(), info);
            }
        }
    }
    Ok(out)
}

struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    fn length(&mut self, what: &'static str) -> Result<usize, RegisterError> {
        let (head, rest) = self
            .0
            .split_first_chunk::<4>()
            .ok_or(RegisterError::Truncated(what))?;
        self.0 = rest;
        // A negative length is one that cannot be there.
        usize::try_from(i32::from_be_bytes(*head)).map_err(|_| RegisterError::Truncated(what))
    }
    fn part(&mut self, what: &'static str) -> Result<&'a [u8], RegisterError> {
        let len = self.length(what)?;
        let (head, rest) = self
            .0
            .split_at_checked(len)
            .ok_or(RegisterError::Truncated(what))?;
        self.0 = rest;
        Ok(head)
    }
}
