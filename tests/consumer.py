#!/usr/bin/env python3
"""A consumer group of one member, as small as the protocol allows: it heartbeats, reads a topic to its end on one broker,
commits its offsets, prints how many messages it read, and stays online until its standard input closes."""
import json
import socket
import struct
import sys

ADDRESS, GROUP, TOPIC, TAGS = sys.argv[1:5]
HEART_BEAT, PULL, UPDATE_OFFSET, TOPIC_STATS = 34, 11, 15, 202
host, port = ADDRESS.rsplit(":", 1)
stream = socket.create_connection((host, int(port)), timeout=10)


def exactly(count):
    data = b""
    while len(data) < count:
        more = stream.recv(count - len(data))
        if not more:
            raise SystemExit("the broker closed the connection")
        data += more
    return data


def call(code, fields=None, body=b""):
    call.opaque += 1
    header = json.dumps({"code": code, "language": "PYTHON", "version": 401, "opaque": call.opaque, "flag": 0,
                         "serializeTypeCurrentRPC": "JSON", "extFields": {k: str(v) for k, v in (fields or {}).items()}}).encode()
    stream.sendall(struct.pack(">ii", 4 + len(header) + len(body), len(header)) + header + body)
    while True:
        length, header_length = struct.unpack(">ii", exactly(8))
        answer = json.loads(exactly(header_length & 0xFFFFFF))
        rest = exactly(length - 4 - (header_length & 0xFFFFFF))
        # Requests of the broker's (the members changed) are passed over.
        if answer["flag"] & 1 and answer["opaque"] == call.opaque:
            return answer, rest


call.opaque = 0
subscription = {"topic": TOPIC, "subString": TAGS, "expressionType": "TAG", "subVersion": 1, "classFilterMode": False,
                "tagsSet": [t.strip() for t in TAGS.split("||") if TAGS != "*"], "codeSet": []}
call(HEART_BEAT, body=json.dumps({"clientID": "stage@1", "producerDataSet": [], "consumerDataSet": [{
    "groupName": GROUP, "consumeType": "CONSUME_PASSIVELY", "messageModel": "CLUSTERING",
    "consumeFromWhere": "CONSUME_FROM_FIRST_OFFSET", "subscriptionDataSet": [subscription], "unitMode": False}]}).encode())
read = 0
queues = 4
for queue in range(queues):
    at = 0
    while True:
        answer, records = call(PULL, {"consumerGroup": GROUP, "topic": TOPIC, "queueId": queue, "queueOffset": at, "maxMsgNums": 32,
                                      "sysFlag": 4, "commitOffset": 0, "suspendTimeoutMillis": 0, "subscription": TAGS,
                                      "subVersion": 1, "expressionType": "TAG"})
        while records:
            read, records = read + 1, records[struct.unpack(">i", records[:4])[0]:]
        following = int(answer["extFields"]["nextBeginOffset"])
        if answer["code"] not in (0, 20, 21) or following <= at:
            break
        at = following
    answer, _ = call(UPDATE_OFFSET, {"consumerGroup": GROUP, "topic": TOPIC, "queueId": queue, "commitOffset": at})
    assert answer["code"] == 0, answer
print(read, flush=True)
sys.stdin.read()
