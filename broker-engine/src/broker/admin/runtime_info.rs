//! Figures of the running broker: 28, 315.
//!
//! Some keys of 28 name parts that Java has and this engine does not: thread pools and their queues, the transient store pool, the
//! page cache lock. Tools parse them all, so they stand at 0, which is what is in them. Latencies of single puts and gets, and the
//! rate at which the timer delivers, are not measured here and stand at 0 too.

use super::Answer;
use crate::broker::Broker;
use crate::broker::refusal::{Refusal, json_body};
use crate::broker::stats::Tps;
use crate::clock;
use rocketmq_protocol::Command;
use rocketmq_protocol::body::KVTable;
use rocketmq_protocol::code::response;
use rocketmq_protocol::command::{VERSION, VERSION_TEXT};
use rocketmq_protocol::record::{self, Parsed};
use rocketmq_protocol::topic;
use std::collections::BTreeMap;

/// Keys that stand at 0 (see the module's text).
const NOTHING_IN_THEM: &[&str] = &[
    "EndTransactionQueueSize",
    "ackThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "dispatchMaxBuffer",
    "getMessageEntireTimeMax",
    "litePullThreadPoolQueueHeadWaitTimeMills",
    "litePullThreadPoolQueueSize",
    "pageCacheLockTimeMills",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "putMessageEntireTimeMax",
    "queryThreadPoolQueueHeadWaitTimeMills",
    "queryThreadPoolQueueSize",
    "remainTransientStoreBufferNumbs",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "sendThreadPoolQueueSize",
];

/// Capacities of Java's queues that have no counterpart here: the one that counts, that of sends, has its property.
const CAPACITIES: &[&str] = &[
    "EndTransactionThreadPoolQueueCapacity",
    "ackThreadPoolQueueCapacity",
    "litePullThreadPoolQueueCapacity",
    "pullThreadPoolQueueCapacity",
    "queryThreadPoolQueueCapacity",
    "sendThreadPoolQueueCapacity",
];

/// GET_BROKER_RUNTIME_INFO (28).
pub(super) fn table(broker: &Broker, command: &Command) -> Answer {
    let mut table = BTreeMap::new();
    let mut put = |key: &str, value: String| {
        table.insert(key.to_owned(), value);
    };
    let config = broker.config.get();
    let now_ms = clock::now_ms();

    put("brokerActive", (!broker.is_slave()).to_string());
    put("brokerVersion", VERSION.to_string());
    put("brokerVersionDesc", VERSION_TEXT.to_owned());
    put("bootTimestamp", broker.started_ms.to_string());
    put("runtime", runtime_text(now_ms - broker.started_ms));
    put(
        "startAcceptSendRequestTimeStamp",
        config.start_accept_send_request_time_stamp.to_string(),
    );

    let (taken, given) = broker.stats.daily();
    put(
        "msgPutTotalYesterdayMorning",
        taken.yesterday_morning.to_string(),
    );
    put("msgPutTotalTodayMorning", taken.today_morning.to_string());
    put("msgPutTotalTodayNow", taken.now.to_string());
    put(
        "msgGetTotalYesterdayMorning",
        given.yesterday_morning.to_string(),
    );
    put("msgGetTotalTodayMorning", given.today_morning.to_string());
    put("msgGetTotalTodayNow", given.now.to_string());

    let totals = broker.stats.put_totals();
    put("putMessageTimesTotal", totals.messages.to_string());
    put("putMessageFailedTimes", totals.failed.to_string());
    put("putMessageSizeTotal", totals.bytes.to_string());
    let average = if totals.messages == 0 {
        0.0
    } else {
        totals.bytes as f64 / totals.messages as f64
    };
    put("putMessageAverageSize", average.to_string());
    put("putMessageDistributeTime", String::new());
    put("putLatency99", "0.00".to_owned());
    put("putLatency999", "0.00".to_owned());

    let rates = broker.stats.rates(now_ms);
    put("putTps", tps_text(rates.put));
    put("getFoundTps", tps_text(rates.get_found));
    put("getMissTps", tps_text(rates.get_miss));
    put("getTotalTps", tps_text(rates.get_total));
    put("getTransferredTps", tps_text(rates.transferred));

    let (start, end) = (broker.store.log_start(), broker.store.log_end());
    put("commitLogMinOffset", start.to_string());
    put("commitLogMaxOffset", end.to_string());
    put(
        "earliestMessageTimeStamp",
        earliest_message(broker, start, end)?.to_string(),
    );
    // Queue entries are written with the record that they point to: none is ever behind.
    put("dispatchBehindBytes", "0".to_owned());
    let unflushed = end - broker.log.positions().borrow().flushed.min(end);
    put("remainHowManyDataToFlush", bytes_text(unflushed as u64));
    let ratio = f64::from(broker.store.disk_used_percent()) / 100.0;
    put("commitLogDiskRatio", ratio.to_string());
    put(
        &format!(
            "commitLogDiskRatio_{}",
            config.store_options().commit_log.display()
        ),
        ratio.to_string(),
    );
    put("consumeQueueDiskRatio", ratio.to_string());
    if let Ok(disk) = rustix::fs::statvfs(config.store_path_root_dir.as_str()) {
        let total = bytes_text(disk.f_blocks * disk.f_frsize);
        let free = bytes_text(disk.f_bfree * disk.f_frsize);
        put(
            "commitLogDirCapacity",
            format!("Total : {total}, Free : {free}."),
        );
    }

    let timer = broker.timer.state(&broker.store, now_ms);
    put("timerReadBehind", timer.behind_s.to_string());
    put("timerOffsetBehind", timer.not_taken_in.to_string());
    put("timerCongestNum", timer.waiting.to_string());
    let enqueued = broker.stats.topic_put_tps(topic::TIMER, now_ms);
    put("timerEnqueueTps", format!("{enqueued:.1}"));
    put("timerDequeueTps", "0.0".to_owned());
    for key in NOTHING_IN_THEM {
        put(key, "0".to_owned());
    }
    for key in CAPACITIES {
        put(key, config.send_thread_pool_queue_capacity.to_string());
    }
    let schedule = broker.schedule.topic();
    for (level, offset) in broker.schedule.offsets() {
        let (_, max) = broker.store.queue_bounds(&schedule, level - 1);
        put(
            &format!("scheduleMessageOffset_{level}"),
            format!("{offset},{max}"),
        );
    }
    let answer = command
        .response(response::SUCCESS)
        .with_body(json_body(&KVTable { table }));
    Ok(broker.partitions.tell(answer))
}

/// Store time in ms of the log's first record; -1 when there is none.
fn earliest_message(broker: &Broker, start: i64, end: i64) -> Result<i64, Refusal> {
    if start >= end {
        return Ok(-1);
    }
    let first = broker.store.record_at(start)?;
    Ok(
        first.map_or(-1, |bytes| match record::parse(&bytes, false) {
            Ok(Parsed::Record(record, _)) => record.store_timestamp,
            Ok(Parsed::Blank) | Err(_) => -1,
        }),
    )
}

/// `[ 1 days, 2 hours, 3 minutes, 4 seconds ]` (`StoreStatsService.getFormatRuntime`).
fn runtime_text(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "[ {days} days, {hours} hours, {minutes} minutes, {} seconds ]",
        seconds % 60
    )
}

fn tps_text([ten_seconds, minute, ten_minutes]: Tps) -> String {
    format!("{ten_seconds} {minute} {ten_minutes}")
}

/// `1.5 GiB` (`MixAll.humanReadableByteCount` with binary units).
fn bytes_text(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut units = ["KiB", "MiB", "GiB", "TiB", "PiB"].into_iter();
    let mut unit = units.next();
    while value >= 1024.0
        && let Some(larger) = units.next()
    {
        value /= 1024.0;
        unit = Some(larger);
    }
    format!("{value:.1} {}", unit.unwrap_or("KiB"))
}

/// VIEW_BROKER_STATS_DATA (315).
pub(super) fn stats_data(broker: &Broker, command: &Command) -> Answer {
    let name = command.ext.str("statsName")?;
    let key = command.ext.str("statsKey")?;
    let Some(data) = broker.stats.view(name, key, clock::now_ms()) else {
        return Err(Refusal::system_error(format!(
            "The stats <{name}> <{key}> not exist"
        )));
    };
    Ok(command
        .response(response::SUCCESS)
        .with_body(json_body(&data)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_read_as_java_writes_them() {
        assert_eq!(
            runtime_text(93_784_999),
            "[ 1 days, 2 hours, 3 minutes, 4 seconds ]"
        );
        assert_eq!(tps_text([1.5, 0.0, 20.0]), "1.5 0 20");
        let texts = [0, 1023, 1024, 1536 << 20, 5 << 40].map(bytes_text);
        assert_eq!(texts, ["0 B", "1023 B", "1.0 KiB", "1.5 GiB", "5.0 TiB"]);
    }
}
