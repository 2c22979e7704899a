//! Things in flight that a store must carry from one engine to the other: none lost, none early, none twice by itself.

use crate::broker::{Broker, GROUP, Outcome, QUEUES, now_ms, property};
use rocketmq_protocol::code::{request, response};
use rocketmq_protocol::record::{self, Record};
use rocketmq_protocol::{Command, ExtFields, message_id, properties, sysflag};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Messages of each kind.
const EACH: usize = 40;
/// When what waits is due: the other engine must have started, or it is late.
const DUE_MS: i64 = 12_000;
/// The delay level of 10 s.
const LEVEL: i32 = 3;
/// All must be there after this.
const DEADLINE: Duration = Duration::from_secs(90);

/// Topics of one `leave`, told apart by what is in flight there.
struct Topics(String);

impl Topics {
    fn of(&self, broker: &Broker, kind: &str) -> Broker {
        Broker {
            topic: format!("{kind}_{}", self.0),
            ..broker.clone()
        }
    }
}

/// Leaves [`EACH`] messages in each kind of flight and notes in a file what there is.
pub async fn leave(broker: &Broker, file: &str) -> Outcome<()> {
    let topics = Topics(now_ms().to_string());
    let due = now_ms() + DUE_MS;
    let key = |number: usize| property("UNIQ_KEY", format!("K{number}"));
    // The consumer group of what is sent back is made by its first pull.
    let popped = topics.of(broker, "popped");
    popped.send_all(EACH, key).await?;
    pop_half(&popped).await?;
    let back = topics.of(broker, "back");
    back.send_all(EACH, key).await?;
    send_back(&back).await?;
    let half = topics.of(broker, "half");
    let mut halves = Vec::new();
    for number in 0..EACH {
        let text = key(number) + &property("TRAN_MSG", true) + &property("PGROUP", GROUP);
        let mut command = half.send(number, &text);
        command.ext.set("f", sysflag::TRANSACTION_PREPARED);
        let answer = yes(half.call(command).await?)?;
        let id = answer.ext.str("msgId")?;
        let (_, at) = message_id::parse(id).ok_or_else(|| format!("{id} is no message id"))?;
        halves.push(format!("{at} {}", answer.ext.str("queueOffset")?));
    }
    topics
        .of(broker, "delayed")
        .send_all(EACH, |number| key(number) + &property("DELAY", LEVEL))
        .await?;
    topics
        .of(broker, "timed")
        .send_all(EACH, |number| {
            key(number) + &property("TIMER_DELIVER_MS", due)
        })
        .await?;
    std::fs::write(
        file,
        format!("{}\n{due}\n{}\n", topics.0, halves.join("\n")),
    )?;
    println!("{EACH} of each in flight");
    Ok(())
}

/// Finds what [`leave`] left: commits every second transaction and rolls the others back, and waits for the rest.
pub async fn collect(broker: &Broker, file: &str, killed: bool) -> Outcome<()> {
    let text = std::fs::read_to_string(file)?;
    let mut lines = text.lines();
    let mut line = || lines.next().ok_or("the file ends early");
    let topics = Topics(line()?.to_owned());
    let due: i64 = line()?.parse()?;
    for number in 0..EACH {
        let (at, offset) = line()?
            .split_once(' ')
            .ok_or("a half message needs two numbers")?;
        end_transaction(broker, number, at.parse()?, offset.parse()?).await?;
    }
    let end = Instant::now() + DEADLINE;
    let all: BTreeSet<String> = (0..EACH).map(|number| format!("K{number}")).collect();
    let even: BTreeSet<String> = (0..EACH)
        .step_by(2)
        .map(|number| format!("K{number}"))
        .collect();
    let timed = topics.of(broker, "timed");
    let early = |record: &Record<'_>| record.store_timestamp < due;
    find(&timed, &timed.topic, QUEUES, &all, early, (killed, end)).await?;
    let delayed = topics.of(broker, "delayed");
    let early = |record: &Record<'_>| record.store_timestamp - record.born_timestamp < 10_000;
    find(&delayed, &delayed.topic, QUEUES, &all, early, (killed, end)).await?;
    let back = topics.of(broker, "back");
    find(
        &back,
        &format!("%RETRY%{GROUP}"),
        1,
        &all,
        |record| record.topic.is_empty(),
        (killed, end),
    )
    .await?;
    let half = topics.of(broker, "half");
    find(&half, &half.topic, QUEUES, &even, |_| false, (killed, end)).await?;
    pop_rest(&topics.of(broker, "popped"), killed, end).await?;
    println!("all of them found");
    Ok(())
}

fn yes(answer: Command) -> Outcome<Command> {
    match answer.code {
        response::SUCCESS => Ok(answer),
        code => Err(format!("answered {code}: {}", answer.remark.unwrap_or_default()).into()),
    }
}

fn key_of<'r>(record: &Record<'r>) -> &'r str {
    properties::get(record.properties, "UNIQ_KEY").unwrap_or_default()
}

/// Pops all, and acknowledges those with an odd key.
async fn pop_half(broker: &Broker) -> Outcome<()> {
    let mut count = 0;
    while count < EACH {
        let answer = broker.pop(DUE_MS, 1000).await?;
        if answer.code != response::SUCCESS {
            continue;
        }
        let starts = answer.ext.str("startOffsetInfo")?;
        for view in record::records(&answer.body) {
            let record = view?.decode()?;
            count += 1;
            if key_of(&record)[1..].parse::<usize>()? % 2 == 0 {
                continue;
            }
            let of_queue = format!("0 {} ", record.queue_id);
            let start = starts
                .split(';')
                .find_map(|item| item.strip_prefix(&of_queue))
                .ok_or("no start offset")?;
            let handle = format!(
                "{start} {} {DUE_MS} {} 0 broker-a {} {}",
                answer.ext.str("popTime")?,
                answer.ext.str("reviveQid")?,
                record.queue_id,
                record.queue_offset
            );
            let ext = broker
                .of_group()
                .with("queueId", record.queue_id)
                .with("offset", record.queue_offset)
                .with("extraInfo", handle);
            yes(broker
                .call(Command::request(request::ACK_MESSAGE, ext))
                .await?)?;
        }
    }
    Ok(())
}

/// Those with an even key come again; the others do not, unless the broker was killed: then the group's last offsets are lost,
/// and what was popped may be popped once more.
async fn pop_rest(broker: &Broker, killed: bool, end: Instant) -> Outcome<()> {
    let mut missing: BTreeSet<String> = (0..EACH)
        .step_by(2)
        .map(|number| format!("K{number}"))
        .collect();
    while !missing.is_empty() {
        if Instant::now() > end {
            return Err(
                format!("popped, not acknowledged, and not handed out again: {missing:?}").into(),
            );
        }
        let answer = broker.pop(60_000, 1000).await?;
        if answer.code != response::SUCCESS {
            continue;
        }
        for view in record::records(&answer.body) {
            let record = view?.decode()?;
            if !missing.remove(key_of(&record)) && !killed {
                return Err(
                    format!("{} was acknowledged or had come already", key_of(&record)).into(),
                );
            }
        }
    }
    println!("popped: {} came again", EACH / 2);
    Ok(())
}

async fn send_back(broker: &Broker) -> Outcome<()> {
    let mut count = 0;
    for queue in 0..QUEUES {
        let mut offset = 0;
        while let answer = broker.pull(queue, offset).await?
            && answer.code == response::SUCCESS
        {
            for view in record::records(&answer.body) {
                let record = view?.decode()?;
                offset = record.queue_offset + 1;
                count += 1;
                let ext = ExtFields::new()
                    .with("offset", record.physical_offset)
                    .with("group", GROUP)
                    .with("delayLevel", LEVEL)
                    .with("originTopic", &broker.topic)
                    .with("unitMode", false)
                    .with("maxReconsumeTimes", 16);
                yes(broker
                    .call(Command::request(request::CONSUMER_SEND_MSG_BACK, ext))
                    .await?)?;
            }
            if count == EACH {
                return Ok(());
            }
        }
    }
    Err(format!("{count} of {EACH} messages could be sent back").into())
}

async fn end_transaction(broker: &Broker, number: usize, at: i64, offset: i64) -> Outcome<()> {
    let decision = if number.is_multiple_of(2) {
        sysflag::TRANSACTION_COMMIT
    } else {
        sysflag::TRANSACTION_ROLLBACK
    };
    let ext = ExtFields::new()
        .with("producerGroup", GROUP)
        .with("tranStateTableOffset", offset)
        .with("commitLogOffset", at)
        .with("commitOrRollback", decision)
        .with("fromTransactionCheck", false)
        .with("msgId", format!("K{number}"))
        .with("transactionId", format!("K{number}"));
    yes(broker
        .call(Command::request(request::END_TRANSACTION, ext))
        .await?)?;
    Ok(())
}

/// Reads a topic until all keys are there, each once; those of other runs are passed over. After a kill what was delivered just
/// before may be delivered once more: how far the timer and the delay levels are is written every second and every ten.
async fn find(
    broker: &Broker,
    topic: &str,
    queues: i32,
    wanted: &BTreeSet<String>,
    early: impl Fn(&Record<'_>) -> bool,
    (killed, end): (bool, Instant),
) -> Outcome<()> {
    let reader = Broker {
        topic: topic.to_owned(),
        ..broker.clone()
    };
    let mut found = BTreeSet::new();
    let mut offsets = vec![0i64; queues as usize];
    while found.len() < wanted.len() {
        if Instant::now() > end {
            let missing: Vec<_> = wanted.difference(&found).collect();
            return Err(format!("{}: not there: {missing:?}", broker.topic).into());
        }
        for queue in 0..queues {
            let place = &mut offsets[queue as usize];
            let answer = reader.pull(queue, *place).await?;
            if answer.code != response::SUCCESS {
                continue;
            }
            for view in record::records(&answer.body) {
                let record = view?.decode()?;
                *place = record.queue_offset + 1;
                let origin = properties::get(record.properties, "RETRY_TOPIC");
                if origin.is_some_and(|origin| origin != broker.topic) {
                    continue;
                }
                let key = key_of(&record).to_owned();
                if early(&record) {
                    return Err(format!("{}: {key} came before its time", broker.topic).into());
                }
                if !wanted.contains(&key) || (!found.insert(key.clone()) && !killed) {
                    return Err(
                        format!("{}: {key} is not expected, or came twice", broker.topic).into(),
                    );
                }
            }
        }
    }
    println!("{}: {} found", broker.topic, found.len());
    Ok(())
}
