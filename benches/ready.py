#!/usr/bin/env python3
"""How long `rmqctl up` takes on Docker, beside the floor: as many containers that do nothing, created and started with the
same parallelism, on the same daemon, by turns with it.

    benches/ready.py --rmqctl target/<platform>/release/rmqctl [--runs 5] [--masters 2 --slaves 2] [--parallel 4]

Uses a cluster name and ports of its own, and removes what it made. Prints every run and the medians.
"""
import argparse, concurrent.futures, http.client, json, os, socket, statistics, subprocess, tempfile, time

NAME, LABEL = "rmqready", "rmqready.floor"


class Daemon(http.client.HTTPConnection):
    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))


def call(method, path, body=None, ok=(200, 201, 204)):
    c = Daemon("docker", timeout=60)
    c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
    r = c.getresponse()
    data = r.read()
    c.close()
    if r.status not in ok:
        raise SystemExit(f"{method} {path}: {r.status} {data.decode()[:300]}")
    return json.loads(data) if data else None


def floor(image, n, parallel):
    """Seconds for a network and n containers that only wait to be stopped."""
    labels = {LABEL: "1"}

    def one(i):
        made = call("POST", f"/containers/create?name={NAME}-floor{i}", {
            # Any command of the engine that stays: a name server alone, on no published port.
            "Image": image, "Cmd": ["engine", "namesrv"], "Labels": labels,
            "HostConfig": {"NetworkMode": f"{NAME}-floor", "RestartPolicy": {"Name": "no"}}})
        call("POST", f"/containers/{made['Id']}/start")
        return made["Id"]

    began = time.monotonic()
    net = call("POST", "/networks/create", {"Name": f"{NAME}-floor", "Labels": labels})["Id"]
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        ids = list(pool.map(one, range(n)))
    took = time.monotonic() - began
    with concurrent.futures.ThreadPoolExecutor(parallel) as pool:
        list(pool.map(lambda i: call("DELETE", f"/containers/{i}?force=1&v=1", ok=(204, 404)), ids))
    call("DELETE", f"/networks/{net}")
    return took


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--rmqctl", required=True)
    p.add_argument("--runs", type=int, default=5)
    p.add_argument("--masters", default="2")
    p.add_argument("--slaves", default="2")
    p.add_argument("--parallel", type=int, default=4)
    p.add_argument("--offset", default="12000", help="of the ports from RocketMQ's own (12000)")
    p.add_argument("--json", action="store_true", help="a last line for programs")
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as conf:
        env = dict(os.environ, NO_COLOR="1")

        def ctl(*args, check=True):
            r = subprocess.run([a.rmqctl, "--name", NAME, *args], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if check and r.returncode:
                raise SystemExit(f"rmqctl {' '.join(args)} ended with {r.returncode}:\n{r.stdout}")
            return r.stdout

        ups, floors, memory, image = [], [], {}, None
        try:
            ctl("down", "--volumes", check=False)
            # The first run builds the image; it is shown and not counted.
            for run in range(a.runs + 1):
                began = time.monotonic()
                ctl("up", "--runtime", "docker", "--masters", a.masters, "--slaves", a.slaves, "--port-offset", a.offset, "--conf-dir", conf)
                up = time.monotonic() - began
                mine = json.dumps({"label": [f"io.rmqctl.cluster={NAME}"]})
                rows = call("GET", "/containers/json?filters=" + mine.replace('"', "%22").replace(" ", ""))
                image = rows[0]["Image"]
                if run == a.runs:
                    for row in rows:
                        stats = call("GET", f"/containers/{row['Id']}/stats?stream=false&one-shot=true")["memory_stats"]
                        cache = stats.get("stats", {})
                        memory[row["Names"][0].lstrip("/")] = stats["usage"] - cache.get("total_inactive_file", cache.get("inactive_file", 0))
                ctl("down", "--volumes")
                bare = floor(image, len(rows), a.parallel)
                first = " (image built, not counted)" if run == 0 else ""
                print(f"run {run}: up {up:.2f} s, {len(rows)} bare containers {bare:.2f} s{first}", flush=True)
                if run:
                    ups.append(up)
                    floors.append(bare)
        finally:
            ctl("down", "--volumes", check=False)
        u, f = statistics.median(ups), statistics.median(floors)
        print(f"median: up {u:.2f} s, floor {f:.2f} s, ratio {u / f:.2f}")
        size = call("GET", f"/images/{image}/json")["Size"]
        print(f"image {image}: {size / 2**20:.1f} MiB")
        for name, used in sorted(memory.items()):
            print(f"  {name:<28} {used / 2**20:6.1f} MiB (usage less inactive file cache)")
        if a.json:
            print(json.dumps({"up_s": ups, "floor_s": floors, "image_mib": size / 2**20}))


main()
