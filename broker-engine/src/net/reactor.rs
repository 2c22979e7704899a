//! The threads that read and write all connections, one for two processors.
//!
//! A round reads what is ready on all of a thread's connections, hands it to their services, lets the services finish what the
//! round brought (a broker appends it to its log in one go), and writes all answers: no message changes threads, and what came
//! together is one append and one write. Other threads leave a word for a connection and ring once.

use super::connection::Connection;
use super::link::{End, Link, READ_MAX};
use super::{Limits, Round, Service, complaints};
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use rocketmq_protocol::Frame;
use std::collections::VecDeque;
use std::io::Result;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Threads at most: beyond them the log's one owner is what limits.
const THREADS_MAX: usize = 4;
/// Processors for each thread. Clients on the same machine, the kernel's part of connections, syncs and checkpoints take the others:
/// where each processor had its thread, two of them beside a busy client waited for each other at the log, and a message cost up
/// to a third more.
const PROCESSORS_EACH: usize = 2;
/// The token of the bell; connections have the numbers below it.
const BELL: Token = Token(usize::MAX);
/// Readiness events taken from the kernel at a time.
const EVENTS: usize = 256;
/// Times of connections are looked at this often at most.
const LOOK_MIN: Duration = Duration::from_millis(20);

/// Connections that belong together: a server's, or a client's.
#[derive(Debug, Default)]
pub(super) struct Group {
    pub limits: Limits,
    live: AtomicUsize,
    stopping: AtomicBool,
    killed: AtomicBool,
    gone: Notify,
    /// Bytes of frames that are not whole.
    half_bytes: AtomicUsize,
}

impl Group {
    /// No connections yet; each that comes is held to `limits`.
    pub fn within(limits: Limits) -> Arc<Group> {
        Arc::new(Group {
            limits,
            ..Group::default()
        })
    }
    /// How many connections live.
    pub fn live(&self) -> usize {
        self.live.load(Ordering::Acquire)
    }
    /// A connection holds `now` bytes of a frame that is not whole, where it held `before`. Returns what all hold.
    pub fn holds(&self, before: usize, now: usize) -> usize {
        // One that wraps around takes away; the sum is right whatever the order.
        let change = now.wrapping_sub(before);
        let held = self.half_bytes.fetch_add(change, Ordering::Relaxed);
        held.wrapping_add(change)
    }
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }
    pub fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }
    /// From now on nothing more is read; every connection writes what is queued, and ends.
    pub fn begin_stop(&self) {
        self.stopping.store(true, Ordering::Release);
        if self.live() > 0 {
            look_at_all();
        }
    }
    /// Stops, and returns when all connections have ended.
    pub async fn stop(&self) {
        self.begin_stop();
        loop {
            let gone = self.gone.notified();
            tokio::pin!(gone);
            gone.as_mut().enable();
            if self.live() == 0 {
                return;
            }
            gone.await;
        }
    }
    /// Ends all connections at once.
    pub fn kill(&self) {
        self.killed.store(true, Ordering::Release);
        if self.live() > 0 {
            look_at_all();
        }
    }
}

/// What others want of a reactor.
enum Order {
    Add(Box<Link>),
    /// A connection, by its token and its number: the token may be another's by then.
    Wake(usize, u64),
    /// Look at all connections' groups and times.
    Look,
}

/// A reactor as others see it.
struct Mailbox {
    orders: Mutex<Vec<Order>>,
    /// It will look at the orders before it sleeps: nobody needs to ring.
    awake: AtomicBool,
    bell: Waker,
}

impl Mailbox {
    fn leave(&self, order: Order) {
        self.orders.lock().push(order);
        if !self.awake.swap(true, Ordering::SeqCst)
            && let Err(error) = self.bell.wake()
        {
            tracing::error!(%error, "a thread of connections could not be woken");
        }
    }
}

/// Where a connection lives.
#[derive(Clone)]
pub(super) struct Home {
    mailbox: Arc<Mailbox>,
    token: usize,
    id: u64,
}

impl std::fmt::Debug for Home {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Home({})", self.token)
    }
}

impl Home {
    /// Has the reactor turn to the connection.
    pub fn wake(&self) {
        self.mailbox.leave(Order::Wake(self.token, self.id));
    }
}

/// The process's reactors. They start with the first connection and stay.
fn reactors() -> Result<&'static [Arc<Mailbox>]> {
    static ALL: OnceLock<Vec<Arc<Mailbox>>> = OnceLock::new();
    if let Some(all) = ALL.get() {
        return Ok(all);
    }
    static STARTING: Mutex<()> = Mutex::new(());
    let _starting = STARTING.lock();
    if ALL.get().is_none() {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let count = processors.div_ceil(PROCESSORS_EACH).min(THREADS_MAX);
        let all: Result<Vec<_>> = (0..count).map(|_| start()).collect();
        let _ = ALL.set(all?);
    }
    Ok(ALL.get().map_or(&[], Vec::as_slice))
}

fn start() -> Result<Arc<Mailbox>> {
    let poll = Poll::new()?;
    let mailbox = Arc::new(Mailbox {
        orders: Mutex::default(),
        awake: AtomicBool::new(false),
        bell: Waker::new(poll.registry(), BELL)?,
    });
    let reactor = Reactor {
        poll,
        mailbox: mailbox.clone(),
        links: Vec::new(),
        free: Vec::new(),
        ready: VecDeque::new(),
        look_at: None,
        looked: Instant::now(),
    };
    std::thread::Builder::new()
        .name("rmq-net".into())
        .spawn(move || reactor.run())?;
    Ok(mailbox)
}

fn look_at_all() {
    for mailbox in reactors().into_iter().flatten() {
        mailbox.leave(Order::Look);
    }
}

/// Gives a connection to one of the reactors. `service` sees its requests.
pub(super) fn add(
    stream: TcpStream,
    connection: Connection,
    service: Arc<dyn Service>,
    group: Arc<Group>,
) -> Result<()> {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let all = reactors()?;
    let stream = mio::net::TcpStream::from_std(stream.into_std()?);
    group.live.fetch_add(1, Ordering::AcqRel);
    let runtime = Handle::current();
    let link = Link::new(stream, connection, service, group, runtime);
    let turn = NEXT.fetch_add(1, Ordering::Relaxed) % all.len();
    all[turn].leave(Order::Add(Box::new(link)));
    Ok(())
}

/// The rounds under way on one thread, one a service.
#[derive(Default)]
pub(super) struct Rounds(Vec<Open>);

/// A round under way.
struct Open {
    service: Arc<dyn Service>,
    runtime: Handle,
    round: Box<dyn Round>,
}

impl Rounds {
    /// The service's round; it begins now if it has not.
    pub fn of(&mut self, service: &Arc<dyn Service>) -> &mut dyn Round {
        let mut open = self.0.iter();
        let place = match open.position(|open| Arc::ptr_eq(&open.service, service)) {
            Some(place) => place,
            None => {
                self.0.push(Open {
                    service: service.clone(),
                    runtime: Handle::current(),
                    round: service.clone().begin(),
                });
                self.0.len() - 1
            }
        };
        &mut *self.0[place].round
    }

    /// The service's round failed: nothing more is done with it.
    pub fn forget(&mut self, service: &Arc<dyn Service>) {
        self.0.retain(|open| !Arc::ptr_eq(&open.service, service));
    }

    fn finish(&mut self) {
        for open in self.0.drain(..) {
            let _runtime = open.runtime.enter();
            if catch_unwind(AssertUnwindSafe(|| open.round.finish())).is_err() {
                tracing::error!("finishing what connections brought failed; see above");
            }
        }
    }
}

struct Reactor {
    poll: Poll,
    mailbox: Arc<Mailbox>,
    links: Vec<Option<Box<Link>>>,
    free: Vec<usize>,
    /// Connections to turn to.
    ready: VecDeque<usize>,
    /// When the next connection's time is up.
    look_at: Option<Instant>,
    looked: Instant,
}

impl Reactor {
    fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        let mut orders = Vec::new();
        let mut room = Vec::with_capacity(READ_MAX);
        let mut frames = Vec::new();
        let mut rounds = Rounds::default();
        let mut turn = Vec::new();
        loop {
            self.sleep(&mut events);
            for event in &events {
                if event.token() == BELL {
                    continue;
                }
                let token = event.token().0;
                if let Some(link) = self.links.get_mut(token).and_then(Option::as_mut) {
                    link.closing |= event.is_read_closed() || event.is_error();
                    link.readable |= event.is_readable() || link.closing;
                    link.writable |= event.is_writable();
                    self.queue(token);
                }
            }
            self.take_orders(&mut orders);
            let now = Instant::now();
            turn.extend(self.ready.drain(..));
            for &token in &turn {
                self.read(token, &mut room, &mut frames, &mut rounds, now);
            }
            rounds.finish();
            // What the services answered meanwhile.
            self.take_orders(&mut orders);
            for &token in &turn {
                if let Some(link) = self.links[token].as_mut() {
                    link.queued = false;
                }
                self.write(token, now);
            }
            turn.clear();
            for token in std::mem::take(&mut self.ready) {
                if let Some(link) = self.links[token].as_mut() {
                    link.queued = false;
                    self.write(token, now);
                }
            }
            if self.look_at.is_some_and(|due| now >= due) && now >= self.looked + LOOK_MIN {
                self.look(now);
            }
        }
    }

    /// Waits for something to do, unless there is.
    fn sleep(&mut self, events: &mut Events) {
        let mut wait = self
            .look_at
            .map(|due| due.max(self.looked + LOOK_MIN))
            .map(|due| due.saturating_duration_since(Instant::now()));
        if self.ready.is_empty() {
            self.mailbox.awake.store(false, Ordering::SeqCst);
            // An order left before that rang for nobody.
            if !self.mailbox.orders.lock().is_empty() {
                wait = Some(Duration::ZERO);
            }
        } else {
            wait = Some(Duration::ZERO);
        }
        if let Err(error) = self.poll.poll(events, wait)
            && error.kind() != std::io::ErrorKind::Interrupted
        {
            // Nothing but a fault of this program's makes it fail; all connections of this thread are lost with it.
            panic!("waiting for connections failed: {error}");
        }
        self.mailbox.awake.store(true, Ordering::SeqCst);
    }

    fn queue(&mut self, token: usize) {
        if let Some(link) = self.links[token].as_mut()
            && !std::mem::replace(&mut link.queued, true)
        {
            self.ready.push_back(token);
        }
    }

    fn take_orders(&mut self, orders: &mut Vec<Order>) {
        std::mem::swap(orders, &mut *self.mailbox.orders.lock());
        for order in orders.drain(..) {
            match order {
                Order::Add(link) => self.add(link),
                Order::Wake(token, id) => {
                    if let Some(Some(link)) = self.links.get(token)
                        && link.connection.id() == id
                    {
                        self.queue(token);
                    }
                }
                Order::Look => self.look(Instant::now()),
            }
        }
    }

    fn add(&mut self, mut link: Box<Link>) {
        let token = self.free.pop().unwrap_or_else(|| {
            self.links.push(None);
            self.links.len() - 1
        });
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        if let Err(error) = registry.register(&mut link.stream, Token(token), interest) {
            self.free.push(token);
            let why = End::Said(format!("it could not be watched: {error}"));
            return finish(*link, why);
        }
        let id = link.connection.id();
        link.connection.outbox().settle(Home {
            mailbox: self.mailbox.clone(),
            token,
            id,
        });
        self.links[token] = Some(link);
        // What was sent over it before it had a home is written now.
        self.queue(token);
        // Its times, its group, which may have been stopped by now.
        self.look_at_one(token, Instant::now());
    }

    fn read(
        &mut self,
        token: usize,
        room: &mut Vec<u8>,
        frames: &mut Vec<Frame>,
        rounds: &mut Rounds,
        now: Instant,
    ) {
        let Some(link) = self.links[token].as_mut() else {
            return;
        };
        if !link.reads() {
            return;
        }
        let read = link.read(room, frames, rounds, now);
        room.clear();
        room.reserve(READ_MAX);
        match read {
            Ok(()) => {
                let due = link.due();
                self.look_at = Some(self.look_at.map_or(due, |at| at.min(due)));
            }
            Err(why) => {
                frames.clear();
                self.drop_link(token, why);
            }
        }
    }

    fn write(&mut self, token: usize, now: Instant) {
        let Some(link) = self.links[token].as_mut() else {
            return;
        };
        match link.write(now) {
            // What is left is read in the next round, behind all others.
            Ok(()) if link.reads() => self.queue(token),
            Ok(()) => {}
            Err(why) => self.drop_link(token, why),
        }
    }

    fn look(&mut self, now: Instant) {
        self.looked = now;
        self.look_at = None;
        for token in 0..self.links.len() {
            self.look_at_one(token, now);
        }
    }

    fn look_at_one(&mut self, token: usize, now: Instant) {
        let Some(link) = self.links[token].as_mut() else {
            return;
        };
        match link.look(now) {
            Ok(due) => self.look_at = Some(self.look_at.map_or(due, |at| at.min(due))),
            Err(why) => self.drop_link(token, why),
        }
    }

    fn drop_link(&mut self, token: usize, why: End) {
        if let Some(mut link) = self.links[token].take() {
            // Closing the socket takes it off the list anyway.
            let _ = self.poll.registry().deregister(&mut link.stream);
            self.free.push(token);
            finish(*link, why);
        }
    }
}

/// A connection's end, told to whoever should know.
fn finish(link: Link, why: End) {
    link.group.holds(link.held, 0);
    let Link {
        connection,
        service,
        group,
        runtime,
        stream,
        ..
    } = link;
    drop(stream);
    connection.ended();
    if let End::Said(why) = why {
        complaints::tell(connection.peer(), why);
    }
    let entered = runtime.enter();
    let told = catch_unwind(AssertUnwindSafe(|| service.on_close(&connection)));
    drop(entered);
    if told.is_err() {
        tracing::error!(peer = %connection.peer(), "telling the service of the connection's end failed");
    }
    if group.live.fetch_sub(1, Ordering::AcqRel) == 1 {
        group.gone.notify_waiters();
    }
}
