//! The same seeded sequence of client operations against this engine's broker and the Java broker, answers compared field by field.
//!
//!     cargo run -p broker-engine --example differential -- --java 127.0.0.1:10911 [--ours HOST:PORT] [--seeds 20] [--first 1]
//!         [--operations 120] [--keep-going] [--show] [--plant]
//!
//! Without `--ours` a broker is started in this process, on a store of its own. The first field that differs is named with the seed and
//! the operation's number; `--first SEED --seeds 1` plays that seed again. `--keep-going` plays on after a difference, which may then have
//! followed from the first, and `--show` prints every operation. `--plant` starts our broker in
//! another region, which must be found. Both sides keep their messages: topics and groups are named after the time of the run.

mod compare;
mod operations;
mod wire;

use broker_engine::broker::{RunningBroker, start};
use broker_engine::config::BrokerConfig;
use compare::{Difference, differences, flat};
use operations::Operation;
use rocketmq_protocol::Command;
use rocketmq_protocol::code::response;
use std::collections::BTreeMap;
use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use wire::Server;

/// How long answers to the same question may differ because one side is still at it.
const EVENTUALLY: Duration = Duration::from_secs(3);
/// Between two such questions: there is no event to wait for.
const AGAIN: Duration = Duration::from_millis(25);

struct Options {
    java: String,
    ours: Option<String>,
    seeds: u64,
    first: u64,
    operations: usize,
    keep_going: bool,
    show: bool,
    plant: bool,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        java: String::new(),
        ours: None,
        seeds: 20,
        first: 1,
        operations: 120,
        keep_going: false,
        show: false,
        plant: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(name) = args.next() {
        let mut value = || args.next().ok_or(format!("{name} needs a value"));
        match name.as_str() {
            "--java" => options.java = value()?,
            "--ours" => options.ours = Some(value()?),
            "--seeds" => options.seeds = value()?.parse()?,
            "--first" => options.first = value()?.parse()?,
            "--operations" => options.operations = value()?.parse()?,
            "--plant" => options.plant = true,
            "--show" => options.show = true,
            "--keep-going" => options.keep_going = true,
            other => return Err(format!("unknown option {other}; see the top of main.rs").into()),
        }
    }
    if options.java.is_empty() {
        return Err("--java HOST:PORT of the Java broker is missing".into());
    }
    Ok(options)
}

fn main() -> ExitCode {
    match options().and_then(|options| run(&options)) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::from(2)
        }
    }
}

/// Plays all seeds; how many of them showed a difference.
fn run(options: &Options) -> Result<usize, Box<dyn Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let store = tempfile::tempdir()?;
    let (mut broker, mut ours) = (None, options.ours.clone());
    if ours.is_none() {
        let started = runtime.block_on(start(config(store.path(), options.plant)))?;
        ours = Some(started.address.to_string());
        broker = Some(started);
    }
    let ours = ours.unwrap_or_default();
    let stamp = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (mut differing, mut played) = (0, 0);
    let (mut known, mut answers) = (BTreeMap::new(), BTreeMap::new());
    for seed in options.first..options.first + options.seeds {
        let operations =
            operations::generate(seed, options.operations, &format!("D{stamp}x{seed}"));
        let mut play = Play {
            ours: Server::connect("ours", &ours)?,
            java: Server::connect("java", &options.java)?,
            known: &mut known,
            answers: &mut answers,
            remarks: [None, None],
        };
        let mut found = 0;
        for (number, operation) in operations.iter().enumerate() {
            played += 1;
            if options.show {
                println!("{seed}/{number} {operation}");
            }
            let difference = play.step(operation)?;
            if !difference.is_empty() {
                found += 1;
                report(seed, number, operation, &difference, &play.remarks);
                if !options.keep_going {
                    break;
                }
            }
        }
        println!(
            "seed {seed}: {} operations, {found} differ",
            operations.len()
        );
        differing += usize::from(found > 0);
    }
    for (kind, codes) in &answers {
        let counts: Vec<String> = codes
            .iter()
            .map(|(code, count)| format!("{count} {}", response::name(*code)))
            .collect();
        println!("{kind}: {}", counts.join(", "));
    }
    for (reason, count) in &known {
        println!("known, {count} times: {reason}");
    }
    println!(
        "{played} operations of {} seeds, {differing} seeds differ",
        options.seeds
    );
    if let Some(broker) = broker {
        runtime.block_on(RunningBroker::stop(broker))?;
    }
    Ok(differing)
}

/// What the Java broker is by default; `tests/stages/differential.sh` sets the one property in which it is not.
fn config(store: &std::path::Path, plant: bool) -> BrokerConfig {
    let region = if plant { "Elsewhere" } else { "DefaultRegion" };
    BrokerConfig {
        bind_address: "127.0.0.1".into(),
        listen_port: 0,
        ha_listen_port: 0,
        store_path_root_dir: store.display().to_string(),
        mapped_file_size_commit_log: 64 << 20,
        max_hash_slot_num: 50_000,
        max_index_num: 200_000,
        enable_property_filter: true,
        region_id: region.into(),
        ..BrokerConfig::default()
    }
}

struct Play<'a> {
    ours: Server,
    java: Server,
    known: &'a mut BTreeMap<&'static str, usize>,
    /// How often which operation was answered with which code by the Java broker.
    answers: &'a mut BTreeMap<&'static str, BTreeMap<i32, usize>>,
    /// What both said about the last answers that differ, to show.
    remarks: [Option<String>; 2],
}

impl Play<'_> {
    /// Both answers to one operation; what differs in them and is not known to.
    fn step(&mut self, operation: &Operation) -> Result<Vec<Difference>, Box<dyn Error>> {
        let began = Instant::now();
        let (found, code, remarks) = loop {
            let ours = self.ours.call(&operation.request(&self.ours.sent))?;
            let java = self.java.call(&operation.request(&self.java.sent))?;
            let found = differences(operation.kind, &flat(&ours), &flat(&java));
            // What was written a moment ago is seen in the background, at its own pace on either side.
            let settled = found.is_empty() || !operation.reads || began.elapsed() > EVENTUALLY;
            if settled {
                self.note(operation, &ours, &java)?;
                break (found, java.code, [ours.remark, java.remark]);
            }
            std::thread::sleep(AGAIN);
        };
        let of_kind = self.answers.entry(operation.kind).or_default();
        *of_kind.entry(code).or_default() += 1;
        let (known, unknown): (Vec<_>, Vec<_>) =
            found.into_iter().partition(|one| one.known.is_some());
        for reason in known.iter().filter_map(|one| one.known) {
            *self.known.entry(reason).or_default() += 1;
        }
        if !unknown.is_empty() {
            self.remarks = remarks;
        }
        Ok(unknown)
    }

    fn note(
        &mut self,
        operation: &Operation,
        ours: &Command,
        java: &Command,
    ) -> Result<(), Box<dyn Error>> {
        let Some(queued) = operation.sends else {
            return Ok(());
        };
        for (server, answer) in [(&mut self.ours, ours), (&mut self.java, java)] {
            server.note(answer);
            if let (true, response::SUCCESS) = (queued, answer.code) {
                let last = answer.ext.i64("queueOffset")?;
                let queue_id = answer.ext.i32("queueId")?;
                server.dispatched(operation.topic(), queue_id, last)?;
            }
        }
        Ok(())
    }
}

fn report(
    seed: u64,
    number: usize,
    operation: &Operation,
    differences: &[Difference],
    remarks: &[Option<String>; 2],
) {
    println!("seed {seed}, operation {number}: {operation}");
    let shown = |value: &Option<String>| value.as_deref().map_or("-".into(), |v| format!("{v:?}"));
    for one in differences {
        println!(
            "    {}: ours {}, java {}",
            one.place,
            shown(&one.ours),
            shown(&one.java)
        );
    }
    for (name, remark) in ["ours", "java"].iter().zip(remarks) {
        if let Some(remark) = remark {
            println!("    {name} says: {remark:.300}");
        }
    }
}
