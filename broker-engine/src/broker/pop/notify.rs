//! NOTIFICATION (200054): told when something can be popped, without taking it. POLLING_INFO (200055): how many wait.
//! Source: `apache/rocketmq: broker/.../processor/{NotificationProcessor,PollingInfoProcessor}.java`.

use super::Patience;
use super::line::{Spot, Waiting};
use crate::broker::Broker;
use crate::broker::refusal::Refusal;
use crate::clock;
use crate::net::Connection;
use rocketmq_protocol::Command;
use rocketmq_protocol::code::response;
use std::sync::Arc;

/// One who wants to be told.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    connection: Connection,
    command: Arc<Command>,
    spot: Spot,
    patience: Patience,
    order: bool,
    attempt: Option<Arc<str>>,
}

impl Notice {
    pub(super) fn answer(&self, has_message: bool, full: bool) {
        if !self.command.is_oneway() {
            let answer = (self.command.response(response::SUCCESS))
                .with("hasMsg", has_message)
                .with("pollingFull", full);
            self.connection.reply(&answer);
        }
    }
}

impl Broker {
    /// Answers now or when something can be popped.
    pub(in crate::broker) fn notification(
        self: &Arc<Self>,
        connection: &Connection,
        command: Command,
    ) -> Option<Command> {
        match self.read_notification(connection, &command) {
            Ok(notice) => {
                self.notify_or_wait(notice);
                None
            }
            Err(refusal) => Some(refusal.answer(&command)),
        }
    }

    fn read_notification(
        &self,
        connection: &Connection,
        command: &Command,
    ) -> Result<Notice, Refusal> {
        let (_, _, spot) = self.check_pop(connection, command, "peeking")?;
        let attempt = command.ext.get("attemptId").filter(|text| !text.is_empty());
        Ok(Notice {
            connection: connection.clone(),
            spot,
            patience: Patience::read(command)?,
            order: command.ext.bool_or("order", false)?,
            attempt: attempt.map(Arc::from),
            command: Arc::new(command.clone()),
        })
    }

    pub(super) fn notify_again(self: &Arc<Self>, woken: Vec<Waiting<Notice>>) {
        for waiting in woken {
            self.notify_or_wait(waiting.request);
        }
    }

    fn notify_or_wait(self: &Arc<Self>, notice: Notice) {
        let can =
            |notice: &Notice| self.can_pop(&notice.spot, notice.order, notice.attempt.as_deref());
        if can(&notice) {
            return notice.answer(true, false);
        }
        let now_ms = clock::now_ms();
        if notice.patience.over(now_ms) {
            return notice.answer(false, false);
        }
        let waiting = Waiting {
            spot: notice.spot.clone(),
            connection: notice.connection.id(),
            subscription: None,
            due: notice.patience.due(now_ms, None),
            request: notice,
        };
        let waited = (self.pops.listening)
            .wait(&self.config.get(), waiting, |waiting| can(&waiting.request));
        match waited {
            Ok(None) => {}
            Ok(Some(again)) => again.request.answer(true, false),
            Err(refused) => refused.request.answer(false, true),
        }
    }

    /// How many POPs wait at a queue.
    pub(in crate::broker) fn polling_info(
        &self,
        connection: &Connection,
        command: &Command,
    ) -> Result<Option<Command>, Refusal> {
        let (_, _, spot) = self.check_pop(connection, command, "peeking")?;
        let count = self.pops.waiting.with(|lines| lines.len_of(&spot));
        Ok(Some(
            command
                .response(response::SUCCESS)
                .with("pollingNum", count),
        ))
    }
}
