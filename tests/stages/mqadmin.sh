#!/usr/bin/env bash
# the Apache mqadmin on a cluster of ours
# needs: docker peers rmqctl rmqload
. "$(dirname "${BASH_SOURCE[0]}")/../harness.sh"
owns_cluster
O=$offset
comes_up() { up --masters 2 --slaves 2; }
cluster_list() {
    mqadmin clusterList >"$work/clusterList"
    has "$work/clusterList" "broker-a +0 +127\.0\.0\.1:$((10911 + O))" "broker-a +1 +127\.0\.0\.1:$((11911 + O))" \
        "broker-b +0 +127\.0\.0\.1:$((13911 + O))" "broker-b +1 +127\.0\.0\.1:$((12911 + O))"
}
update_topic() {
    mqadmin updateTopic -c DefaultCluster -t Orders -r 6 -w 6 >"$work/updateTopic"
    has "$work/updateTopic" "create topic to 127\.0\.0\.1:$((10911 + O)) success" "create topic to 127\.0\.0\.1:$((13911 + O)) success"
}
topic_list() { mqadmin topicList >"$work/topicList"; has "$work/topicList" '^Orders$'; }
topic_route() {
    mqadmin topicRoute -t Orders >"$work/topicRoute"
    has "$work/topicRoute" "\"0\": *\"127\.0\.0\.1:$((10911 + O))\"|0:\"127\.0\.0\.1:$((10911 + O))\"" 'writeQueueNums"?:6' broker-a broker-b
}
topic_status() {
    load produce --namesrv "$namesrv" --topic Orders --count 1200 --seconds 30 --keys
    mqadmin topicStatus -t Orders >"$work/topicStatus"
    # Name, queue, min, max, last update: twelve queues whose ends sum to what was sent.
    same "messages in topicStatus" "12 1200" "$(awk '$1 ~ /^broker-/ { n++; m += $4 } END { print n, m }' "$work/topicStatus")"
}
broker_status() {
    mqadmin brokerStatus -b "$master1" >"$work/brokerStatus"
    has "$work/brokerStatus" 'msgPutTotalTodayNow +: +[1-9]' 'bootTimestamp +: +[1-9]' 'commitLogMaxOffset +: +[1-9]' 'brokerVersionDesc'
}
# The Java client of the tool package sends one message that carries a key, and says its id.
send_one() {
    mqadmin sendMessage -t Orders -p "hello from mqadmin" -k key-1 -c TagA >"$work/sendMessage"
    has "$work/sendMessage" 'SEND_OK'
}
message_id() { awk '/SEND_OK/ { print $NF; exit }' "$work/sendMessage"; }
query_by_key() {
    by_key() { mqadmin queryMsgByKey -t Orders -k key-1 >"$work/queryMsgByKey"; grep -q "$(message_id)" "$work/queryMsgByKey"; }
    within 20 by_key
}
query_by_id() {
    mqadmin queryMsgById -t Orders -i "$(message_id)" >"$work/queryMsgById"
    has "$work/queryMsgById" 'Topic: +Orders' 'TagA' 'key-1'
}
consumer_progress() {
    # The stock benchmark's consumer reads all there is. It brings its offsets to the broker every few seconds, and not
    # when it is ended: it runs until the broker has them.
    tests/peers/bench.sh Consumer -n "$namesrv" -t Orders -g e2e_progress -ri 2000 >"$work/consumer" 2>&1 &
    # shellcheck disable=SC2064
    trap "kill $! 2>/dev/null || true" EXIT
    progress() {
        mqadmin consumerProgress -g e2e_progress >"$work/consumerProgress"
        same "queues, their ends, the group's offsets" "12 1201 1201" \
            "$(awk '$1 == "Orders" { n++; b += $4; c += $5 } END { print n, b, c }' "$work/consumerProgress")"
    }
    within 90 progress
    has "$work/consumerProgress" 'Consume Diff Total: 0'
    mqadmin consumerProgress >"$work/consumerProgressAll"
    has "$work/consumerProgressAll" '^e2e_progress '
}
check comes_up comes_up
[ "$last" = 0 ] || exit 1
for c in cluster_list update_topic topic_list topic_route topic_status broker_status send_one query_by_key query_by_id consumer_progress; do check "$c" "$c"; done
[ "$failed" = 0 ]
