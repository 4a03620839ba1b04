package sallyporttest

import (
	"context"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"sallyport.dev/client"
)

// Forward is a Port session of a test.
type Forward struct {
	*client.Forward
	SessionID string
	// End ends the session from here and returns how it ended.
	End func() (client.End, error)
	// Over is closed when the session has ended.
	Over <-chan struct{}
}

// Forward starts a Port session with a document and its parameters. cfg may change how
// the client connects; it may be nil.
func (s *System) Forward(k Key, node, document string, params map[string]string, fc client.ForwardConfig, cfg func(*client.ChannelConfig)) *Forward {
	s.t.Helper()
	api := s.API(k)
	stream := s.stream(api, node, document, params)
	channel := client.ChannelConfig{
		Stream: stream,
		Dial:   client.Dialer(api.TLS(), "sallyporttest"),
		Resume: api.ResumeSession,
		Logger: Logger(s.t),
	}
	if cfg != nil {
		cfg(&channel)
	}
	return run(s.t, stream.SessionID, client.NewForward(channel, fc))
}

func (s *System) stream(api *client.API, node, document string, params map[string]string) client.Stream {
	s.t.Helper()
	in := &ssm.StartSessionInput{Target: aws.String(node), DocumentName: aws.String(document), Parameters: map[string][]string{}}
	for name, value := range params {
		in.Parameters[name] = []string{value}
	}
	stream, err := api.StartSession(s.t.Context(), in)
	if err != nil {
		s.t.Fatalf("starting a forward on %s: %v", node, err)
	}
	return stream
}

func run(t testing.TB, id string, forward *client.Forward) *Forward {
	ctx, cancel := context.WithCancel(context.Background())
	over := make(chan struct{})
	var end client.End
	var err error
	go func() {
		defer close(over)
		end, err = forward.Run(ctx)
	}()
	f := &Forward{Forward: forward, SessionID: id, Over: over, End: func() (client.End, error) {
		cancel()
		<-over
		return end, err
	}}
	t.Cleanup(func() { f.End() })
	return f
}
