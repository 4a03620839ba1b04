package cluster

import (
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"
)

// listenQueue is how many broadcasts may wait for one listener; NATS drops what comes
// on top, and the loss is logged.
const listenQueue = 4096

// Broadcast tells every member that listens to a subject, this one included. It
// returns before they have heard it.
func (c *Cluster) Broadcast(subject string, data []byte) error {
	subject, err := escape(subject)
	if err != nil {
		return err
	}
	if err := c.nats.Publish(subject, data); err != nil {
		return fmt.Errorf("broadcasting %s: %w", subject, err)
	}
	return nil
}

// Listen hears broadcasts to a subject, one after the other in the order in which
// each member sent them, until stop is called. Stop waits for hear to return, so
// hear must not call it.
func (c *Cluster) Listen(subject string, hear func(data []byte)) (stop func(), err error) {
	if subject, err = escape(subject); err != nil {
		return nil, err
	}
	l := &listener{messages: make(chan *nats.Msg, listenQueue), stop: make(chan struct{}), ended: make(chan struct{})}
	if err := c.startListener(l, subject, hear); err != nil {
		return nil, fmt.Errorf("listening to %s: %w", subject, err)
	}
	if err := c.settle(); err != nil {
		l.end()
		return nil, fmt.Errorf("listening to %s: %w", subject, err)
	}
	return l.end, nil
}

// listener is a goroutine that hears broadcasts to a subject.
type listener struct {
	sub      *nats.Subscription
	messages chan *nats.Msg
	once     sync.Once
	stop     chan struct{}
	ended    chan struct{}
}

func (c *Cluster) startListener(l *listener, subject string, hear func([]byte)) (err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	if l.sub, err = c.nats.ChanSubscribe(subject, l.messages); err != nil {
		return err
	}
	c.owned.Go(func() {
		defer close(l.ended)
		l.run(hear, c.ctx.Done())
	})
	return nil
}

func (l *listener) run(hear func([]byte), closed <-chan struct{}) {
	for {
		select {
		case m := <-l.messages:
			hear(m.Data)
		case <-l.stop:
			return
		case <-closed:
			return
		}
	}
}

func (l *listener) end() {
	l.once.Do(func() {
		l.sub.Unsubscribe() // fails only when the connection is closed
		close(l.stop)
	})
	<-l.ended
}
