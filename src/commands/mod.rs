//! One file a command: its arguments and its function side by side. What several share is here: global flags, the
//! runtime, and how a cluster that runs is found again.

mod adopt;
mod bench;
mod chaos;
mod completion;
mod config;
mod doctor;
mod down;
mod dump;
mod engine;
mod env;
mod ephemeral;
#[cfg(test)]
mod examples;
mod exec;
mod explain;
mod export;
mod group;
mod image;
mod init;
mod logs;
mod ls;
mod man;
mod msg;
mod power;
mod prune;
mod raise;
mod run;
mod scale;
mod schema;
mod status;
mod terminal;
mod topic;
mod topics;
mod up;
mod upgrade;
mod verify;
mod wait;
mod why;
mod wire;
mod zone;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

use crate::error::{Error, Exit};
use crate::execute::{Outcome, Walk, execute};
use crate::interrupt::Interrupt;
use crate::lock::Lock;
use crate::plan::{self, Action, Moving, Observed, Plan, Step};
use crate::runtime::{self, Choice, Runtime};
use crate::spec::{ClusterSpec, DEFAULT_NAME, parse_duration, quoted, suggest};
use crate::topology::{self, Desired, Site};
use crate::ui::{Color, ProgressMode, Ui};

/// Brings up a RocketMQ high-availability cluster, on Docker or as plain processes.
#[derive(Debug, Parser)]
#[command(
    name = "rmqctl",
    version,
    propagate_version = true,
    max_term_width = 110,
    after_help = "\
Examples:
  rmqctl up --masters 2 --slaves 2     a cluster, ready when it returns
  rmqctl status                        its nodes
  rmqctl env                           how a program finds it
  rmqctl down --volumes                and it is gone
  rmqctl up --help                     every command has examples"
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Global")]
struct Global {
    /// Name of the cluster; several run side by side (rmq)
    #[arg(long, global = true, env = "RMQCTL_NAME", value_name = "NAME")]
    name: Option<String>,
    /// Where nodes run; auto: Docker when a daemon answers, else Podman, else processes
    #[arg(
        long,
        global = true,
        env = "RMQCTL_RUNTIME",
        value_name = "RUNTIME",
        default_value = "auto"
    )]
    runtime: RuntimeName,
    /// Docker daemon: unix:///var/run/docker.sock, ssh://USER@HOST, or tcp://HOST:2376 with DOCKER_TLS_VERIFY=1
    #[arg(short = 'H', long, global = true, value_name = "URL")]
    host: Option<String>,
    /// Docker context
    #[arg(long, global = true, value_name = "CONTEXT")]
    context: Option<String>,
    /// Calls of the runtime at a time
    #[arg(long, global = true, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Results and errors only
    #[arg(short, long, global = true)]
    quiet: bool,
    /// When to colour; NO_COLOR is honoured
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    color: Color,
    /// How to show progress
    #[arg(long, global = true, value_name = "MODE", default_value = "auto")]
    progress: ProgressMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum RuntimeName {
    Auto,
    Docker,
    /// Podman's service, through the same API; tried less than Docker
    Podman,
    Process,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(up::Up),
    Plan(up::PlanArgs),
    Down(down::Down),
    Run(run::Run),
    Prune(prune::Prune),
    Start(power::Start),
    Stop(power::Stop),
    Restart(power::Restart),
    Scale(scale::Scale),
    Upgrade(upgrade::Upgrade),
    Adopt(Box<adopt::Adopt>),
    #[command(visible_alias = "ps")]
    Status(status::Status),
    Ls(ls::Ls),
    Wait(wait::WaitArgs),
    Env(env::Env),
    Logs(logs::Logs),
    Config(config::Config),
    Chaos(chaos::Chaos),
    Doctor(doctor::Doctor),
    Why(why::Why),
    Dump(dump::Dump),
    Exec(exec::Exec),
    Cp(exec::Cp),
    Topic(topic::Topic),
    Group(group::Group),
    Msg(msg::Msg),
    Verify(verify::Verify),
    Bench(bench::Bench),
    Export(export::Export),
    Image(image::Image),
    Init(init::Init),
    Schema(schema::Schema),
    Completion(completion::Completion),
    Man(man::Man),
    Explain(explain::Explain),
    Version(init::Version),
    #[command(hide = true)]
    Engine(engine::Engine),
}

/// The command line of a node.
#[derive(Debug, Parser)]
#[command(name = "rmqctl", version, propagate_version = true)]
struct Node {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: NodeCommand,
}

#[derive(Debug, Subcommand)]
enum NodeCommand {
    Engine(engine::Engine),
}

impl Cli {
    /// What this process was asked; ends it when that is help or makes no sense.
    fn of_this_process() -> Cli {
        if std::env::args_os()
            .nth(1)
            .is_none_or(|word| word != "engine")
        {
            return Cli::parse();
        }
        // A node is idle for days: the tree of all commands, built to parse one, would stay in its memory.
        let node = Node::parse();
        let NodeCommand::Engine(args) = node.command;
        Cli {
            global: node.global,
            command: Command::Engine(args),
        }
    }
}

/// Parses, runs, and turns an error into its text and exit code.
pub fn main() -> ExitCode {
    let cli = Cli::of_this_process();
    let ui = Ui::new(cli.global.color, cli.global.progress, cli.global.quiet);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(reason) => {
            let error = Error::new(
                "RMQ-E001",
                Exit::Failed,
                "cannot start the program's threads",
            )
            .detail(reason.to_string());
            ui.error(&error, false);
            return ExitCode::from(error.exit as u8);
        }
    };
    let json = cli.command.is_json();
    // Behind a pointer: tokio compiles what it is given to run once for each kind of its runtime, and this is all of the commands.
    let command: Pin<Box<dyn Future<Output = Result<u8, Error>> + '_>> = Box::pin(run(cli, &ui));
    let code = match runtime.block_on(command) {
        Ok(code) => code,
        Err(error) => {
            ui.error(&error, json);
            error.exit as u8
        }
    };
    // A look that a lost race left behind must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(100));
    ExitCode::from(code)
}

impl Command {
    /// Whether errors are to be JSON, as the result would be.
    fn is_json(&self) -> bool {
        match self {
            Command::Up(args) => args.is_json(),
            Command::Scale(args) => args.is_json(),
            Command::Plan(args) => args.is_json(),
            Command::Status(args) => args.is_json(),
            Command::Ls(args) => args.is_json(),
            Command::Prune(args) => args.is_json(),
            Command::Wait(args) => args.is_json(),
            Command::Env(args) => args.is_json(),
            Command::Doctor(args) => args.is_json(),
            Command::Why(args) => args.is_json(),
            Command::Topic(args) => args.is_json(),
            Command::Group(args) => args.is_json(),
            Command::Msg(args) => args.is_json(),
            Command::Verify(args) => args.is_json(),
            Command::Bench(args) => args.is_json(),
            Command::Config(args) => args.is_json(),
            Command::Explain(args) => args.is_json(),
            Command::Image(args) => args.is_json(),
            _ => false,
        }
    }
}

async fn run(cli: Cli, ui: &Ui) -> Result<u8, Error> {
    if let Command::Engine(args) = cli.command {
        return engine::run(args).await;
    }
    let interrupt = Interrupt::listen().map_err(|reason| {
        Error::new("RMQ-E001", Exit::Failed, "cannot listen for signals").detail(reason.to_string())
    })?;
    let cwd = std::env::current_dir().map_err(|reason| {
        Error::new("RMQ-E001", Exit::Failed, "the working directory is gone")
            .detail(reason.to_string())
    })?;
    let said = match &cli.command {
        Command::Up(args) => args.dump_on_failure.as_deref(),
        _ => None,
    };
    let mut session = Session {
        dump_on_failure: dump::on_failure(said),
        global: cli.global,
        ui,
        interrupt,
        cwd,
        file_name: OnceLock::new(),
    };
    match cli.command {
        Command::Up(args) => up::up(args, &session).await,
        Command::Plan(args) => up::plan(args, &session).await,
        Command::Down(args) => down::down(args, &session).await,
        Command::Prune(args) => prune::prune(args, &session).await,
        Command::Run(args) => {
            session.global.name.get_or_insert_with(run::unique_name);
            run::run(args, &session).await
        }
        Command::Start(args) => power::start(args, &session).await,
        Command::Stop(args) => power::stop(args, &session).await,
        Command::Restart(args) => power::restart(args, &session).await,
        Command::Scale(args) => scale::scale(args, &session).await,
        Command::Upgrade(args) => upgrade::upgrade(args, &session).await,
        Command::Adopt(args) => adopt::adopt(*args, &session).await,
        Command::Status(args) => status::status(args, &session).await,
        Command::Ls(args) => ls::ls(args, &session).await,
        Command::Wait(args) => wait::wait(args, &session).await,
        Command::Env(args) => env::env(args, &session).await,
        Command::Logs(args) => logs::logs(args, &session).await,
        Command::Config(args) => config::config(args, &session).await,
        Command::Chaos(args) => chaos::chaos(args, &session).await,
        Command::Doctor(args) => doctor::doctor(args, &session).await,
        Command::Dump(args) => dump::dump(args, &session).await,
        Command::Why(args) => why::why(args, &session).await,
        Command::Exec(args) => exec::exec(args, &session).await,
        Command::Cp(args) => exec::cp(args, &session).await,
        Command::Topic(args) => topic::topic(args, &session).await,
        Command::Group(args) => group::group(args, &session).await,
        Command::Msg(args) => msg::msg(args, &session).await,
        Command::Verify(args) => verify::verify(args, &session).await,
        Command::Bench(args) => bench::bench(args, &session).await,
        Command::Export(args) => export::export(args, &session).await,
        Command::Image(args) => image::image(args, &session).await,
        Command::Init(args) => init::init(args, &session),
        Command::Schema(args) => Ok(schema::schema(args, &session)),
        Command::Completion(args) => Ok(completion::completion(args, &session)),
        Command::Man(args) => man::man(args, &session),
        Command::Explain(args) => explain::explain(args, &session),
        Command::Version(args) => Ok(init::version(args, &session)),
        Command::Engine(_) => unreachable!("it was taken above, before signals are listened to"),
    }
}

/// One run of the program.
struct Session<'a> {
    global: Global,
    ui: &'a Ui,
    interrupt: Interrupt,
    cwd: PathBuf,
    /// Where nodes that do not come up are dumped.
    dump_on_failure: Option<PathBuf>,
    /// The name that --file gave, once it was read.
    file_name: OnceLock<String>,
}

#[cfg(test)]
impl<'a> Session<'a> {
    /// A session that nothing was typed for.
    fn for_tests(ui: &'a Ui) -> Self {
        Session {
            dump_on_failure: None,
            global: Cli::parse_from(["rmqctl", "ls"]).global,
            ui,
            interrupt: Interrupt::listen().expect("a test may listen for signals"),
            cwd: PathBuf::from("/"),
            file_name: OnceLock::new(),
        }
    }
}

/// A cluster that exists: rebuilt from the spec that is kept with it.
struct Cluster {
    runtime: Box<dyn Runtime>,
    spec: ClusterSpec,
    desired: Desired,
}

impl Session<'_> {
    /// Name of the cluster: as the command line, else the file gives it.
    fn name(&self) -> &str {
        let from_file = || self.file_name.get().map(String::as_str);
        self.global
            .name
            .as_deref()
            .or_else(from_file)
            .unwrap_or(DEFAULT_NAME)
    }

    /// Opens the runtime for a cluster of this name.
    async fn open(&self, name: &str) -> Result<Box<dyn Runtime>, Error> {
        let choice = match self.global.runtime {
            RuntimeName::Auto => Choice::Auto,
            RuntimeName::Docker => Choice::Docker,
            RuntimeName::Podman => Choice::Podman,
            RuntimeName::Process => Choice::Process,
        };
        Ok(runtime::open(
            choice,
            name,
            self.global.host.as_deref(),
            self.global.context.as_deref(),
        )
        .await?)
    }

    /// The cluster of this session's name, or an error that says what there is.
    async fn cluster(&self) -> Result<Cluster, Error> {
        let name = self.name();
        let runtime = self.open(name).await?;
        if let Some(cluster) = Cluster::find(runtime, name).await? {
            return Ok(cluster);
        }
        let runtime = self.open(name).await?;
        let error = Error::new(
            "RMQ-E110",
            Exit::Failed,
            format!("there is no cluster `{name}` ({} runtime)", runtime.kind()),
        );
        let error = match runtime.clusters().await?.as_slice() {
            [] => error.detail("there is no cluster at all"),
            some => error
                .detail(format!("there are: {}", some.join(", ")))
                .hint(format!("rmqctl --name {} …", some[0])),
        };
        Err(error.hint(self.again("up --masters 2 --slaves 2")))
    }

    /// Takes the lock of a cluster.
    async fn lock(&self, runtime: &dyn Runtime, name: &str) -> Result<Lock, Error> {
        let waiting = || {
            self.ui.note(&format!(
                "another rmqctl is changing cluster {name}; waiting for it"
            ))
        };
        tokio::select! {
            lock = Lock::cluster(runtime.kind(), name, waiting) => lock,
            () = self.interrupt.requested() => Err(self.interrupt.error().detail("nothing was changed")),
        }
    }

    /// How this cluster is named on a command line that we suggest.
    fn again(&self, rest: &str) -> String {
        suggest(self.name(), rest)
    }

    /// The hint that the command as it was typed would go on from here.
    fn goes_on(&self) -> String {
        let typed: Vec<String> = std::env::args()
            .skip(1)
            .map(|argument| quoted(&argument))
            .collect();
        format!("rmqctl {}   goes on", typed.join(" "))
    }

    /// The same session for what must come to its end though somebody asked us to stop.
    fn unhurried(&self) -> Self {
        Self {
            global: self.global.clone(),
            ui: self.ui,
            interrupt: Interrupt::never(),
            cwd: self.cwd.clone(),
            dump_on_failure: self.dump_on_failure.clone(),
            file_name: self.file_name.clone(),
        }
    }

    /// Walks a plan with progress shown for each node.
    async fn walk(
        &self,
        plan: &Plan,
        runtime: &dyn Runtime,
        desired: &Desired,
        await_timeout: Duration,
    ) -> Outcome {
        self.ui
            .begin(&desired.cluster, plan.stages.iter().flatten().count());
        let on_step = |step: &Step, done: bool| self.show_step(step, done, plan, desired);
        let on_progress = |step: &Step, how_far: &str| {
            self.ui.doing(&step_name(step, desired), how_far);
        };
        let walk = Walk {
            runtime,
            desired,
            parallel: usize::from(self.global.parallel),
            await_timeout,
            interrupt: &self.interrupt,
            on_step: &on_step,
            on_progress: &on_progress,
        };
        execute(plan, &walk).await
    }

    fn show_step(&self, step: &Step, done: bool, plan: &Plan, desired: &Desired) {
        if done {
            self.ui.step();
        }
        let what = step_name(step, desired);
        let (doing, end) = match &step.action {
            Action::EnsureImage => ("loading", "in place"),
            Action::CreateNetwork | Action::RemoveNetwork if desired.site != Site::Network => {
                return;
            }
            Action::CreateNetwork => ("creating", desired.network.as_str()),
            Action::RemoveNetwork => ("removing", "removed"),
            Action::CreateNode(_) => ("creating", "created"),
            Action::Configure(_) => ("configuring", "configured"),
            Action::StartNode(_) => ("starting", "started"),
            Action::StopNode(_) => ("stopping", "stopped"),
            Action::RemoveNode(_) => ("removing", "removed"),
            Action::AwaitNode(_) => ("waiting until it is ready", "ready"),
            Action::Drain(_) => ("emptying", "empty: read by every group, copied, no sends"),
            Action::Reopen(_) => ("opening for sends", "open for sends again"),
            Action::RemoveVolume(_) => ("removing", "removed"),
            Action::MoveForeign(moved) => match moved.how {
                Moving::Stop => ("stopping what it was", "stopped and set aside"),
                // A name takes no time.
                Moving::Rename => return,
                Moving::Start => ("putting back", "put back"),
            },
            Action::CopyStore(_) => ("copying its store", "store copied"),
            Action::RemoveForeign(_) => ("removing", "removed"),
            // They take milliseconds, and nobody asked about them.
            Action::CreateVolume(_) | Action::StoreSpec => return,
        };
        // A node is done with the last step that touches it; one that starts is done when it is ready, which is told then.
        let node = step.action.container();
        let last = node.is_none()
            || plan
                .stages
                .iter()
                .flatten()
                .rfind(|s| s.action.container() == node)
                == Some(step);
        if done && last && !matches!(step.action, Action::StartNode(_)) {
            self.ui.done(&what, end);
        } else {
            self.ui.doing(&what, if done { end } else { doing });
        }
    }
}

/// What a step is about, as progress names it.
fn step_name(step: &Step, desired: &Desired) -> String {
    match &step.action {
        Action::EnsureImage => "engine image".to_owned(),
        Action::CreateNetwork | Action::RemoveNetwork => "network".to_owned(),
        Action::CreateVolume(volume) | Action::RemoveVolume(volume) => volume.clone(),
        Action::StoreSpec => "spec".to_owned(),
        Action::Drain(departure) => {
            let names: Vec<String> = departure.groups.iter().map(plan::Leaving::name).collect();
            names.join(", ")
        }
        Action::Reopen(brokers) => brokers.join(", "),
        Action::MoveForeign(moved) => moved.node.clone(),
        Action::CopyStore(copy) => copy.carrier.name.trim_end_matches("-copy").to_owned(),
        Action::RemoveForeign(name) => name.clone(),
        action => desired
            .node_name(action.container().unwrap_or_default())
            .to_owned(),
    }
}

impl Cluster {
    /// The cluster of this name, if a spec is kept with it.
    async fn find(runtime: Box<dyn Runtime>, name: &str) -> Result<Option<Self>, Error> {
        let Some(stored) = runtime.stored_spec(name).await? else {
            return Ok(None);
        };
        let spec = ClusterSpec::from_json(&stored)?;
        let desired = topology::desired(&spec, &runtime.site(name))?;
        Ok(Some(Self {
            runtime,
            spec,
            desired,
        }))
    }

    async fn observe(&self) -> Result<Observed, Error> {
        Ok(self.runtime.observe(&self.desired).await?)
    }
}

/// `--timeout` of commands that wait.
#[derive(Clone, Debug, clap::Args)]
struct Timeout {
    /// Deadline for all nodes together (60s, or wait.timeout of cluster.yaml)
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

impl Timeout {
    fn of(&self, spec: &ClusterSpec) -> Duration {
        self.timeout
            .unwrap_or(Duration::from_secs(spec.wait_timeout_seconds))
    }
}
