package conformance.remoting;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import conformance.harness.Env;
import conformance.harness.Until;
import java.util.List;
import java.util.Set;
import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.client.producer.SendStatus;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.MessageQueue;
import org.junit.jupiter.api.Test;

class Topics extends RemotingCase {
    @Test
    void createdBySending() throws Exception {
        assumeTrue(!"false".equals(brokerConfig("autoCreateTopicEnable")), "autoCreateTopicEnable=false on the broker");
        String t = Env.name("auto");
        SendResult r = producer().send(msg(t, "first"));
        assertEquals(SendStatus.SEND_OK, r.getSendStatus());
        Until.holds("the route", 40, () -> admin().examineTopicRouteInfo(t) != null);
        var qd = admin().examineTopicRouteInfo(t).getQueueDatas().get(0);
        assertEquals(4, qd.getWriteQueueNums(), "as many queues as the producer asks for by default");
        assertEquals(4, qd.getReadQueueNums());
        assertEquals(6, qd.getPerm());
        Sink s = new Sink();
        consume(group("auto"), t, "*", s);
        s.awaitExactly(List.of("first"), 20, 300);
    }

    @Test
    void unknown() throws Exception {
        String t = Env.name("unknown");
        var route = assertThrows(MQClientException.class, () -> admin().examineTopicRouteInfo(t));
        assertEquals(Codes.TOPIC_NOT_EXIST, route.getResponseCode());
        DefaultMQProducer p = newProducer(Env.name("unknown"));
        p.setCreateTopicKey(Env.name("nokey"));
        p.start();
        var send = assertThrows(MQClientException.class, () -> p.send(msg(t, "x")));
        assertTrue(Set.of(Codes.CLIENT_NOT_FOUND_TOPIC, Codes.TOPIC_NOT_EXIST).contains(send.getResponseCode()), send.toString());
        // A route the client believes in does not help: the broker itself refuses.
        String known = topicOnOne("known", 1);
        MessageQueue q = queues(known).get(0);
        // A 4.9 client has a broker's address only once it has asked for a route that leads there.
        p.send(msg(known, "x"));
        var broker = assertThrows(MQBrokerException.class, () -> p.send(msg(t, "x"), new MessageQueue(t, q.getBrokerName(), 0)));
        assertEquals(Codes.TOPIC_NOT_EXIST, broker.getResponseCode());
    }

    @Test
    void createUpdateDelete() throws Exception {
        String t = topicOnOne("crud", 2);
        String addr = oneMaster();
        assertTrue(admin().fetchAllTopicList().getTopicList().contains(t));
        assertTrue(admin().getTopicClusterList(t).contains(clusterName()));
        send(t, numbered("m", 4));
        change(new TopicConfig(t, 6, 6, 6));
        readAll(t, 4);
        DefaultMQProducer fresh = newProducer(Env.name("crud"));
        fresh.start();
        assertEquals(6, fresh.fetchPublishMessageQueues(t).size());
        SendResult r = fresh.send(msg(t, "in a new queue"), fresh.fetchPublishMessageQueues(t).stream().filter(q -> q.getQueueId() == 5).findFirst().orElseThrow());
        assertEquals(0, r.getQueueOffset());
        admin().deleteTopicInBroker(Set.of(addr), t);
        Compat.deleteInNameServer(admin(), Set.of(Env.NAMESRV.split(";")), clusterName(), t);
        Until.holds("gone", 20, () -> !admin().fetchAllTopicList().getTopicList().contains(t));
        var e = assertThrows(MQClientException.class, () -> admin().examineTopicRouteInfo(t));
        assertEquals(Codes.TOPIC_NOT_EXIST, e.getResponseCode());
        // A topic of the same name starts empty.
        change(new TopicConfig(t, 1, 1, 6));
        Until.holds("empty", 20, () -> admin().examineTopicStats(t).getOffsetTable().values().stream().allMatch(o -> o.getMaxOffset() == 0));
    }

    @Test
    void permissions() throws Exception {
        String t = topicOnOne("perm", 1);
        producer().send(msg(t, "before"));
        change(new TopicConfig(t, 1, 1, 4));
        DefaultMQProducer fresh = newProducer(Env.name("perm"));
        fresh.start();
        assertThrows(MQClientException.class, () -> fresh.send(msg(t, "x")), "the client finds no queue to write to");
        assertEquals(List.of("before"), readAll(t, 1).stream().map(RemotingCase::body).toList());
        change(new TopicConfig(t, 1, 1, 2));
        MessageQueue q = new MessageQueue(t, masters().firstKey(), 0);
        var r = assertThrows(MQBrokerException.class, () -> reader().pull(q, "*", 0, 1));
        assertEquals(Codes.NO_PERMISSION, r.getResponseCode());
    }

    @Test
    void newQueuesReachConsumers() throws Exception {
        String t = topicOnOne("grow", 2);
        Sink s = new Sink();
        var c = consume(group("grow"), t, "*", s);
        Until.holds("two queues", 20, () -> assigned(c).size() == 2);
        change(new TopicConfig(t, 4, 4, 6));
        Until.holds("four queues", 30, () -> assigned(c).size() == 4);
        for (int i = 0; i < 4; i++) {
            producer().send(msg(t, "m" + i), new MessageQueue(t, masters().firstKey(), i));
        }
        s.awaitExactly(numbered("m", 4), 20, 300);
    }

    @Test
    void badNames() throws Exception {
        for (String bad : List.of("with space", "semi;colon", "slash/ed")) {
            assertThrows(MQClientException.class, () -> producer().send(msg(bad, "x")), bad);
        }
        var e = assertThrows(Exception.class, () -> admin().createAndUpdateTopicConfig(oneMaster(), new TopicConfig("SCHEDULE_TOPIC_XXXX", 1, 1, 6)));
        assertFalse(e.getMessage().isEmpty());
        assertEquals(null, admin().fetchAllTopicList().getTopicList().contains("with space") ? "there" : null);
    }

    /** Fewer queues to write to first: what is in the others is still read. Then fewer to read from: their consumers let go. */
    @Test
    void fewerQueues() throws Exception {
        String t = topicOnOne("shrink", 4);
        Sink s = new Sink();
        var c = consume(group("shrink"), t, "*", s);
        Until.holds("four queues", 20, () -> assigned(c).size() == 4);
        change(new TopicConfig(t, 4, 2, 6));
        DefaultMQProducer fresh = newProducer(Env.name("shrink"));
        fresh.start();
        assertEquals(2, fresh.fetchPublishMessageQueues(t).size());
        for (int i = 0; i < 4; i++) {
            fresh.send(msg(t, "m" + i));
        }
        s.awaitExactly(numbered("m", 4), 20, 300);
        assertTrue(s.all.stream().allMatch(g -> g.msg().getQueueId() < 2), "only the first two queues are written to");
        assertEquals(4, assigned(c).size(), "all four are still read");
        change(new TopicConfig(t, 2, 2, 6));
        Until.holds("two queues", 30, () -> assigned(c).size() == 2);
        producer().send(msg(t, "last"), new MessageQueue(t, masters().firstKey(), 1));
        s.awaitAll(List.of("last"), 20);
    }
}
