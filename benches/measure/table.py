"""From samples to the table: medians, ratios of each round, and whether the targets are met."""
import dataclasses, statistics

# Cores that others may use while a row is measured.
BUSY = 0.15


@dataclasses.dataclass
class Line:
    """One measure of a row, with what it is held against. `most` is for what should be small: the ratio is a limit from above."""
    row: str
    title: str
    unit: str
    metric: str
    beside: tuple = ()          # servers whose least (or largest) value is the ceiling
    beside_metric: str = ""     # where it differs
    to_beside: float = 0
    to_java: float = 0
    most: bool = False
    fixed: float = 0            # an absolute limit instead of a ceiling
    digits: int = 0


RATE, CPU = "msgs_per_s", "server.cpu_us_per_msg"


def sends(row, title, at_least, java, cpu_at_most, metric=RATE, unit="msgs/s"):
    return [Line(row, title, unit, metric, ("sink",), to_beside=at_least, to_java=java),
            Line(row, f"{title}: server CPU", "µs/msg", CPU, ("sink",), to_beside=cpu_at_most, to_java=15, most=True, digits=2)]


LINES = [
    *sends("send64", "send 1 KiB, 64 connections, 64 in flight", 0.80, 6, 1.5),
    *sends("send1024", "send 1 KiB, 16 connections, 1024 in flight", 0.60, 12, 2.5),
    *sends("small", "send 128 B, 16 connections, 1024 in flight", 0.50, 10, 3),
    *sends("batch", "batch send, 32 × 1 KiB", 0.70, 4, 1.6, "mb_per_s", "MB/s"),
    Line("pull", "hot pull, 32 × 1 KiB: server CPU (ceiling: copy or sendfile, the less)", "µs/msg", CPU, ("copy", "sendfile"), to_beside=1.25, to_java=5, most=True, digits=2),
    Line("fanout", "10 groups read one topic (beside: one group)", "msgs/s", RATE, ("pull/ours",), to_beside=0.8),
    Line("fanout", "10 groups read one topic: server CPU", "µs/msg", CPU, to_java=8, most=True, digits=2),
    *[Line(f"e2e{rate}", f"end to end at {rate:,} msgs/s, {name}" + (" (beside: p99 of sends to the sink)" if name == "p99" else ""), "µs",
           f"delivery_latency.{key}", ("sink",) if name == "p99" else (), f"latency.{key}", to_beside=2, to_java=5, most=True)
      for rate in (2000, 10000) for name, key in (("p50", "p50_us"), ("p99", "p99_us"), ("p99.9", "p999_us"))],
    *[Line(f"sync{n}", f"SYNC_FLUSH, {n} in flight", "msgs/s", RATE, ("sink",), to_beside=floor, to_java=java)
      for n, floor, java in ((1, 0.90, 2), (64, 0.80, 7), (512, 0.70, 8))],
    Line("replica", "SYNC_MASTER with a slave, CPU of both (beside: ours without)", "µs/msg", CPU, ("alone",), to_beside=2.2, to_java=12, most=True, digits=2),
    Line("replica", "SYNC_MASTER with a slave", "msgs/s", RATE, ("alone",)),
    Line("topics", "{topics:,} topics × 4 queues, 1024 open files (beside: our single topic)", "msgs/s", RATE, ("single",), to_beside=0.8),
    Line("topics1k", "{topics:,} topics × 4 queues", "msgs/s", RATE, to_java=10),
    Line("idle", "idle memory (PSS), broker", "MiB", "broker_mib", fixed=12, to_java=20, most=True, digits=1),
    Line("idle", "idle memory (PSS), name server", "MiB", "namesrv_mib", fixed=6, to_java=20, most=True, digits=1),
    Line("idle", "one of {connections:,} idle connections", "KiB", "connection_kib", fixed=8, to_java=20, most=True, digits=1),
    Line("start", "start to the first acknowledged send", "ms", "ms", fixed=60, to_java=20, most=True),
    Line("restart", "the same after kill -9 under load, {gib:g} GiB stored (beside: 1 s + unchecked bytes at 1 GB/s)", "ms", "ms", ("restart/ours",), "allowed_ms", to_beside=1, to_java=10, most=True),
    Line("up", "2 masters, 2 slaves usable on Docker (beside: bare containers; Apache's as plain processes)", "s", "s", ("floor",), to_beside=1.3, to_java=4, most=True, digits=2),
]


def dig(values, path):
    for name in path.split("."):
        values = values.get(name) if isinstance(values, dict) else None
    return values


def by_round(samples, row, server, metric):
    """A round's value is the median of its samples."""
    found = {}
    for s in samples:
        if (s["row"], s["server"]) == (row, server) and s.get("ok", True) and isinstance(value := dig(s["values"], metric), (int, float)):
            found.setdefault(s["round"], []).append(value)
    return {n: statistics.median(v) for n, v in found.items()}


def figure(values, digits):
    """The median, and how far the rounds lie apart."""
    if not values:
        return "–"
    middle = statistics.median(values.values())
    spread = (max(values.values()) - min(values.values())) / middle * 100 if middle else 0
    return f"{middle:,.{digits}f}" + (f" (±{spread / 2:.0f} %)" if len(values) > 1 else "")


def ratios(ours, others):
    return {n: ours[n] / others[n] for n in ours.keys() & others.keys() if others[n]}


def verdict(met):
    return "met" if met else "**not met**"


def held(line, ratio):
    """The ratio to the ceiling beside the target."""
    if not ratio:
        return "–"
    middle, worst = statistics.median(ratio.values()), (max if line.most else min)(ratio.values())
    text = f"{middle:.2f}×" if line.most else f"{middle:.2f}"
    if line.to_beside:
        met = middle <= line.to_beside if line.most else middle >= line.to_beside
        text += f", target {'≤' if line.most else '≥'} {line.to_beside:g}: {verdict(met)}"
    return text + (f"; worst round {worst:.2f}" if len(ratio) > 1 else "")


def better(line, ratio):
    return {n: 1 / r if line.most else r for n, r in ratio.items() if r}


def against_java(line, ratio, beside):
    """`beside`: the same ratio of what is beside ours. A target that it misses as well is beyond this machine."""
    if not ratio:
        return "–"
    ratio, beside = better(line, ratio), better(line, beside)
    middle, worst = statistics.median(ratio.values()), min(ratio.values())
    show = (lambda v: f"1/{v:.1f}") if line.most else (lambda v: f"{v:.1f}×")
    text = show(middle)
    if line.to_java:
        text += f", target {'≤ 1/' if line.most else '≥ '}{line.to_java:g}{'' if line.most else '×'}: {verdict(middle >= line.to_java)}"
        if beside and middle <= (most := statistics.median(beside.values())) < line.to_java:
            text += f" (nor by what is beside it: {show(most)})"
    return text + (f"; worst {show(worst)}" if len(ratio) > 1 else "")


def ceiling(samples, line):
    """Of several servers the best of each round."""
    all_of_them = []
    for one in line.beside:
        row, _, server = one.rpartition("/")
        all_of_them.append(by_round(samples, row or line.row, server, line.beside_metric or line.metric))
    rounds = set().union(*all_of_them) if all_of_them else set()
    best = min if line.most else max
    return {n: best(v[n] for v in all_of_them if n in v) for n in rounds}


def title(samples, line):
    """With the sizes that a quick run makes smaller."""
    ours = next((s["values"] for s in samples if (s["row"], s["server"]) == (line.row, "ours")), None)
    return line.title.format(**ours) if ours and "{" in line.title else line.title


def remarks(samples, line, revision):
    """What a reader must know of the row: another revision than the table's, fewer rounds than others had, a machine that was busy,
    runs that failed or were refused."""
    mine = [s for s in samples if s["row"] == line.row]
    said = [f"revision {one}" for one in sorted({s.get("revision", revision) for s in mine} - {revision})]
    rounds = len({s["round"] for s in mine})
    if rounds < len({s["round"] for s in samples}):
        said.append(f"{rounds} round{'s' * (rounds != 1)}")
    busy = [s["others"] for s in mine if s.get("others", 0) > BUSY]
    if busy:
        said.append(f"machine busy in {len(busy)} of {len(mine)} runs, up to {max(busy):.2f} cores")
    if failed := [s["server"] for s in mine if not s.get("ok", True)]:
        said.append(f"{len(failed)} runs failed: {', '.join(sorted(set(failed)))}")
    if refused := sorted({s["server"] for s in mine if s["values"].get("refused")}):
        said.append(f"sends refused by {', '.join(refused)}")
    return f" *({'; '.join(said)})*" if said else ""


def markdown(samples, facts, skipped):
    wanted = [line for line in LINES if any(s["row"] == line.row for s in samples)]
    out = ["| measure | rmqctl | beside it | Apache | rmqctl to what is beside it | rmqctl to Apache |", "|---|---|---|---|---|---|"]
    counts = {"met": 0, "not": 0}
    for line in wanted:
        ours = by_round(samples, line.row, "ours", line.metric)
        java = by_round(samples, line.row, "java", line.metric)
        beside = ceiling(samples, line)
        if line.fixed:
            middle = statistics.median(ours.values()) if ours else None
            first = "–" if middle is None else f"target ≤ {line.fixed:g} {line.unit}: {verdict(middle <= line.fixed)}"
        else:
            first = held(line, ratios(ours, beside))
        alike = beside if line.beside_metric in ("", line.metric) else {}
        second = against_java(line, ratios(ours, java), ratios(alike, java))
        for cell in (first, second):
            counts["not"] += "**not met**" in cell
            counts["met"] += ": met" in cell
        said = remarks(samples, line, facts["revision"])
        out.append(f"| {title(samples, line)}, {line.unit}{said} | {figure(ours, line.digits)} | {figure(beside, line.digits)} | {figure(java, line.digits)} | {first} | {second} |")
    java = f" Apache is {facts['java']}, 1 GiB heap, warmed up." if facts["java"] else ""
    head = [f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gib']:.0f} GiB, Linux {facts['kernel']}, {facts['disk']}; {facts['date']}, revision {facts['revision']};"
            f" {facts['rounds']} round{'s' * (facts['rounds'] != 1)}, the servers by turns in each, as plain processes on loopback with the load on the same cores and memory that was touched before. `sink` only parses, stores and answers."
            f"{java} Figures are medians of the rounds (± half of what lies between the least and the most);"
            f" ratios are medians of each round's own.", ""]
    tail = ["", f"{counts['met']} targets met, {counts['not']} not met."]
    tail += [f"Left out: {row}: {why}." for row, why in skipped.items()]
    return "\n".join(head + out + tail) + "\n"
