//! How a handler says no: the one place where an error becomes a response code and a remark.

use rocketmq_protocol::code::response;
use rocketmq_protocol::json::{self, JsonError};
use rocketmq_protocol::{Command, HeaderError};
use rocketmq_store::table::TableError;

/// A request that is refused, as the client will see it.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// Response code.
    pub code: i32,
    /// What tools print to their user.
    pub remark: String,
}

impl Refusal {
    /// A refusal with a code and a remark.
    pub fn new(code: i32, remark: impl Into<String>) -> Refusal {
        Refusal {
            code,
            remark: remark.into(),
        }
    }
    /// SYSTEM_ERROR (1).
    pub fn system_error(remark: impl Into<String>) -> Refusal {
        Refusal::new(response::SYSTEM_ERROR, remark)
    }
    /// REQUEST_CODE_NOT_SUPPORTED (3) with Java's remark.
    pub fn unsupported(code: i32) -> Refusal {
        Refusal::new(
            response::REQUEST_CODE_NOT_SUPPORTED,
            format!(" request type {code} not supported"),
        )
    }
    /// The answer that carries it.
    pub fn answer(self, command: &Command) -> Command {
        command.error(self.code, self.remark)
    }
}

impl From<HeaderError> for Refusal {
    fn from(error: HeaderError) -> Self {
        Refusal::system_error(error.to_string())
    }
}
impl From<JsonError> for Refusal {
    fn from(error: JsonError) -> Self {
        Refusal::system_error(format!("the request's body does not parse: {error}"))
    }
}
impl From<std::io::Error> for Refusal {
    fn from(error: std::io::Error) -> Self {
        Refusal::system_error(format!("reading the store failed: {error}"))
    }
}
impl From<TableError> for Refusal {
    fn from(error: TableError) -> Self {
        Refusal::system_error(error.to_string())
    }
}

/// A body as Java's tools read it.
pub fn json_body(body: &impl serde::Serialize) -> String {
    json::to_fastjson(body)
}
