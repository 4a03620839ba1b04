package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"

	"github.com/muesli/cancelreader"
	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// sshDocument leads to one port of a node and back, for programs that speak with it over
// their standard streams.
const sshDocument = "AWS-StartSSHSession"

func (p *program) newProxyCommand() *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:   "proxy NODE [PORT]",
		Short: "Connect standard input and output with a port of a node",
		Long: `Connect standard input and output with a port of a node, 22 unless given: what ssh
wants of a ProxyCommand. sallyport ssh does it for you.`,
		Example: `  ssh -o ProxyCommand='sallyport proxy %h %p' deploy@frontend-1
  sallyport proxy frontend-1 6379`,
		Args:              between(1, 2, "want NODE [PORT]"),
		ValidArgsFunction: p.completeOneNode,
		RunE: func(cmd *cobra.Command, args []string) error {
			port := "22"
			if len(args) > 1 {
				port = args[1]
			}
			return p.proxy(cmd.Context(), args[0], port, reason)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the audit log (256 characters)")
	return cmd
}

func (p *program) proxy(ctx context.Context, name, port, reason string) error {
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return usagef("port %q: want 1 to 65535", port)
	}
	node, _, err := p.choose(ctx, []string{name}, pickFlags{})
	if err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	var stream client.Stream
	asking, giveBack, ok := p.atTerminal()
	if ok {
		defer giveBack()
	}
	err = p.withAccess(ctx, api, asking, wanted{node, sshDocument, ""}, func() (err error) {
		stream, err = api.Start(ctx, client.StartInput{Target: node.NodeID, Document: sshDocument, Reason: reason,
			Parameters: map[string][]string{"portNumber": {port}}})
		return err
	})
	if err != nil {
		return p.explainRefusal(err, node, sshDocument)
	}
	return p.pipe(ctx, api, stream)
}

// pipe carries standard input and output over a port session until either ends.
func (p *program) pipe(ctx context.Context, api *client.API, stream client.Stream) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	f := client.NewForward(client.ChannelConfig{
		Stream: stream,
		Dial:   client.Dialer(api.TLS(), p.userAgent()),
		Resume: api.ResumeSession,
		Notify: func(text string) { p.say("%s", client.Clean(text)) },
		Logger: p.logger(),
	}, client.ForwardConfig{})
	var carried error
	var crew sync.WaitGroup
	crew.Go(func() {
		defer cancel()
		carried = p.carryStreams(ctx, f)
	})
	end, err := f.Run(ctx)
	cancel()
	crew.Wait()
	var refused *client.ForwardRefusedError
	switch {
	case errors.As(carried, &refused):
		err = refused
	case err == nil && end.Output != "":
		err = endOf(end, nil)
	case ctx.Err() != nil && (errors.Is(err, context.Canceled) || err == nil):
		p.leave(api, stream.SessionID)
		return nil
	}
	if err != nil {
		p.report(err)
		return &statusError{status: statusNoAccess}
	}
	return nil
}

// carryStreams copies until the node's end has closed, or this one.
func (p *program) carryStreams(ctx context.Context, f *client.Forward) error {
	c, err := f.Open(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	stdin, stopReading := cancelable(p.stdin)
	var up sync.WaitGroup
	up.Go(func() {
		if _, err := io.Copy(c, stdin); err == nil || errors.Is(err, net.ErrClosed) {
			c.CloseWrite()
		} else if !errors.Is(err, cancelreader.ErrCanceled) {
			c.Close()
		}
	})
	_, err = io.Copy(p.stdout, c)
	stopReading()
	up.Wait()
	if errors.Is(err, syscall.EPIPE) { // ssh has what it wanted
		return nil
	}
	return err
}

// cancelable makes reads of f end when cancel is called, where the system can.
func cancelable(f *os.File) (r io.Reader, cancel func()) {
	c, err := cancelreader.NewReader(f)
	if err != nil { // a plain file or /dev/null: reads do not block
		return f, func() {}
	}
	return c, func() { c.Cancel() }
}
