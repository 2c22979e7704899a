"""The three servers that are compared, as plain processes on 127.0.0.1: ours, Apache's, rmqload's sink; and how they are asked."""
import os, re, resource, shutil, signal, socket, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT / "tests/peers"))
from probe import exchange  # noqa: E402
PEERS = ROOT / "tests/peers/cluster.sh"
UPDATE_TOPIC, MAX_OFFSET, CLUSTER_INFO, SEND_V2 = 17, 30, 106, 310


def built(variable, *cargo, cwd, path):
    """A program's path: what the variable says, or cargo's."""
    if os.environ.get(variable):
        return os.environ[variable]
    subprocess.run(["cargo", "build", "--release", *cargo], cwd=cwd, check=True, stdout=sys.stderr)
    host = re.search(r"host: (\S+)", subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout)[1]
    return str(Path(os.environ.get("CARGO_TARGET_DIR", cwd / "target")) / host / "release" / path)


def ask(connection, code, ext, body=b""):
    """Code and body of the answer."""
    head, answer = exchange(connection, code, ext, body)
    return head["code"], answer


def dial(port, timeout=1.0):
    s = socket.create_connection(("127.0.0.1", port), timeout)
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return s


def sent(connection, topic):
    """Whether one message is acknowledged; the topic is made by it."""
    ext = {"a": "compare", "b": topic, "c": "TBW102", "d": 4, "e": 0, "f": 0, "g": int(time.time() * 1000), "h": 0, "i": "", "j": 0, "k": "false"}
    return ask(connection, SEND_V2, ext, b"x" * 64)[0] == 0


def first_ack(port, topic, process, timeout=180):
    """When the first message is acknowledged, on the monotonic clock."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the broker ended with {process.returncode}")
        try:
            with dial(port) as connection:
                connection.settimeout(10)
                while not sent(connection, topic):
                    time.sleep(0.001)
                return time.monotonic()
        except OSError:
            time.sleep(0.001)
    raise RuntimeError(f"no message was acknowledged within {timeout} s")


def until(what, said, timeout=60):
    end = time.monotonic() + timeout
    while True:
        try:
            if what():
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise RuntimeError(f"{said} not within {timeout} s")
        time.sleep(0.01)


def open_files(limit):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


def stop(process, how=signal.SIGTERM):
    if process and process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
    if process:
        process.wait()


class Server:
    """What a row measures: where its clients go, and whose processor time counts."""
    name = ""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


class Ours(Server):
    """A name server, a master and perhaps a slave of the engine, from files that `rmqctl config render --profile prod` writes."""
    name = "ours"

    def __init__(self, bench, *flags, slaves=0, files=None):
        self.bench, self.dir, self.files = bench, bench.work / "ours", files
        self.processes, self.started = {}, False
        self.namesrv_port, self.port = bench.port, bench.port + 10
        shutil.rmtree(self.dir, ignore_errors=True)
        (self.dir / "conf").mkdir(parents=True)
        line = [bench.rmqctl, "--name", "rmqcompare", "config", "render", "--runtime", "process", "--masters", "1", "--slaves", str(slaves),
                "--profile", "prod", "--no-console", *flags, str(self.dir / "conf")]
        subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=dict(os.environ, XDG_STATE_HOME=str(self.dir / "state")))
        places = {"namesrv": self.namesrv_port, "broker-a-master": self.port, "broker-a-slave1": self.port + 10}
        for name, port in places.items():
            file = self.dir / "conf" / f"{name}.properties"
            if not file.exists():
                continue
            (self.dir / name).mkdir()
            to = {"listenPort": port, "haListenPort": port + 1, "namesrvAddr": f"127.0.0.1:{self.namesrv_port}",
                  "storePathRootDir": self.dir / name / "store", "kvConfigPath": self.dir / name / "kvConfig.json"}
            text = "".join(f"{k}={to.get(k, v)}\n" for k, v in re.findall(r"(?m)^(\w+)=(.*)$", file.read_text()))
            file.write_text(text)
            self.launch(name) if name == "namesrv" else None
        self.brokers = [n for n in list(places)[1:] if (self.dir / "conf" / f"{n}.properties").exists()]

    def launch(self, name):
        kind = "namesrv" if name == "namesrv" else "broker"
        with open(self.dir / f"{name}.log", "a") as log:
            limit = (lambda: open_files(self.files)) if self.files and kind == "broker" else None
            self.processes[name] = subprocess.Popen([self.bench.rmqctl, "engine", kind, "-c", str(self.dir / "conf" / f"{name}.properties")],
                                                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=limit)
        self.bench.children.append(self.processes[name])
        return self.processes[name]

    def start(self):
        for name in self.brokers:
            self.launch(name)
        first_ack(self.port, "first", self.processes["broker-a-master"])
        # rmqload asks the name server who the masters are.
        def registered():
            with dial(self.namesrv_port) as s:
                return b'"broker-a"' in ask(s, CLUSTER_INFO, {})[1]
        until(registered, "the registration")
        return self

    @property
    def pids(self):
        return [self.processes[n].pid for n in self.brokers if n in self.processes]

    @property
    def namesrv_pid(self):
        return self.processes["namesrv"].pid

    def where(self):
        return ["--namesrv", f"127.0.0.1:{self.namesrv_port}"]

    def until_queue_files(self, topics, count):
        """Until the queues of topics whose names begin so have files of their own."""
        queues = self.dir / "broker-a-master/store/consumequeue"
        until(lambda: sum(1 for _ in queues.glob(f"{topics}*/*/*")) >= count, f"{count} files of queues", timeout=120)

    def log(self):
        return (self.dir / "broker-a-master.log").read_text()

    def stop(self):
        for name in reversed(list(self.processes)):
            stop(self.processes[name])
        shutil.rmtree(self.dir, ignore_errors=True)


class Java(Server):
    """Apache's name server and brokers, each with a heap of 1 GiB, warmed up."""
    name = "java"

    def __init__(self, bench, *options, slaves=0):
        # One at a time: what idles beside the measured one still wakes up.
        bench.java_again()
        self.bench, self.dir = bench, bench.work / "java"
        self.namesrv_port, self.port = bench.port + 50, bench.port + 60
        self.asked = (options, slaves)
        self.options = [*options, "--masters", "1", "--slaves", str(slaves), "--namesrv-port", str(self.namesrv_port), "--base-port", str(self.port), "--heap", "1g"]
        if slaves:
            self.options.append("--wait-sync")
        self.cluster("wipe")
        self.own = None

    def cluster(self, *command):
        done = subprocess.run([PEERS, *command, "--store", str(self.dir)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"cluster.sh {' '.join(command)}: {done.stdout}")
        return done.stdout

    def start(self, warm=True):
        try:
            self.cluster("up", *self.options)
        except RuntimeError:
            # On a busy machine its first registration can time out; the next comes too late.
            self.cluster("wipe")
            self.cluster("up", *self.options)
        if warm:
            self.bench.warm_up(self)
        return self

    def launch(self):
        """Only the broker, as cluster.sh starts it, but known here from its first instant."""
        node = self.dir / "broker-a-0"
        with open(node / "log", "a") as log:
            self.own = subprocess.Popen(["java", *(node / "cmd").read_text().split("\n")[:-1]], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                        env=dict(os.environ, ROCKETMQ_HOME=str(node), NAMESRV_ADDR=(self.dir / "namesrv.addr").read_text().strip()))
        self.bench.children.append(self.own)
        (node / "pid").write_text(str(self.own.pid))
        return self.own

    def kill(self):
        if self.own:
            stop(self.own, signal.SIGKILL)
        else:
            self.cluster("kill", "broker-a-0")

    def pid(self, node):
        return int((self.dir / node / "pid").read_text())

    @property
    def pids(self):
        return [int(p.read_text()) for p in sorted(self.dir.glob("broker-*/pid"))]

    @property
    def namesrv_pid(self):
        return self.pid("namesrv")

    def where(self):
        return ["--namesrv", f"127.0.0.1:{self.namesrv_port}"]

    def stop(self):
        stop(self.own, signal.SIGKILL)
        self.cluster("wipe")


class Sink(Server):
    """rmqload's stand-in for the machine's limit."""

    def __init__(self, bench, name="sink", *options):
        self.bench, self.name, self.options = bench, name, options
        self.port = bench.port + 100
        self.process = None

    def start(self):
        line = [self.bench.rmqload, "sink", "--listen", f"127.0.0.1:{self.port}", "--file", str(self.bench.work / "sink.dat"), *self.options]
        self.process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.bench.children.append(self.process)
        def up():
            if self.process.poll() is not None:
                raise RuntimeError(f"the sink ended with {self.process.returncode}")
            dial(self.port).close()
            return True
        until(up, "the sink")
        return self

    @property
    def pids(self):
        return [self.process.pid]

    def where(self):
        return ["--addr", f"127.0.0.1:{self.port}"]

    def stop(self):
        stop(self.process)
        for file in self.bench.work.glob("sink.*"):
            file.unlink()
