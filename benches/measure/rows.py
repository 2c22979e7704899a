"""The rows of the table: what each does to the servers. A row is called once a round and notes samples."""
import functools, json, os, re, resource, signal, subprocess, sys, time

from .servers import MAX_OFFSET, Java, Ours, PEERS, ROOT, Sink, ask, dial, first_ack, stop

ROWS = {}


def row(call):
    ROWS[call.__name__] = call
    return call


def alone(call):
    """A row beside which no Apache broker is kept: it would use memory and wake up."""
    @functools.wraps(call)
    def cleared(bench):
        bench.java_again()
        call(bench)
    return cleared


def servers(bench, kind="plain"):
    """The three of them, by turns: the first of this round was the second of the last. Each is started when its turn comes."""
    flags = {"plain": [], "sync": ["--flush", "sync"]}[kind]
    java = {"plain": bench.java, "sync": lambda: bench.java("--flush", "SYNC_FLUSH")}[kind]
    all_of_them = [lambda: Ours(bench, *flags).start(), lambda: Sink(bench, "sink", *(["--sync"] if kind == "sync" else [])).start()]
    if bench.with_java:
        all_of_them.append(java)
    return bench.turns(all_of_them)


def send(bench, name, *options, gib):
    for start in servers(bench):
        with start() as server:
            bench.load(name, server, "produce", "--topic", f"{name}{bench.round}", *bench.created(server), *options, *bench.timed(), gib=gib)


@row
def send64(bench):
    send(bench, "send64", "--connections", "64", "--in-flight", "64", "--size", "1024", gib=0.5)


@row
def send1024(bench):
    send(bench, "send1024", "--connections", "16", "--in-flight", "1024", "--size", "1024", gib=1.5)


@row
def small(bench):
    send(bench, "small", "--connections", "16", "--in-flight", "1024", "--size", "128", gib=0.75)


@row
def batch(bench):
    send(bench, "batch", "--connections", "16", "--in-flight", "64", "--size", "1024", "--batch", "32", gib=4)


def fill(bench, server, topic, count):
    bench.run(server, "produce", "--topic", topic, *bench.created(server), "--connections", "16", "--in-flight", "64", "--size", "1024", "--batch", "32",
              "--count", str(count), "--seconds", "600")


@row
def pull(bench):
    """Reads what was just written, then a smaller topic by ten groups at once."""
    count, fan = bench.sized(1_000_000), bench.sized(200_000)
    starts = [lambda: Ours(bench).start()]
    for how in ("copy", "sendfile"):
        starts.append(lambda how=how: Sink(bench, how, "--store", "none", "--pulls", how, "--pull-messages", str(count)).start())
    if bench.with_java:
        starts.append(bench.java)
    for start in bench.turns(starts):
        with start() as server:
            topic = f"pull{bench.round}"
            stored = not isinstance(server, Sink)
            if stored:
                fill(bench, server, topic, count)
                fill(bench, server, "fan" + topic, fan)
            bench.load("pull", server, "consume", "--connections", "4", "--topic", topic if stored else "rmqload")
            if stored:
                bench.load("fanout", server, "fanout", "--groups", "10", "--connections", "2", "--topic", "fan" + topic)


@row
def e2e(bench):
    for rate in (2000, 10000):
        for start in servers(bench):
            with start() as server:
                paced = ["--topic", f"e2e{bench.round}", "--rate", str(rate), "--size", "1024", "--connections", "4", *bench.created(server)]
                bench.load(f"e2e{rate}", server, "produce" if isinstance(server, Sink) else "e2e", *paced, *bench.timed(longer=1.6))


@row
def topics(bench):
    """All of our own within 1024 open files, each on a broker of its own: what an earlier load has left in memory is not a matter of topics."""
    many = bench.sized(10_000, least=2_000)
    common = ["--queues", "4", "--connections", "16", "--in-flight", "1024", "--size", "1024"]
    thousand = ["many-topics", "--topic", f"k{bench.round}", "--topics", "1000", "--create-list", *common, *bench.timed()]
    def ours():
        with Ours(bench, files=1024).start() as server:
            bench.load("topics", server, "produce", "--topic", f"one{bench.round}", "--create-topic", *common, *bench.timed(), name="single", gib=1.5)
        with Ours(bench, files=1024).start() as server:
            bench.load("topics1k", server, *thousand, gib=1.5)
        with Ours(bench, files=1024).start() as server:
            # A queue's first message makes its directory and its file, once.
            line = ["many-topics", "--topic", f"m{bench.round}", "--topics", str(many), "--create-list", *common]
            bench.run(server, *line, "--warmup", "0", "--seconds", "1")
            server.until_queue_files(f"m{bench.round}", 4 * many)
            bench.load("topics", server, *line, *bench.timed(), gib=1.5)
    def java():
        with bench.java() as server:
            bench.load("topics1k", server, *thousand, gib=1.5)
        # Four thousand queues more would make it slower for other rows.
        bench.java_again()
    for turn in bench.turns([ours, java] if bench.with_java else [ours]):
        turn()


@row
def sync(bench):
    """SYNC_FLUSH; the servers are started once for the three loads."""
    for start in servers(bench, "sync"):
        with start() as server:
            for flying in (1, 64, 512):
                bench.load(f"sync{flying}", server, "produce", "--topic", f"sync{bench.round}", *bench.created(server), "--size", "1024",
                           "--connections", "1" if flying == 1 else "4", "--in-flight", str(flying), *bench.timed(), gib=0.5)


@row
def replica(bench):
    """SYNC_MASTER with a slave beside our own without; the time of both brokers counts."""
    def alone():
        server = Ours(bench).start()
        server.name = "alone"
        return server
    starts = [alone, lambda: Ours(bench, "--replication", "sync", slaves=1).start()]
    if bench.with_java:
        starts.append(lambda: bench.java("--role", "SYNC_MASTER", "--set", "inSyncReplicas=2", slaves=1))
    for start in bench.turns(starts):
        with start() as server:
            bench.load("replica", server, "produce", "--topic", f"replica{bench.round}", *bench.created(server), "--connections", "16", "--in-flight", "1024",
                       "--size", "1024", *bench.timed(), gib=2)


def pss(pid):
    """KiB of memory that are this process's share."""
    with open(f"/proc/{pid}/smaps_rollup") as text:
        return int(re.search(r"(?m)^Pss:\s+(\d+)", text.read())[1])


@row
@alone
def idle(bench):
    """Memory at rest, and with connections that asked one thing each and then nothing."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    count = min(bench.sized(10_000, least=2_000), hard - 500)
    starts = [lambda: Ours(bench).start()]
    if bench.with_java:
        starts.append(lambda: Java(bench).start(warm=False))
    for start in bench.turns(starts):
        with start() as server:
            time.sleep(5)  # at rest: what starting took is given back
            broker = server.pids[0]
            before, namesrv = pss(broker), pss(server.namesrv_pid)
            held = []
            try:
                for _ in range(count):
                    connection = dial(server.port, 10)
                    held.append(connection)
                    ask(connection, MAX_OFFSET, {"topic": "first", "queueId": 0})
                time.sleep(2)
                after = pss(broker)
            finally:
                for connection in held:
                    connection.close()
            bench.note("idle", server.name, {"broker_mib": before / 1024, "namesrv_mib": namesrv / 1024, "connection_kib": (after - before) / count,
                                             "connections": count})


@row
@alone
def start(bench):
    """From the exec of the broker to the first acknowledged message; the name server is there."""
    def ours():
        for _ in range(3):
            with Ours(bench) as server:
                began = time.monotonic()
                process = server.launch(server.brokers[0])
                bench.note("start", "ours", {"ms": (first_ack(server.port, "first", process) - began) * 1000})
    def java():
        with Java(bench).start(warm=False) as server:
            server.cluster("stop", "broker-a-0")
            # An empty store again, as ours has.
            subprocess.run(["rm", "-rf", str(server.dir / "broker-a-0/store")], check=True)
            began = time.monotonic()
            process = server.launch()
            bench.note("start", "java", {"ms": (first_ack(server.port, "first", process) - began) * 1000})
    for turn in bench.turns([ours, java] if bench.with_java else [ours]):
        turn()


@row
@alone
def restart(bench):
    """kill -9 in the middle of sends to a store of --restart-gib, and the first acknowledged message after it."""
    messages = int(bench.restart_gib * 2**30 / 1200)
    def one(server):
        bench.run(server, "produce", "--topic", "filled", "--create-topic", "--queues", "8", "--connections", "16", "--in-flight", "64", "--size", "1024", "--batch", "32",
                  "--count", str(messages), "--seconds", "1200")
        flying = subprocess.Popen([bench.rmqload, "produce", *server.where(), "--topic", "filled", "--queues", "8", "--connections", "16", "--in-flight", "1024",
                                   "--seconds", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(3)
        if isinstance(server, Ours):
            stop(server.processes["broker-a-master"], signal.SIGKILL)
        else:
            server.kill()
        flying.wait()
        began = time.monotonic()
        process = server.launch("broker-a-master") if isinstance(server, Ours) else server.launch()
        found = {"ms": (first_ack(server.port, "filled", process, 1800) - began) * 1000, "gib": bench.restart_gib}
        if isinstance(server, Ours):
            line = re.findall(r"store opened after.*", server.log())[-1]
            found["said"] = line
            again = int(re.search(r"(\d+) records dispatched again", line)[1])
            # What the checkpoint did not cover, at 1 GB/s, and a second.
            found["allowed_ms"] = 1000 + again * 1200 / 1e6
        bench.note("restart", server.name, found)
    def ours():
        with Ours(bench).start() as server:
            one(server)
    def java():
        with Java(bench).start(warm=False) as server:
            one(server)
    for turn in bench.turns([ours, java] if bench.with_java else [ours]):
        turn()


@row
@alone
def up(bench):
    """Two masters and two slaves on Docker, beside bare containers by turns with it (ready.py), and Java's as plain processes."""
    if bench.round == 0:
        if subprocess.run(["docker", "info"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode:
            bench.skip("up", "no Docker daemon answers")
        else:
            done = subprocess.run([sys.executable, str(ROOT / "benches/ready.py"), "--rmqctl", bench.rmqctl, "--runs", str(bench.rounds), "--json",
                                   "--offset", str(bench.port + 300 - 9876)],
                                  stdout=subprocess.PIPE, text=True, check=True)
            said = json.loads(done.stdout.splitlines()[-1])
            for number, (ours, floor) in enumerate(zip(said["up_s"], said["floor_s"])):
                bench.note("up", "ours", {"s": ours}, number)
                bench.note("up", "floor", {"s": floor}, number)
    if bench.with_java:
        place, port = bench.work / "java-four", bench.port + 200
        line = [PEERS, "up", "--masters", "2", "--slaves", "2", "--order", "together", "--wait-sync", "--heap", "1g", "--store", str(place),
                "--namesrv-port", str(port), "--base-port", str(port + 20)]
        try:
            began = time.monotonic()
            subprocess.run(line, check=True, stdout=subprocess.DEVNULL)
            bench.note("up", "java", {"s": time.monotonic() - began})
        finally:
            subprocess.run([PEERS, "wipe", "--store", str(place)], stdout=subprocess.DEVNULL)
