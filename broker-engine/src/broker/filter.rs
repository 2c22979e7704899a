//! Filters that need the message itself: SQL92 expressions, each compiled once.
//!
//! Java keeps what consumers registered in `config/consumerFilter.json` and drops the file's content when its bloom filter does
//! not fit; consumers register anew with their next heartbeat. Here the subscriptions of the heartbeats are the only state.
//! Source: `apache/rocketmq: broker/.../filter/ConsumerFilterManager.java`, `ExpressionMessageFilter.java`.

use super::Broker;
use super::refusal::Refusal;
use parking_lot::RwLock;
use rocketmq_protocol::body::SubscriptionData;
use rocketmq_protocol::code::response;
use rocketmq_protocol::record::View;
use rocketmq_protocol::sql::{Expression, SqlError};
use rocketmq_store::reader::QueueEntry;
use std::collections::HashMap;
use std::sync::Arc;

/// Expressions kept; with more than this they are compiled anew.
const KEPT: usize = 1000;

/// Compiled expressions by their text, refused ones included.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    compiled: RwLock<HashMap<String, Result<Arc<Expression>, SqlError>>>,
}

impl Filters {
    /// The expression, compiled.
    pub(super) fn sql(&self, text: &str) -> Result<Arc<Expression>, SqlError> {
        if let Some(known) = self.compiled.read().get(text) {
            return known.clone();
        }
        let compiled = Expression::parse(text).map(Arc::new);
        let mut all = self.compiled.write();
        if all.len() >= KEPT {
            all.clear();
        }
        all.insert(text.into(), compiled.clone());
        compiled
    }
}

impl Broker {
    /// What a subscription asks of a message beyond its tags; nothing when it is a list of tags. `at_fault` is the answer to an
    /// expression that does not compile.
    pub(super) fn expression(
        &self,
        subscription: &SubscriptionData,
        at_fault: impl FnOnce(String) -> Refusal,
    ) -> Result<Option<Arc<Expression>>, Refusal> {
        if subscription.is_tag_type() {
            return Ok(None);
        }
        let kind = &subscription.expression_type;
        let compiled = if kind == SubscriptionData::SQL92 {
            (self.filters.sql(&subscription.sub_string)).map_err(|error| error.to_string())
        } else {
            Err(format!("there are no expressions of the type {kind}"))
        };
        let compiled = compiled.map_err(at_fault)?;
        if !self.config.get().enable_property_filter {
            return Err(property_filter_is_off(kind));
        }
        Ok(Some(compiled))
    }

    /// Whether the message an entry points at passes. One that is gone passes: the read says so itself.
    pub(super) fn passes(
        &self,
        expression: &Expression,
        entry: &QueueEntry,
    ) -> std::io::Result<bool> {
        let Some(bytes) = self.store.record_of(entry)? else {
            return Ok(true);
        };
        let properties = View::record(&bytes).and_then(|record| record.properties());
        Ok(properties.is_ok_and(|properties| expression.matches(properties)))
    }
}

/// With `enablePropertyFilter` off, which is Java's default.
pub(super) fn property_filter_is_off(kind: &str) -> Refusal {
    Refusal::new(
        response::SYSTEM_ERROR,
        format!("The broker does not support consumer to filter message by {kind}"),
    )
}
