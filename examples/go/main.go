// Sends ten orders and reads them back, with the official Apache client. The name server comes from NAMESRV_ADDR.
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/apache/rocketmq-client-go/v2"
	"github.com/apache/rocketmq-client-go/v2/consumer"
	"github.com/apache/rocketmq-client-go/v2/primitive"
	"github.com/apache/rocketmq-client-go/v2/producer"
	"github.com/apache/rocketmq-client-go/v2/rlog"
)

func main() {
	rlog.SetLogLevel("error")
	if err := run(10); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(count int) error {
	namesrv := primitive.NewPassthroughResolver(strings.Split(os.Getenv("NAMESRV_ADDR"), ";"))
	id := strconv.FormatInt(time.Now().UnixNano(), 36)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	p, err := rocketmq.NewProducer(producer.WithNsResolver(namesrv), producer.WithGroupName("orders-producer"))
	if err != nil {
		return err
	}
	if err := p.Start(); err != nil {
		return err
	}
	defer p.Shutdown()
	for i := range count {
		m := primitive.NewMessage("orders", []byte(fmt.Sprint("order ", i))).WithTag(id).WithKeys([]string{fmt.Sprint("order-", i)})
		sent, err := p.SendSync(ctx, m)
		if err != nil {
			return fmt.Errorf("sending order %d: %w", i, err)
		}
		fmt.Println("sent", sent)
	}

	read := make(chan string, count)
	c, err := rocketmq.NewPushConsumer(consumer.WithNsResolver(namesrv), consumer.WithGroupName("orders-consumer-"+id),
		consumer.WithConsumeFromWhere(consumer.ConsumeFromFirstOffset))
	if err != nil {
		return err
	}
	// Only what this run sent: its tag.
	only := consumer.MessageSelector{Type: consumer.TAG, Expression: id}
	err = c.Subscribe("orders", only, func(_ context.Context, messages ...*primitive.MessageExt) (consumer.ConsumeResult, error) {
		for _, m := range messages {
			read <- fmt.Sprintf("read %s from %s", m.Body, m.Queue.BrokerName)
		}
		return consumer.ConsumeSuccess, nil
	})
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	defer c.Shutdown()
	for i := range count {
		select {
		case line := <-read:
			fmt.Println(line)
		case <-ctx.Done():
			return fmt.Errorf("%d of %d came back", i, count)
		}
	}
	fmt.Println("all", count, "came back")
	return nil
}
