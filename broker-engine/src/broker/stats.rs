//! Counters behind GET_BROKER_RUNTIME_INFO (28) and VIEW_BROKER_STATS_DATA (315).
//!
//! Adding is a lookup under a read lock and two atomic adds. Windows are kept by [`Stats::sample`], which the broker calls
//! each second; a window reaches from its oldest snapshot to the moment of asking, so a figure is never older than its question.
//! Source: `apache/rocketmq: common/.../stats/StatsItem.java`, `store/.../stats/BrokerStatsManager.java`,
//! `store/.../StoreStatsService.java`, `broker/.../BrokerStats.java`.

use crate::clock::Zone;
use parking_lot::{Mutex, RwLock};
use rocketmq_protocol::body::{BrokerStatsData, BrokerStatsItem};
use rocketmq_protocol::topic;
use rocketmq_store::TopicMap;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Milliseconds between two snapshots of the minute window; a minute is 6 of them.
const MINUTE_STEP_MS: i64 = 10_000;
/// Of the hour window: 6 steps.
const HOUR_STEP_MS: i64 = 600_000;
/// Of the day window: 24 steps.
const DAY_STEP_MS: i64 = 3_600_000;
/// Seconds of history behind the three tps figures of 28 (10 s, 1 min, 10 min).
const RATE_SECONDS: usize = 600;

/// The counters; adding is lock-free but for a read lock.
#[derive(Debug)]
pub struct Stats {
    topics: RwLock<TopicMap<Arc<Puts>>>,
    groups: RwLock<HashMap<Arc<str>, ByTopic>>,
    broker_put: Item,
    broker_get: Item,
    totals: Totals,
    days: Mutex<Days>,
    rates: Mutex<VecDeque<TotalsAt>>,
    now_ms: AtomicI64,
    cluster: String,
    /// Whose midnights the daily figures move on at.
    zone: Zone,
}

/// What one group takes out, by topic.
type ByTopic = HashMap<Arc<str>, Arc<Gets>>;

/// What one topic takes in.
#[derive(Debug)]
struct Puts {
    nums: Item,
    size: Item,
}

/// What one group takes out of one topic.
#[derive(Debug)]
struct Gets {
    nums: Item,
    size: Item,
    send_back: Item,
}

/// Sums since the start.
#[derive(Debug, Default)]
struct Totals {
    put: AtomicU64,
    put_bytes: AtomicU64,
    put_failed: AtomicU64,
    found: AtomicU64,
    missed: AtomicU64,
    transferred: AtomicU64,
}

/// [`Totals`] at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct TotalsAt {
    at_ms: i64,
    put: u64,
    found: u64,
    missed: u64,
    transferred: u64,
}

/// Messages counted up to the last two midnights of the zone, for the daily figures.
#[derive(Debug, Default)]
struct Days {
    day: i64,
    put: [u64; 2],
    get: [u64; 2],
}

/// One direction's daily totals, as the keys of 28 name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct DailyTotals {
    pub yesterday_morning: u64,
    pub today_morning: u64,
    pub now: u64,
}

/// Requests or messages a second over the last 10 s, 1 min and 10 min.
pub type Tps = [f64; 3];

/// All rates of 28 at once.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Rates {
    pub put: Tps,
    pub get_found: Tps,
    pub get_miss: Tps,
    pub get_total: Tps,
    pub transferred: Tps,
}

/// Sums since the start, for 28.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct PutTotals {
    pub messages: u64,
    pub bytes: u64,
    pub failed: u64,
}

impl Stats {
    /// Empty counters for a broker of a cluster (the key of the BROKER_* statistics).
    pub fn new(cluster: &str, zone: Zone, now_ms: i64) -> Stats {
        Stats {
            topics: RwLock::default(),
            groups: RwLock::default(),
            broker_put: Item::new(now_ms),
            broker_get: Item::new(now_ms),
            totals: Totals::default(),
            days: Mutex::new(Days {
                day: zone.day(now_ms),
                ..Days::default()
            }),
            rates: Mutex::new(VecDeque::from([TotalsAt {
                at_ms: now_ms,
                ..TotalsAt::default()
            }])),
            now_ms: AtomicI64::new(now_ms),
            cluster: cluster.to_owned(),
            zone,
        }
    }

    /// Messages stored by a send.
    pub fn put(&self, topic: &str, messages: u64, bytes: u64) {
        let add = |puts: &Puts| {
            puts.nums.add(messages, messages);
            puts.size.add(bytes, messages);
        };
        let topics = self.topics.read();
        if let Some(puts) = topics.get(topic) {
            add(puts);
            drop(topics);
        } else {
            drop(topics);
            add(&self.new_topic(topic));
        }
        self.totals.put.fetch_add(messages, Relaxed);
        self.totals.put_bytes.fetch_add(bytes, Relaxed);
        if !topic::is_system(topic) {
            self.broker_put.add(messages, messages);
        }
    }

    /// A send that was refused by the store.
    pub fn put_failed(&self) {
        self.totals.put_failed.fetch_add(1, Relaxed);
    }

    /// Messages handed to a group by a pull.
    pub fn get(&self, group: &str, topic: &str, messages: u64, bytes: u64) {
        let gets = self.gets(group, topic);
        gets.nums.add(messages, 1);
        gets.size.add(bytes, 1);
        self.totals.found.fetch_add(1, Relaxed);
        self.totals.transferred.fetch_add(messages, Relaxed);
        if !topic::is_system(topic) {
            self.broker_get.add(messages, 1);
        }
    }

    /// A pull that found nothing.
    pub fn miss(&self) {
        self.totals.missed.fetch_add(1, Relaxed);
    }

    /// A message that a consumer sent back (36).
    pub fn send_back(&self, group: &str, topic: &str) {
        self.gets(group, topic).send_back.add(1, 1);
    }

    fn gets(&self, group: &str, topic: &str) -> Arc<Gets> {
        let found = self
            .groups
            .read()
            .get(group)
            .and_then(|topics| topics.get(topic))
            .cloned();
        found.unwrap_or_else(|| self.new_group(group, topic))
    }

    fn new_topic(&self, topic: &str) -> Arc<Puts> {
        let now = self.now_ms.load(Relaxed);
        let made = || {
            Arc::new(Puts {
                nums: Item::new(now),
                size: Item::new(now),
            })
        };
        self.topics
            .write()
            .entry(topic.into())
            .or_insert_with(made)
            .clone()
    }

    fn new_group(&self, group: &str, topic: &str) -> Arc<Gets> {
        let now = self.now_ms.load(Relaxed);
        let made = || {
            Arc::new(Gets {
                nums: Item::new(now),
                size: Item::new(now),
                send_back: Item::new(now),
            })
        };
        let mut groups = self.groups.write();
        groups
            .entry(group.into())
            .or_default()
            .entry(topic.into())
            .or_insert_with(made)
            .clone()
    }

    /// A topic is gone: so are its counters.
    pub fn topic_deleted(&self, topic: &str) {
        self.topics.write().remove(topic);
        self.groups.write().retain(|_, topics| {
            topics.remove(topic);
            !topics.is_empty()
        });
    }

    /// A group is gone: so are its counters.
    pub fn group_deleted(&self, group: &str) {
        self.groups.write().remove(group);
    }

    /// Moves the windows on; called each second.
    pub fn sample(&self, now_ms: i64) {
        self.now_ms.store(now_ms, Relaxed);
        self.broker_put.sample(now_ms);
        self.broker_get.sample(now_ms);
        for puts in self.topics.read().values() {
            puts.nums.sample(now_ms);
            puts.size.sample(now_ms);
        }
        for gets in self.groups.read().values().flat_map(HashMap::values) {
            gets.nums.sample(now_ms);
            gets.size.sample(now_ms);
            gets.send_back.sample(now_ms);
        }
        let mut rates = self.rates.lock();
        rates.push_back(self.totals.at(now_ms));
        if rates.len() > RATE_SECONDS + 1 {
            rates.pop_front();
        }
        drop(rates);
        let mut days = self.days.lock();
        let day = self.zone.day(now_ms);
        if day != days.day {
            days.day = day;
            days.put = [days.put[1], self.broker_put.value.load(Relaxed)];
            days.get = [days.get[1], self.broker_get.value.load(Relaxed)];
        }
    }

    /// Messages taken in and handed out today and yesterday, system topics left out.
    pub fn daily(&self) -> (DailyTotals, DailyTotals) {
        let days = self.days.lock();
        let of = |mornings: [u64; 2], item: &Item| DailyTotals {
            yesterday_morning: mornings[0],
            today_morning: mornings[1],
            now: item.value.load(Relaxed),
        };
        (
            of(days.put, &self.broker_put),
            of(days.get, &self.broker_get),
        )
    }

    /// Sums since the start.
    pub fn put_totals(&self) -> PutTotals {
        PutTotals {
            messages: self.totals.put.load(Relaxed),
            bytes: self.totals.put_bytes.load(Relaxed),
            failed: self.totals.put_failed.load(Relaxed),
        }
    }

    /// Rates up to now.
    pub fn rates(&self, now_ms: i64) -> Rates {
        let now = self.totals.at(now_ms);
        let history = self.rates.lock();
        let mut rates = Rates::default();
        for (slot, span_ms) in [10_000, 60_000, 600_000].into_iter().enumerate() {
            // The oldest snapshot that the span still covers; a young broker has none that old and uses its first.
            let after = history.partition_point(|then| then.at_ms < now_ms - span_ms);
            let Some(then) = history.get(after).or(history.back()) else {
                continue;
            };
            let seconds = (now_ms - then.at_ms).max(1000) as f64 / 1000.0;
            let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / seconds;
            rates.put[slot] = rate(now.put, then.put);
            rates.get_found[slot] = rate(now.found, then.found);
            rates.get_miss[slot] = rate(now.missed, then.missed);
            rates.get_total[slot] = rate(now.found + now.missed, then.found + then.missed);
            rates.transferred[slot] = rate(now.transferred, then.transferred);
        }
        rates
    }

    /// Messages a second into a topic over the last minute.
    pub fn topic_put_tps(&self, topic: &str, now_ms: i64) -> f64 {
        let found = self.topics.read().get(topic).cloned();
        found.map_or(0.0, |puts| puts.nums.minute(now_ms).tps)
    }

    /// Messages a second out of a topic to a group over the last minute.
    pub fn group_get_tps(&self, group: &str, topic: &str, now_ms: i64) -> f64 {
        let found = self
            .groups
            .read()
            .get(group)
            .and_then(|topics| topics.get(topic))
            .cloned();
        found.map_or(0.0, |gets| gets.nums.minute(now_ms).tps)
    }

    /// VIEW_BROKER_STATS_DATA: the windows of a statistic; `None` when there is none of that name and key.
    pub fn view(&self, name: &str, key: &str, now_ms: i64) -> Option<BrokerStatsData> {
        let topic = || self.topics.read().get(key).cloned();
        let group = || {
            let (topic, group) = key.split_once('@')?;
            self.groups.read().get(group)?.get(topic).cloned()
        };
        let data = match name {
            "TOPIC_PUT_NUMS" => topic()?.nums.data(now_ms),
            "TOPIC_PUT_SIZE" => topic()?.size.data(now_ms),
            "GROUP_GET_NUMS" => group()?.nums.data(now_ms),
            "GROUP_GET_SIZE" => group()?.size.data(now_ms),
            // There from the first one on, as in Java.
            "SNDBCK_PUT_NUMS" => group()
                .filter(|gets| gets.send_back.times.load(Relaxed) > 0)?
                .send_back
                .data(now_ms),
            "BROKER_PUT_NUMS" if key == self.cluster => self.broker_put.data(now_ms),
            "BROKER_GET_NUMS" if key == self.cluster => self.broker_get.data(now_ms),
            _ => return None,
        };
        Some(data)
    }
}

impl Totals {
    fn at(&self, at_ms: i64) -> TotalsAt {
        TotalsAt {
            at_ms,
            put: self.put.load(Relaxed),
            found: self.found.load(Relaxed),
            missed: self.missed.load(Relaxed),
            transferred: self.transferred.load(Relaxed),
        }
    }
}

/// One statistic: a sum, how often it was added to, and its past.
#[derive(Debug)]
struct Item {
    value: AtomicU64,
    times: AtomicU64,
    windows: Mutex<[Window; 3]>,
}

#[derive(Clone, Copy, Debug)]
struct Snapshot {
    at_ms: i64,
    value: u64,
    times: u64,
}

/// Snapshots `step_ms` apart, at most `steps` of them.
#[derive(Debug)]
struct Window {
    step_ms: i64,
    steps: usize,
    snapshots: VecDeque<Snapshot>,
}

impl Window {
    fn sample(&mut self, now: Snapshot) {
        if self
            .snapshots
            .back()
            .is_none_or(|last| now.at_ms - last.at_ms >= self.step_ms)
        {
            self.snapshots.push_back(now);
            if self.snapshots.len() > self.steps {
                self.snapshots.pop_front();
            }
        }
    }

    fn up_to(&self, now: Snapshot) -> BrokerStatsItem {
        let Some(first) = self.snapshots.front() else {
            return BrokerStatsItem::default();
        };
        let sum = now.value.saturating_sub(first.value);
        let times = now.times.saturating_sub(first.times);
        BrokerStatsItem {
            sum: sum as i64,
            // A statistic younger than a second would otherwise show an absurd rate.
            tps: sum as f64 * 1000.0 / (now.at_ms - first.at_ms).max(1000) as f64,
            avgpt: if times == 0 {
                0.0
            } else {
                sum as f64 / times as f64
            },
        }
    }
}

impl Item {
    fn new(now_ms: i64) -> Item {
        let start = Snapshot {
            at_ms: now_ms,
            value: 0,
            times: 0,
        };
        let window = |step_ms, steps| Window {
            step_ms,
            steps,
            snapshots: VecDeque::from([start]),
        };
        Item {
            value: AtomicU64::new(0),
            times: AtomicU64::new(0),
            windows: Mutex::new([
                window(MINUTE_STEP_MS, 6),
                window(HOUR_STEP_MS, 6),
                window(DAY_STEP_MS, 24),
            ]),
        }
    }
    fn add(&self, value: u64, times: u64) {
        self.value.fetch_add(value, Relaxed);
        self.times.fetch_add(times, Relaxed);
    }
    fn now(&self, at_ms: i64) -> Snapshot {
        Snapshot {
            at_ms,
            value: self.value.load(Relaxed),
            times: self.times.load(Relaxed),
        }
    }
    fn sample(&self, now_ms: i64) {
        let now = self.now(now_ms);
        self.windows
            .lock()
            .iter_mut()
            .for_each(|window| window.sample(now));
    }
    fn minute(&self, now_ms: i64) -> BrokerStatsItem {
        self.windows.lock()[0].up_to(self.now(now_ms))
    }
    fn data(&self, now_ms: i64) -> BrokerStatsData {
        let now = self.now(now_ms);
        let [minute, hour, day] = &*self.windows.lock();
        BrokerStatsData {
            stats_minute: minute.up_to(now),
            stats_hour: hour.up_to(now),
            stats_day: day.up_to(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: i64 = 24 * DAY_STEP_MS;
    const START: i64 = 20_000 * DAY_MS;

    fn item(sum: i64, tps: f64, avgpt: f64) -> BrokerStatsItem {
        BrokerStatsItem { sum, tps, avgpt }
    }

    #[test]
    fn the_minute_window_forgets_what_is_older_than_a_minute() {
        let stats = Stats::new("C", Zone::default(), START);
        for second in 0..100 {
            stats.put("T", 10, 1000);
            stats.sample(START + second * 1000);
        }
        let data = stats
            .view("TOPIC_PUT_NUMS", "T", START + 100_000)
            .expect("the topic has puts");
        // Snapshots stand at 40 s, 50 s … 90 s: the oldest covers 410 messages of 1000, 60 s ago.
        assert_eq!(data.stats_minute, item(590, 590.0 / 60.0, 1.0));
        assert_eq!(data.stats_hour, item(1000, 10.0, 1.0));
        assert_eq!(data.stats_day, item(1000, 10.0, 1.0));
        let sizes = stats
            .view("TOPIC_PUT_SIZE", "T", START + 100_000)
            .expect("the topic has puts");
        assert_eq!(sizes.stats_day, item(100_000, 1000.0, 100.0));
    }

    #[test]
    fn an_unknown_statistic_or_key_has_no_data() {
        let stats = Stats::new("C", Zone::default(), START);
        stats.get("g", "T", 3, 300);
        let known = |name, key| stats.view(name, key, START).is_some();
        assert!(known("GROUP_GET_NUMS", "T@g"));
        assert!(known("BROKER_GET_NUMS", "C"));
        assert!(!known("GROUP_GET_NUMS", "g@T"));
        assert!(!known("TOPIC_PUT_NUMS", "T"));
        assert!(!known("BROKER_PUT_NUMS", "other"));
        assert!(!known("SNDBCK_PUT_NUMS", "T@g"));
        stats.send_back("g", "T");
        assert!(known("SNDBCK_PUT_NUMS", "T@g"));
        stats.group_deleted("g");
        assert!(!known("GROUP_GET_NUMS", "T@g"));
    }

    #[test]
    fn midnight_moves_the_daily_totals_on_and_system_topics_do_not_count() {
        let stats = Stats::new("C", Zone::default(), START);
        stats.put("T", 5, 50);
        stats.put("SCHEDULE_TOPIC_XXXX", 7, 70);
        stats.get("g", "T", 2, 20);
        stats.sample(START + DAY_MS);
        stats.put("T", 3, 30);
        let (put, get) = stats.daily();
        assert_eq!(
            put,
            DailyTotals {
                yesterday_morning: 0,
                today_morning: 5,
                now: 8
            }
        );
        assert_eq!(
            get,
            DailyTotals {
                yesterday_morning: 0,
                today_morning: 2,
                now: 2
            }
        );
        stats.sample(START + 2 * DAY_MS);
        assert_eq!(
            stats.daily().0,
            DailyTotals {
                yesterday_morning: 5,
                today_morning: 8,
                now: 8
            }
        );
        assert_eq!(
            stats.put_totals(),
            PutTotals {
                messages: 15,
                bytes: 150,
                failed: 0
            }
        );
    }

    #[test]
    fn midnight_is_the_zones_own() {
        let zone = Zone::named("Asia/Shanghai").unwrap();
        // UTC midnight, 8 o'clock there: its day ends 16 hours later.
        let stats = Stats::new("C", zone, START);
        stats.put("T", 5, 50);
        stats.sample(START + 16 * DAY_STEP_MS - 1000);
        assert_eq!(stats.daily().0.today_morning, 0);
        stats.sample(START + 16 * DAY_STEP_MS);
        assert_eq!(stats.daily().0.today_morning, 5);
    }

    #[test]
    fn rates_cover_ten_seconds_a_minute_and_ten_minutes() {
        let stats = Stats::new("C", Zone::default(), START);
        for second in 1..=30 {
            if second > 20 {
                stats.put("T", 100, 1);
                stats.miss();
            }
            stats.sample(START + second * 1000);
        }
        let rates = stats.rates(START + 30_000);
        assert_eq!(rates.put, [100.0, 1000.0 / 30.0, 1000.0 / 30.0]);
        assert_eq!(rates.get_miss, [1.0, 10.0 / 30.0, 10.0 / 30.0]);
        assert_eq!(rates.get_found, [0.0; 3]);
    }
}
