#!/usr/bin/env python3
"""What one message costs the broker: allocations, bytes allocated, system calls by name, processor time.

    benches/cost.py                          all loads
    benches/cost.py --loads 16x1024,pull     some
    benches/cost.py --where 16x1024          also which code allocates, and how often a message

The broker is `broker-engine/examples/cost`, the engine's own with a counting allocator; rmqload is the load. Each load runs three
times: to warm up, with the allocations counted, and with the system calls counted (in the kernel by `perf stat` as root, else by
`strace -c`, which slows the broker so much that its batches grow: a lower bound then). Counts include what the connections of a
run cost, so --count should be large.
"""
import argparse, collections, json, os, re, resource, shutil, signal, subprocess, sys, tempfile, time
from pathlib import Path

from measure.servers import ROOT, built

# rmqload's command and options, and the share of --count that it gets: a single request in flight is slow.
LOADS = {
    "16x1024": ("send 1 KiB, 16 connections, 1024 in flight", 1, "produce --connections 16 --in-flight 1024 --size 1024"),
    "64x64": ("send 1 KiB, 64 connections, 64 in flight", 0.25, "produce --connections 64 --in-flight 64 --size 1024"),
    "1x1": ("send 1 KiB, one in flight", 0.05, "produce --connections 1 --in-flight 1 --size 1024"),
    "small": ("send 128 B, 16 connections, 1024 in flight", 1, "produce --connections 16 --in-flight 1024 --size 128"),
    "batch": ("send batches of 32 x 1 KiB", 1, "produce --connections 16 --in-flight 64 --size 1024 --batch 32"),
    "pull": ("pull 32 x 1 KiB", 1, "consume --connections 4"),
}


class Broker:
    def __init__(self, program, work, port):
        self.program, self.address = program, f"127.0.0.1:{port}"
        conf = Path(work) / "broker.properties"
        conf.write_text(f"bindAddress=127.0.0.1\nbrokerIP1=127.0.0.1\nlistenPort={port}\nstorePathRootDir={work}/store\n")
        self.log = open(Path(work) / "log", "w+")
        self.process = subprocess.Popen([program, str(conf)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.pid = self.process.pid
        while "broker ready" not in Path(self.log.name).read_text():
            if self.process.poll() is not None:
                sys.exit(f"the broker did not start:\n{Path(self.log.name).read_text()}")
            time.sleep(0.02)

    def counts(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def stop(self):
        self.process.terminate()
        self.process.wait()


def load(rmqload, broker, command, topic, count, under=()):
    """One run of rmqload, under another program if one is given; its messages and its report."""
    words = command.split()
    if words[0] == "produce":
        words += ["--count", str(count)]
    line = [*under, rmqload, *words, "--addr", broker.address, "--topic", topic, "--queues", "8", "--server-pid", str(broker.pid), "--json"]
    out = subprocess.run(line, stdout=subprocess.PIPE, text=True)
    said = json.loads(out.stdout or "{}")
    if not said.get("ok") or said.get("refused"):
        sys.exit(f"{' '.join(line)}: {out.stdout}")
    return said["acked_total"] if words[0] == "produce" else said["messages"], said


def can_perf():
    return shutil.which("perf") and subprocess.run(["perf", "stat", "-e", "syscalls:sys_enter_read", "true"], capture_output=True).returncode == 0


def syscalls(run, broker, work):
    """System calls by name, and the messages, of one run."""
    seen, out = collections.Counter(), str(Path(work) / "syscalls")
    if can_perf():
        # An event a call, thread and processor.
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        messages, _ = run(["perf", "stat", "-x", ",", "-o", out, "-e", "syscalls:sys_enter_*", "-p", str(broker.pid), "--"])
        for line in Path(out).read_text().splitlines():
            if hit := re.match(r"(\d+),[^,]*,syscalls:sys_enter_(\w+),", line):
                seen[hit[2]] += int(hit[1])
        return seen, messages
    if not shutil.which("strace"):
        sys.exit("neither perf (as root) nor strace is here to count system calls")
    with open(Path(work) / "strace.log", "w+") as said:
        tracer = subprocess.Popen(["strace", "-c", "-f", "-o", out, "-p", str(broker.pid)], stderr=said)
        while "attached" not in Path(said.name).read_text():
            if tracer.poll() is not None:
                sys.exit(f"strace: {Path(said.name).read_text()}")
            time.sleep(0.02)
    messages, _ = run([])
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    for line in Path(out).read_text().splitlines():
        f = line.split()
        if len(f) >= 5 and f[3].isdigit() and f[-1] != "total":
            seen[f[-1]] += int(f[3])
    return seen, messages


def where(run, broker, work, all_of_them):
    """The code that allocates: one call in so many is unwound; their shares of all allocations of a message are printed."""
    probes, every, data = [], 17, str(Path(work) / "perf.data")
    try:
        for name in ("malloc", "calloc", "realloc"):
            if subprocess.run(["perf", "probe", "-q", "-x", broker.program, "--add", f"rmqcost:{name}={name}"], capture_output=True).returncode == 0:
                probes.append(f"rmqcost:{name}")
        if not probes:
            sys.exit("perf could not set a probe on malloc: root, and a kernel with uprobes")
        events = [w for p in probes for w in ("-e", p)]
        run(["perf", "record", "-q", *events, "-c", str(every), "--call-graph", "dwarf,8192", "-o", data, "-p", str(broker.pid), "--"])
        script = subprocess.run(["perf", "script", "-i", data, "-F", "event,ip,sym"], capture_output=True, text=True).stdout
    finally:
        for p in probes:
            subprocess.run(["perf", "probe", "-q", "--del", p], capture_output=True)
    inner = re.compile(r"^(__libc_)?(malloc|calloc|realloc)|alloc::|alloc\b.*raw_vec|__rust|__rdl|RawVec|finish_grow|GlobalAlloc|\[unknown\]")
    paths = collections.Counter()
    for sample in script.strip().split("\n\n"):
        frames = [line.split(None, 1)[1] for line in sample.splitlines()[1:] if len(line.split(None, 1)) == 2]
        ours = [re.sub(r"::h[0-9a-f]{16}$|<|>", "", f) for f in frames if not inner.search(f)]
        paths[" < ".join(ours[:4])] += 1
    for path, n in paths.most_common(20):
        print(f"  {n / paths.total() * all_of_them:8.3f}  {path}")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--loads", default=",".join(LOADS), help="of: " + " ".join(LOADS))
    p.add_argument("--where", metavar="LOAD", choices=LOADS)
    p.add_argument("--count", type=int, default=1_000_000, help="messages of the fastest loads (1,000,000)")
    p.add_argument("--port", type=int, default=22911)
    p.add_argument("--json", action="store_true", help="one JSON object a load")
    a = p.parse_args()
    loads = a.loads.split(",") if not a.where or a.loads != ",".join(LOADS) else [a.where]
    program = built("COST", "-p", "broker-engine", "--example", "cost", cwd=ROOT, path="examples/cost")
    rmqload = built("RMQLOAD", cwd=ROOT / "benches/rmqload", path="rmqload")
    for name in loads:
        title, share, command = LOADS[name]
        count = max(1000, int(a.count * share))
        (ROOT / "target").mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="cost-", dir=ROOT / "target") as work:
            broker = Broker(program, work, a.port)
            try:
                load(rmqload, broker, "produce --connections 4 --in-flight 1024 --size 1024 --create-topic", "cost", count if name == "pull" else 1000)
                run = lambda under=(): load(rmqload, broker, command, "cost", count, under)
                run()
                before = broker.counts()
                messages, said = run()
                after = broker.counts()
                made = {k: (after[k] - before[k]) / messages for k in after}
                calls, of = syscalls(run, broker, work)
                each = {k: v / of for k, v in calls.most_common() if v}
                cpu = said["server"]["cpu_us_per_msg"]
                if a.json:
                    print(json.dumps({"load": name, "messages": messages, **made, "syscalls": each, "server_cpu_us": cpu, "msgs_per_s": said["msgs_per_s"]}), flush=True)
                else:
                    print(f"{name}: {title}; {messages} messages, {said['msgs_per_s']:.0f}/s, {cpu:.2f} µs of server CPU each")
                    print(f"  allocations {made['allocations']:.3f}  reallocations {made['reallocations']:.3f}  bytes {made['bytes']:.0f}")
                    print(f"  syscalls {sum(each.values()):.3f}:  " + "  ".join(f"{k} {v:.3f}" for k, v in each.items() if v >= 0.0005), flush=True)
                if a.where == name:
                    print("  allocations a message, by who asked (innermost of ours first):", flush=True)
                    where(run, broker, work, made["allocations"] + made["reallocations"])
            finally:
                broker.stop()


main()
