package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"sallyport.dev/client"
)

// errPluginDone ends a session that carried one connection, which has ended in order.
var errPluginDone = errors.New("the connection has ended")

// pluginPort is the plugin's part of a Port session: what it says, in the words of AWS's
// plugin and on standard output as that does, and the local end. A session that carries
// one connection has standard input and output for it, and nothing else is written there.
type pluginPort struct {
	p        *program
	id       string
	terminal *client.Terminal

	greeting sync.Once
	accepted sync.Once
	forward  atomic.Pointer[client.Forward] // nil until it is ready

	started atomic.Bool // by the agent
	// Set before connections are carried.
	forwards bool // many connections
	single   bool // one, over standard input and output
}

func newPluginPort(p *program, stream client.Stream) *pluginPort {
	return &pluginPort{
		p: p, id: client.CleanLine(stream.SessionID),
		terminal: &client.Terminal{Stdin: p.stdin, Stdout: p.stdout, Stderr: p.stderr},
	}
}

// greet says that the session starts, once.
func (pp *pluginPort) greet() {
	pp.greeting.Do(func() { fmt.Fprintf(pp.p.stdout, "\nStarting session with SessionId: %s\n", pp.id) })
}

func (pp *pluginPort) start() {
	pp.started.Store(true)
	pp.greet()
}

// leave ends the session at the server, unless the agent knows already.
func (pp *pluginPort) leave(api *client.API, id string) {
	if f := pp.forward.Load(); f == nil || !f.Left() {
		pp.p.leave(api, id)
	}
}

// notify tells what happens to the link.
func (pp *pluginPort) notify(text string) { pp.terminal.Say(text) }

// run is the session once it has turned out to be a Port session.
func (pp *pluginPort) run(ctx context.Context, f *client.Forward) error {
	pp.forward.Store(f)
	properties := f.Properties()
	if properties.Single() {
		pp.single = true
		if err := pp.p.carryStreams(ctx, f); err != nil {
			return err
		}
		return errPluginDone
	}
	pp.start()
	pp.forwards = true
	l, opened, err := pp.listen(properties)
	if err != nil {
		return err
	}
	fmt.Fprintf(pp.p.stdout, "%s opened for sessionId %s.\nWaiting for connections...\n", opened, pp.id)
	err = f.Serve(ctx, l)
	if errors.Is(err, client.ErrForwardOver) {
		return nil // the session's end says why
	}
	return err
}

// listen opens the local end that the document asks for.
func (pp *pluginPort) listen(properties client.ForwardProperties) (l net.Listener, opened string, err error) {
	if properties.LocalConnectionType == "unix" {
		path := properties.LocalUnixSocket
		l, err = client.Listen("unix:" + path)
		return l, "Unix socket " + client.CleanLine(path), err
	}
	port := properties.LocalPortNumber
	if port == "" {
		port = "0"
	}
	if l, err = client.Listen(net.JoinHostPort("localhost", port)); err != nil {
		return nil, "", err
	}
	return l, fmt.Sprintf("Port %d", l.Addr().(*net.TCPAddr).Port), nil
}

// event tells of the first connection, and of those that failed.
func (pp *pluginPort) event(e client.ForwardEvent) {
	if !pp.forwards {
		return
	}
	switch e.Kind {
	case client.ForwardOpened:
		pp.accepted.Do(func() { fmt.Fprintf(pp.p.stdout, "\nConnection accepted for session [%s]\n", pp.id) })
	case client.ForwardRefused:
		var refused *client.ForwardRefusedError
		if errors.As(e.Err, &refused) && refused.Reason == "" {
			fmt.Fprintf(pp.p.stdout, "\nConnection to destination port failed, check SSM Agent logs.\n")
			return
		}
		fmt.Fprintf(pp.p.stdout, "\nConnection to destination port failed: %s\n", client.CleanLine(errorText(e.Err)))
	}
}

// pluginSingleEnd tells how a session with one connection ended: on standard error, since
// what ssh reads is the connection, and only if it ended badly. The status is AWS's.
func (p *program) pluginSingleEnd(leave func(), end client.End, err error) int {
	var signalled *client.SignalError
	switch {
	case err == nil && end.Output != "":
		p.say("%s", client.CleanLine(end.Output))
	case err == nil, errors.Is(err, client.ErrForwardOver):
	case errors.Is(err, errPluginDone):
		leave()
	case errors.As(err, &signalled):
		leave()
		return signalled.Status
	default:
		leave()
		p.say("%s", errorText(err))
		return statusRefused
	}
	return statusDone
}
