#!/usr/bin/env python3
"""A consumer group that follows the route of a topic, and the proof that it got what was acknowledged.

  follow.py consume NAMESRV TOPIC GROUP OUT    reads every queue of every master, commits, and appends `broker queue offset`
                                               to OUT for each message, until SIGTERM
  follow.py check OUT ACKED…                   every message in the logs of `rmqload produce --acked-log` is in OUT
"""
import json
import signal
import socket
import struct
import sys
import threading

GET_ROUTE, PULL = 105, 11
FOUND, NO_NEW, NO_MATCH, MOVED = 0, 19, 20, 21
COMMIT, SUSPEND, SUBSCRIPTION = 1, 2, 4
stop = threading.Event()


class Peer:
    def __init__(self, address):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        self.opaque = 0

    def exactly(self, count):
        data = b""
        while len(data) < count:
            piece = self.socket.recv(count - len(data))
            if not piece:
                raise ConnectionError("closed")
            data += piece
        return data

    def ask(self, code, **fields):
        self.opaque += 1
        header = json.dumps({"code": code, "language": "OTHER", "version": 401, "opaque": self.opaque, "flag": 0,
                             "serializeTypeCurrentRPC": "JSON", "extFields": {k: str(v) for k, v in fields.items()}}).encode()
        self.socket.sendall(struct.pack(">II", 4 + len(header), len(header)) + header)
        while True:
            (length,) = struct.unpack(">I", self.exactly(4))
            frame = self.exactly(length)
            (size,) = struct.unpack(">I", frame[:4])
            size &= 0xFFFFFF
            answer = json.loads(frame[4:4 + size])
            if answer["opaque"] == self.opaque and answer["flag"] & 1:
                return answer, frame[4 + size:]


def masters(namesrv, topic):
    answer, body = Peer(namesrv).ask(GET_ROUTE, topic=topic, acceptStandardJsonOnly="true")
    if answer["code"] != 0:
        return {}
    route = json.loads(body)
    addresses = {b["brokerName"]: b["brokerAddrs"].get("0") for b in route["brokerDatas"]}
    return {q["brokerName"]: (addresses[q["brokerName"]], q["readQueueNums"]) for q in route["queueDatas"]
            if addresses.get(q["brokerName"])}


def offsets_of(body):
    at = 0
    while at < len(body):
        size, _, _, _, _, offset = struct.unpack(">IIIIIQ", body[at:at + 28])
        yield offset
        at += size


class Consumer:
    def __init__(self, namesrv, topic, group, out):
        self.namesrv, self.topic, self.group = namesrv, topic, group
        self.out, self.lock = open(out, "a", buffering=1), threading.Lock()
        self.next = {}  # (broker, queue) -> offset
        self.threads = {}

    def queue(self, broker, address, queue):
        try:
            peer = Peer(address)
            while not stop.is_set():
                at = self.next.get((broker, queue), 0)
                answer, body = peer.ask(PULL, consumerGroup=self.group, topic=self.topic, queueId=queue, queueOffset=at, maxMsgNums=32,
                                        sysFlag=COMMIT | SUSPEND | SUBSCRIPTION, commitOffset=at, suspendTimeoutMillis=1000,
                                        subscription="*", subVersion=0, expressionType="TAG")
                if answer["code"] == FOUND:
                    got = list(offsets_of(body))
                    with self.lock:
                        self.out.writelines(f"{broker} {queue} {o}\n" for o in got)
                elif answer["code"] not in (NO_NEW, NO_MATCH, MOVED):
                    print(f"{broker} {queue}: {answer['code']} {answer.get('remark')}", file=sys.stderr)
                    stop.wait(0.5)
                    continue
                self.next[(broker, queue)] = int(answer["extFields"]["nextBeginOffset"])
        except OSError as error:
            print(f"{broker} {queue}: {error}", file=sys.stderr)

    def run(self):
        while not stop.wait(0.5):
            try:
                route = masters(self.namesrv, self.topic)
            except OSError as error:
                print(f"{self.namesrv}: {error}", file=sys.stderr)
                continue
            for broker, (address, queues) in route.items():
                for queue in range(queues):
                    thread = self.threads.get((broker, queue))
                    if thread is None or not thread.is_alive():
                        thread = threading.Thread(target=self.queue, args=(broker, address, queue), daemon=True)
                        self.threads[(broker, queue)] = thread
                        thread.start()
        for thread in self.threads.values():
            thread.join(12)


def check(consumed, logs):
    with open(consumed) as lines:
        got = {tuple(line.split()) for line in lines}
    missing, brokers, total = [], set(), 0
    for log in logs:
        with open(log) as lines:
            names = [b["name"] for b in json.loads(next(lines).split(" ", 2)[2])["brokers"]]
            for line in lines:
                broker, _, queue, offset, *_ = line.split()
                total += 1
                brokers.add(names[int(broker)])
                if (names[int(broker)], queue, offset) not in got:
                    missing.append(f"{names[int(broker)]} queue {queue} offset {offset}")
    print(f"{total} acknowledged on {' '.join(sorted(brokers))}, {len(got)} consumed, {len(missing)} missing {missing[:5]}")
    return not missing and total > 0


if __name__ == "__main__":
    if sys.argv[1] == "consume":
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        Consumer(*sys.argv[2:6]).run()
    elif sys.argv[1] == "check":
        sys.exit(0 if check(sys.argv[2], sys.argv[3:]) else 1)
    else:
        sys.exit(__doc__)
