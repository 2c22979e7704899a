// Sends ten orders and reads them back, with the official Apache client. The name server comes from NAMESRV_ADDR.
import java.nio.charset.StandardCharsets;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.rocketmq.client.consumer.DefaultMQPushConsumer;
import org.apache.rocketmq.client.consumer.listener.ConsumeConcurrentlyStatus;
import org.apache.rocketmq.client.consumer.listener.MessageListenerConcurrently;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.consumer.ConsumeFromWhere;
import org.apache.rocketmq.common.message.Message;

public class Orders {
    public static void main(String[] args) throws Exception {
        int count = 10;
        String run = Long.toString(System.nanoTime(), 36);

        DefaultMQProducer producer = new DefaultMQProducer("orders-producer");
        producer.start();
        for (int i = 0; i < count; i++) {
            byte[] body = ("order " + i).getBytes(StandardCharsets.UTF_8);
            // The key finds the message again in the console and with `mqadmin queryMsgByKey`.
            System.out.println("sent " + producer.send(new Message("orders", run, "order-" + i, body)));
        }

        CountDownLatch left = new CountDownLatch(count);
        DefaultMQPushConsumer consumer = new DefaultMQPushConsumer("orders-consumer-" + run);
        consumer.setConsumeFromWhere(ConsumeFromWhere.CONSUME_FROM_FIRST_OFFSET);
        consumer.subscribe("orders", run); // Only what this run sent: its tag.
        consumer.registerMessageListener((MessageListenerConcurrently) (messages, context) -> {
            messages.forEach(m -> {
                System.out.println("read " + new String(m.getBody(), StandardCharsets.UTF_8) + " from " + m.getBrokerName());
                left.countDown();
            });
            return ConsumeConcurrentlyStatus.CONSUME_SUCCESS;
        });
        consumer.start();
        boolean all = left.await(60, TimeUnit.SECONDS);
        consumer.shutdown();
        producer.shutdown();
        System.out.println(all ? "all " + count + " came back" : left.getCount() + " did not come back");
        System.exit(all ? 0 : 1);
    }
}
