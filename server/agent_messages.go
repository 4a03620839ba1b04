package server

import (
	"context"
	"sync"
	"time"
)

// The message delivery service, which agents poll until their control channel is up
// (docs/protocol.md §7). Messages go over the control channel here, so that a poll
// always comes back empty; it is held as long as agents expect, or they would come
// back at once.

func agentMessageOperations() []*Operation {
	return []*Operation{
		op("ec2messages", "GetMessages", onSelf[getMessagesInput], getMessages, forAgents),
		op("ec2messages", "AcknowledgeMessage", nil, settleMessage, forAgents),
		op("ec2messages", "SendReply", nil, settleMessage, forAgents),
		op("ec2messages", "FailMessage", nil, settleMessage, forAgents),
		op("ec2messages", "DeleteMessage", nil, settleMessage, forAgents),
		op("ec2messages", "GetEndpoint", onSelf[getEndpointInput], getEndpoint, forAgents),
	}
}

// pollHold is how long a poll is held: agents give up after 20 seconds.
const pollHold = 18 * time.Second

// agents is what the server keeps about agents between their calls.
type agents struct {
	registrations registrations
	tokens        recently      // nodes whose role tokens were recorded
	hold          time.Duration // of polls

	mu     sync.Mutex
	polls  map[string]chan struct{} // by node; closed to end the poll
	closed bool
}

func newAgents(now func() time.Time) *agents {
	return &agents{registrations: newRegistrations(now), tokens: newRecently(now, time.Hour, 1<<16), hold: pollHold, polls: map[string]chan struct{}{}}
}

// poll begins a poll of a node and ends the one before: a node polls once at a time,
// whatever it sends. The returned channel is closed when the poll is to end.
func (a *agents) poll(id string) chan struct{} {
	a.mu.Lock()
	defer a.mu.Unlock()
	if before := a.polls[id]; before != nil {
		close(before)
	}
	end := make(chan struct{})
	if a.closed {
		delete(a.polls, id)
		close(end)
		return end
	}
	a.polls[id] = end
	return end
}

// ended forgets a poll, unless another has taken its place.
func (a *agents) ended(id string, end chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.polls[id] == end {
		delete(a.polls, id)
	}
}

// close ends all polls, and those to come at once.
func (a *agents) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for id, end := range a.polls {
		close(end)
		delete(a.polls, id)
	}
}

// EndPolls answers the agents' held polls, and those to come at once, so that a
// graceful shutdown does not wait for them: give it to http.Server.RegisterOnShutdown.
func (s *Server) EndPolls() { s.agents.close() }

type getMessagesInput struct {
	Destination       string `json:"Destination" check:"required,max=128"`
	MessagesRequestID string `json:"MessagesRequestId" check:"max=128"`
}

func (in getMessagesInput) node() string { return in.Destination }

type getMessagesOutput struct {
	Destination       string     `json:"Destination"`
	MessagesRequestID string     `json:"MessagesRequestId"`
	Messages          []struct{} `json:"Messages"`
}

func getMessages(ctx context.Context, c *Call, in *getMessagesInput) (*getMessagesOutput, error) {
	a := c.Server.agents
	end := a.poll(in.Destination)
	defer a.ended(in.Destination, end)
	timer := time.NewTimer(a.hold)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-end:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &getMessagesOutput{
		Destination: in.Destination, MessagesRequestID: in.MessagesRequestID, Messages: []struct{}{},
	}, nil
}

type messageInput struct {
	MessageID string `json:"MessageId" check:"required,min=1,max=256"`
}

// settleMessage takes what an agent has to say about a message that another server
// sent it before it was registered here; agents repeat it for hours if it is refused.
func settleMessage(context.Context, *Call, *messageInput) (*nothing, error) { return &nothing{}, nil }

type getEndpointInput struct {
	Destination string `json:"Destination" check:"required,max=128"`
	Protocol    string `json:"Protocol" check:"max=64"`
}

func (in getEndpointInput) node() string { return in.Destination }

type getEndpointOutput struct {
	Endpoint string `json:"Endpoint"`
}

func getEndpoint(_ context.Context, c *Call, _ *getEndpointInput) (*getEndpointOutput, error) {
	return &getEndpointOutput{Endpoint: c.Host}, nil
}
