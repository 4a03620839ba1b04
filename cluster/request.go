package cluster

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// requestTimeout is for requests whose context has no deadline.
	requestTimeout = 5 * time.Second
	// requestQueue is how many arrived requests may wait for the dispatcher; NATS
	// drops what comes on top, and its requester's context ends the wait.
	requestQueue = 8192
	// handlersAtOnce bounds the handlers under way on this member, handlersPerSubject
	// those of one subject, so that a stuck node cannot starve the others. What comes
	// on top is answered with ErrBusy.
	handlersAtOnce     = 2048
	handlersPerSubject = 64
	// errorLength bounds the text of a handler's error that is sent back, in bytes.
	errorLength = 4096
)

// Headers of requests and answers.
const (
	headerTimeout = "Sallyport-Timeout" // how long the requester waits, as a Go duration
	headerStatus  = "Sallyport-Status"  // of an answer: absent for success
	statusError   = "error"             // the payload is the text of the handler's error
	statusBusy    = "busy"
	statusGone    = "gone" // the subject ceased to be served while the request was on its way
)

// RemoteError is what a handler on another member failed with.
type RemoteError struct {
	Subject string
	Text    string
}

// Error returns the text of the handler's error.
func (e *RemoteError) Error() string { return e.Text }

// Handler answers a request. Its context ends when the requester no longer waits or
// the cluster is closed.
type Handler func(ctx context.Context, data []byte) ([]byte, error)

// service is a served subject.
type service struct {
	subject string
	handle  Handler
	running atomic.Int32
}

// Serve answers requests to a subject until stop is called; each in a goroutine of
// its own. Where several members serve a subject, one of them gets each request. A
// subject may hold any text: dots part it, and what NATS does not allow is escaped.
//
// A served subject costs about a kilobyte and no goroutine, so that there may be
// thousands. Stop does not wait for handlers under way.
func (c *Cluster) Serve(subject string, h Handler) (stop func(), err error) {
	if subject, err = escape(subject); err != nil {
		return nil, err
	}
	sub, err := c.register(&service{subject: subject, handle: h})
	if err != nil {
		return nil, fmt.Errorf("serving %s: %w", subject, err)
	}
	stop = func() { c.unregister(sub) }
	if err := c.settle(); err != nil {
		stop()
		return nil, fmt.Errorf("serving %s: %w", subject, err)
	}
	return stop, nil
}

// register subscribes under the lock, so that the dispatcher finds the service of
// every message that it gets.
func (c *Cluster) register(s *service) (*nats.Subscription, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	// All subjects share one channel: a subscription with a callback would cost a
	// goroutine each.
	sub, err := c.nats.ChanQueueSubscribe(s.subject, "one", c.requests)
	if err == nil {
		c.services[sub] = s
	}
	return sub, err
}

func (c *Cluster) unregister(sub *nats.Subscription) {
	c.mu.Lock()
	_, served := c.services[sub]
	delete(c.services, sub)
	c.mu.Unlock()
	if !served {
		return
	}
	// Fails only when the connection is closed, and so the subscription too.
	sub.Unsubscribe()
}

// unregisterAll makes NATS send no more requests here.
func (c *Cluster) unregisterAll() {
	c.mu.Lock()
	subs := slices.Collect(maps.Keys(c.services))
	c.mu.Unlock()
	for _, sub := range subs {
		c.unregister(sub)
	}
	c.settle() // failing, the connection is lost, and requests with it
}

// dispatch starts the handlers of requests until the cluster is closed; then it
// turns away those that had arrived.
func (c *Cluster) dispatch() {
	for {
		select {
		case m := <-c.requests:
			c.begin(m)
		case <-c.ctx.Done():
			for len(c.requests) > 0 {
				c.begin(<-c.requests)
			}
			return
		}
	}
}

func (c *Cluster) begin(m *nats.Msg) {
	c.mu.Lock()
	s := c.services[m.Sub]
	c.mu.Unlock()
	if s == nil {
		c.answer(m, nil, ErrNoResponder)
		return
	}
	select {
	case c.slots <- struct{}{}:
	default:
		c.answer(m, nil, ErrBusy)
		return
	}
	if s.running.Add(1) > handlersPerSubject {
		s.running.Add(-1)
		<-c.slots
		c.answer(m, nil, ErrBusy)
		return
	}
	c.owned.Go(func() {
		defer func() { s.running.Add(-1); <-c.slots }()
		c.serve(s, m)
	})
}

func (c *Cluster) serve(s *service, m *nats.Msg) {
	ctx, cancel := context.WithTimeout(c.ctx, timeoutOf(m))
	defer cancel()
	reply, err := c.guard(ctx, s, m.Data)
	c.answer(m, reply, err)
}

// guard turns a panic of a handler into an error, as net/http does: one bad request
// must not end every session of this member.
func (c *Cluster) guard(ctx context.Context, s *service, data []byte) (reply []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			c.logger.Error("request handler panicked", "subject", s.subject, "panic", p, "stack", string(debug.Stack()))
			reply, err = nil, errors.New("internal error")
		}
	}()
	return s.handle(ctx, data)
}

// timeoutOf returns how long the requester waits, within reason.
func timeoutOf(m *nats.Msg) time.Duration {
	d, err := time.ParseDuration(m.Header.Get(headerTimeout))
	if err != nil || d <= 0 || d > time.Hour {
		return requestTimeout
	}
	return d
}

func (c *Cluster) answer(m *nats.Msg, reply []byte, err error) {
	a := nats.NewMsg(m.Reply)
	a.Data = reply
	switch {
	case err == ErrBusy: // from begin; a handler's own may wrap another member's
		a.Header.Set(headerStatus, statusBusy)
	case err == ErrNoResponder:
		a.Header.Set(headerStatus, statusGone)
	case err != nil:
		a.Header.Set(headerStatus, statusError)
		a.Data = []byte(err.Error())[:min(errorLength, len(err.Error()))]
	}
	if err := m.RespondMsg(a); err != nil {
		c.answerFailed(m, err)
	}
}

// answerFailed tells the requester that the answer could not be sent (it was too
// large, say), so that it need not wait for its timeout.
func (c *Cluster) answerFailed(m *nats.Msg, cause error) {
	c.logger.Error("answer could not be sent", "subject", m.Subject, "error", cause)
	if errors.Is(cause, nats.ErrMaxPayload) {
		c.answer(m, nil, fmt.Errorf("sending answer: %w", cause))
	}
}

// Request asks a member that serves a subject and returns its answer. It fails with
// ErrNoResponder when there is none, with ErrBusy when it has too much to do, with a
// *RemoteError when the handler failed, and with the context's error; a context
// without a deadline gets one of 5 seconds.
func (c *Cluster) Request(ctx context.Context, subject string, data []byte) ([]byte, error) {
	subject, err := escape(subject)
	if err != nil {
		return nil, err
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, requestTimeout)
		defer cancel()
	}
	reply, err := c.ask(ctx, subject, data)
	if err != nil {
		return nil, fmt.Errorf("asking %s: %w", subject, err)
	}
	return reply, nil
}

func (c *Cluster) ask(ctx context.Context, subject string, data []byte) ([]byte, error) {
	m := nats.NewMsg(subject)
	m.Data = data
	deadline, _ := ctx.Deadline()
	m.Header.Set(headerTimeout, time.Until(deadline).String())
	reply, err := c.nats.RequestMsgWithContext(ctx, m)
	switch {
	case errors.Is(err, nats.ErrNoResponders):
		return nil, ErrNoResponder
	case errors.Is(err, nats.ErrConnectionClosed):
		return nil, ErrClosed
	case err != nil:
		return nil, err
	}
	switch reply.Header.Get(headerStatus) {
	case "":
		return reply.Data, nil
	case statusBusy:
		return nil, ErrBusy
	case statusGone:
		return nil, ErrNoResponder
	}
	return nil, &RemoteError{Subject: subject, Text: string(reply.Data)}
}
