package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"sallyport.dev/client"
	"sallyport.dev/wire"
)

// people acts as clients of a server, through the client package.
type people struct {
	api *client.API
}

// newPeople signs in. It sets the environment, so one process knows one server.
func newPeople(ctx context.Context, a access) (*people, error) {
	for _, kv := range a.env() {
		k, v, _ := strings.Cut(kv, "=")
		if err := os.Setenv(k, v); err != nil {
			return nil, err
		}
	}
	api, err := client.Connect(ctx, client.Options{UserAgent: "sallyport-bench/1"})
	if err != nil {
		return nil, err
	}
	return &people{api}, nil
}

// patience bounds what should take milliseconds.
const patience = 30 * time.Second

// visit is one session as a client sees it.
type visit struct {
	id    string
	first chan struct{} // closed with the first byte of output
	once  sync.Once
	end   func() // closes the data channel and waits
}

// Start implements client.Handler.
func (v *visit) Start(json.RawMessage) error { return nil }

// Take implements client.Handler.
func (v *visit) Take(wire.PayloadType, []byte) error {
	v.once.Do(func() { close(v.first) })
	return nil
}

// visit starts a session on a node and waits for its first output.
func (p *people) visit(ctx context.Context, node string) (*visit, error) {
	stream, err := p.api.StartSession(ctx, &ssm.StartSessionInput{Target: aws.String(node)})
	if err != nil {
		return nil, err
	}
	v := &visit{id: stream.SessionID, first: make(chan struct{})}
	channel := client.NewDataChannel(client.ChannelConfig{
		Stream: stream, Dial: client.Dialer(p.api.TLS(), "sallyport-bench/1"), Resume: p.api.ResumeSession,
		Handlers: map[string]client.Handler{client.StandardStream: v},
	})
	ctx, cancel := context.WithCancel(ctx)
	failed := make(chan error, 1)
	go func() {
		_, err := channel.Run(ctx)
		failed <- err
		close(failed)
	}()
	v.end = func() {
		cancel()
		for range failed {
		}
	}
	go sendSize(ctx, channel)
	select {
	case <-v.first:
		return v, nil
	case err := <-failed:
		cancel()
		return nil, fmt.Errorf("session %s: %w", v.id, err)
	case <-time.After(patience):
		v.end()
		return nil, fmt.Errorf("session %s: no output within %v", v.id, patience)
	}
}

// sendSize tells the terminal's size first thing, as our client does: agents wait a
// moment for it. It ends with the channel.
func sendSize(ctx context.Context, channel *client.DataChannel) {
	select {
	case <-channel.Opened():
		channel.Send(ctx, wire.PayloadSize, []byte(`{"cols":80,"rows":24}`))
	case <-ctx.Done():
	}
}

// leave ends a session and waits until the server has told so.
func (p *people) leave(ctx context.Context, v *visit) error {
	err := p.api.TerminateSession(ctx, v.id)
	v.end()
	return err
}

// peopleProcess is people in a process of their own.
type peopleProcess struct {
	*people
	mu         sync.Mutex
	visits     []*visit
	spectators []*spectator
}

func peopleRole() (operations, func(), error) {
	p := &peopleProcess{}
	return operations{
		"join": handler(func(a access) (struct{}, error) {
			all, err := newPeople(context.Background(), a)
			p.people = all
			return struct{}{}, err
		}),
		"stay":    handler(p.stay),
		"attend":  handler(p.attend),
		"applaud": handler(p.applaud),
		"leave":   handler(p.leaveAll),
		"depart":  handler(p.depart),
	}, func() {}, nil
}

// stays asks for a number of sessions on a node, some started at once.
type stays struct {
	Node          string
	Count, AtOnce int
}

// stay starts sessions, which stay open, and returns how long that took in seconds.
func (p *peopleProcess) stay(s stays) (float64, error) {
	began := time.Now()
	err := each(s.Count, s.AtOnce, func(int) error {
		v, err := p.visit(context.Background(), s.Node)
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.visits = append(p.visits, v)
		return nil
	})
	return time.Since(began).Seconds(), err
}

// leaveAll closes the data channels of all sessions.
func (p *peopleProcess) leaveAll(struct{}) (struct{}, error) {
	for _, v := range p.visits {
		v.end()
	}
	p.visits = nil
	return struct{}{}, nil
}

// depart ends all sessions.
func (p *peopleProcess) depart(struct{}) (struct{}, error) {
	visits := p.visits
	p.visits = nil
	return struct{}{}, each(len(visits), 4, func(i int) error { return p.leave(context.Background(), visits[i]) })
}
