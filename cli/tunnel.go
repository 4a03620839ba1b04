package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

const (
	// maxForwards bounds what one command line may ask for, maxConns the connections at
	// once: more wait to be accepted.
	maxForwards = 64
	maxConns    = 1024
)

type tunnelFlags struct {
	pick   pickFlags
	socks  []string
	reason string
}

func (p *program) newTunnelCommand() *cobra.Command {
	var flags tunnelFlags
	cmd := &cobra.Command{
		Use:   "tunnel {NAME | ID | KEY=VALUE... | -} [[BIND:]LOCAL:][HOST:]PORT... [-- COMMAND [ARG]...]",
		Short: "Forward local ports through a node",
		Long: `Forward local ports to ports of a node, or of hosts that the node reaches.

PORT alone is one of the node itself; HOST is resolved on the node. LOCAL is the port to
listen on here, the same as PORT unless given, any free one if 0; or the path of a socket,
/PATH or ./PATH. In place of HOST:PORT, /PATH is a socket of the node, not on AWS. It
listens on 127.0.0.1 unless BIND says otherwise: other machines reach other addresses, and
what is behind the forward with them.

--socks serves SOCKS5, through which programs reach every host that the node reaches and
your policies allow, by names that the node resolves.

A session that is lost is started anew, and what listens stays. One that is refused, or
that somebody terminated, ends the command. Ctrl-C ends it, too.

With COMMAND the forwards last as long as it does. {port} and {address} in its words are
the first forward's, {port2} the second's, and so on; so are SALLYPORT_PORT,
SALLYPORT_ADDRESS, SALLYPORT_PORT_2 … in its environment.

--json writes events to standard output, a line each; with COMMAND, whose that is, to
standard error.

Exit status: COMMAND's; else 0 after Ctrl-C, 1 if refused, 2 for wrong usage, 255 if no
session could be opened or kept.`,
		Example: `  sallyport tunnel frontend-1 8080:80
  sallyport tunnel frontend-1 5432:db.internal:5432 6379:cache.internal:6379
  sallyport tunnel Team=payments ./db.sock:db.internal:5432
  sallyport tunnel frontend-1 --socks 1080
  sallyport tunnel frontend-1 0:db.internal:5432 -- psql -h 127.0.0.1 -p {port} app`,
		ValidArgsFunction: p.completeTargets,
		RunE: func(cmd *cobra.Command, args []string) error {
			var command []string
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args, command = args[:dash], args[dash:]
				if len(command) == 0 {
					return usagef("no command follows --")
				}
			}
			terms, forwards := splitTerms(args, flags.pick)
			return p.tunnel(cmd.Context(), terms, forwards, command, flags)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&flags.socks, "socks", nil, "serve SOCKS5 on `[ADDRESS:]PORT`")
	f.StringVar(&flags.reason, "reason", "", "why, for the audit log (256 characters)")
	p.addPickFlags(cmd, &flags.pick)
	cmd.RegisterFlagCompletionFunc("socks", cobra.NoFileCompletions)
	return cmd
}

// splitTerms tells the terms that name a node from the forwards behind them: one name,
// or every KEY=VALUE.
func splitTerms(args []string, pick pickFlags) (terms, forwards []string) {
	n := 0
	for n < len(args) && strings.Contains(args[n], "=") && !isPath(args[n]) {
		n++
	}
	if n == 0 && len(args) > 0 && !pick.given() && !pick.list {
		n = 1
	}
	return args[:n], args[n:]
}

// connectTunnel is "connect -a tunnel": as aws-connect has it, to the node's SSH unless
// forwards are given.
func (p *program) connectTunnel(ctx context.Context, args, command []string, flags connectFlags) error {
	if flags.login != "" || flags.document != "" || flags.parameters != "" || flags.terminal && len(args) == 0 {
		return usagef("-a tunnel: --login, --document and --parameters are for shells and commands")
	}
	terms, forwards := splitTerms(args, flags.pick)
	if len(forwards) > 0 && flags.localPort != "" {
		return usagef("-o %q: the forwards name their local ports themselves", flags.localPort)
	}
	if len(forwards) == 0 {
		local := flags.localPort
		if local == "" {
			local = "9999"
		}
		forwards = []string{local + ":22"}
	}
	return p.tunnel(ctx, terms, forwards, command, tunnelFlags{pick: flags.pick, reason: flags.reason})
}

func (p *program) tunnel(ctx context.Context, terms, forwards, command []string, flags tunnelFlags) error {
	specs, socks, err := parseForwards(forwards, flags.socks)
	if err != nil {
		return err
	}
	node, path, err := p.choose(ctx, terms, flags.pick)
	if err != nil {
		return err
	}
	if _, err := p.api(ctx); err != nil {
		return err
	}
	t := &tunnel{p: p, node: node, reason: flags.reason, slots: make(chan struct{}, maxConns)}
	t.show = p.newTunnelShow(t, len(command) > 0)
	if err := t.listen(specs, socks); err != nil {
		return err
	}
	p.remember(node, path)
	return t.run(ctx, command)
}

func parseForwards(forwards, socks []string) (specs, proxies []forwardSpec, err error) {
	if len(forwards)+len(socks) == 0 {
		return nil, nil, usagef("name what to forward: PORT, HOST:PORT, LOCAL:HOST:PORT, or --socks PORT")
	}
	if len(forwards)+len(socks) > maxForwards {
		return nil, nil, usagef("%d forwards: at most %d at once", len(forwards)+len(socks), maxForwards)
	}
	for _, f := range forwards {
		s, err := parseForward(f)
		if err != nil {
			return nil, nil, usagef("%w", err)
		}
		specs = append(specs, s)
	}
	for _, f := range socks {
		s, err := parseSOCKS(f)
		if err != nil {
			return nil, nil, usagef("%w", err)
		}
		proxies = append(proxies, s)
	}
	return specs, proxies, nil
}

// tunnel is one run of the command.
type tunnel struct {
	p      *program
	node   client.Node
	reason string
	show   *tunnelShow
	doors  []*door
	slots  chan struct{}  // of connections
	crew   sync.WaitGroup // everything that runs until the tunnel ends

	mu sync.Mutex // guards p.connected while lanes start sessions

	asking sync.Mutex // held while a person is asked; guards up
	up     bool       // every forward has its first session
}

// door is one listener and the way that leads from it.
type door struct {
	spec forwardSpec
	net.Listener
	lane  *lane  // for a forward
	socks *socks // for a proxy
}

// listen opens every listener, or none.
func (t *tunnel) listen(specs, proxies []forwardSpec) (err error) {
	defer func() {
		if err != nil {
			t.closeDoors()
		}
	}()
	for _, s := range specs {
		d, err := t.open(s)
		if err != nil {
			return err
		}
		d.lane = newLane(s.target(), t.startPort, t.show.tell)
	}
	for _, s := range proxies {
		d, err := t.open(s)
		if err != nil {
			return err
		}
		d.socks = newSOCKS(t.startPort, t.show.tell, &t.crew, t.p.logger())
	}
	return nil
}

func (t *tunnel) open(s forwardSpec) (*door, error) {
	l, err := listenAt(s)
	if err != nil {
		return nil, listenError(s, err)
	}
	d := &door{spec: s, Listener: l}
	t.doors = append(t.doors, d)
	if s.exposed() {
		t.p.say("%s is open to other machines: whoever reaches it reaches what is behind the forward, as you", l.Addr())
	}
	return d, nil
}

func listenError(s forwardSpec, err error) error {
	text := "listening on " + s.address() + ": "
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		text += "another program does already; give another local port, or 0 for a free one"
	case errors.Is(err, syscall.EACCES) && s.network == "tcp":
		text += "ports below 1024 are for root; give another local port, or 0 for a free one"
	default:
		text += innermostErrno(err).Error()
	}
	return &statusError{status: statusRefused, err: errors.New(text)}
}

func innermostErrno(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

func (t *tunnel) closeDoors() {
	for _, d := range t.doors {
		d.Close()
	}
}

// run serves until the person leaves, the command ends, or a lane is over for good.
func (t *tunnel) run(ctx context.Context, command []string) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer t.watchSignals(cancel, len(command) > 0)()

	defer t.crew.Wait()
	defer cancel(nil)
	defer t.closeDoors()
	for _, d := range t.doors {
		t.crew.Go(func() {
			if d.socks != nil {
				d.socks.tidy(ctx)
			} else if err := d.lane.run(ctx); err != nil {
				cancel(&laneError{d.lane.target, err})
			}
		})
	}
	if err := t.awaitLanes(ctx); err != nil {
		return t.ended(err)
	}
	t.listening()
	for _, d := range t.doors {
		t.show.listening(d)
		t.crew.Go(func() { t.serve(ctx, d) })
	}
	t.crew.Go(func() { t.show.run(ctx) })
	if len(command) > 0 {
		return t.runCommand(ctx, command)
	}
	<-ctx.Done()
	return t.ended(context.Cause(ctx))
}

// awaitLanes waits until every forward has its first session.
func (t *tunnel) awaitLanes(ctx context.Context) error {
	for _, d := range t.doors {
		if d.lane == nil {
			continue
		}
		if _, err := d.lane.ready(ctx); err != nil {
			<-ctx.Done() // run of the lane says why
			return context.Cause(ctx)
		}
	}
	return nil
}

// errLeft is the cause of an end that the person wanted.
var errLeft = errors.New("left")

// watchSignals ends the tunnel on the usual signals. A command gets an interrupt from
// the terminal itself, and decides what it means.
func (t *tunnel) watchSignals(cancel context.CancelCauseFunc, command bool) (stop func()) {
	c := make(chan os.Signal, 4)
	signal.Notify(c, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	done := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for {
			select {
			case s := <-c:
				if s == os.Interrupt && command {
					continue
				}
				cancel(errLeft)
			case <-done:
				return
			}
		}
	})
	return func() {
		signal.Stop(c)
		close(done)
		watch.Wait()
	}
}

// ended turns the cause of the end into what the program exits with.
func (t *tunnel) ended(err error) error {
	t.show.clear()
	t.show.tell(tunnelEvent{Event: eventEnded, Error: endWords(err)})
	if err == nil || errors.Is(err, errLeft) || errors.Is(err, context.Canceled) {
		return nil
	}
	var ended *endedError
	if errors.As(err, &ended) {
		return &statusError{status: statusNoAccess, err: err}
	}
	var lane *laneError
	if !errors.As(err, &lane) {
		return err
	}
	document, more := lane.target.why()
	return t.p.explainRefusal(lane.err, t.node, document, more...)
}

// laneError is why a lane is over.
type laneError struct {
	target target
	err    error
}

func (e *laneError) Error() string { return e.err.Error() }
func (e *laneError) Unwrap() error { return e.err }

func endWords(err error) string {
	if err == nil || errors.Is(err, errLeft) {
		return ""
	}
	return errorText(err)
}

// startPort starts a session to a lane's target.
func (t *tunnel) startPort(ctx context.Context, l *lane) (portSession, string, func(), error) {
	api, err := t.api(ctx)
	if err != nil {
		return nil, "", nil, err
	}
	in := client.StartInput{Target: t.node.NodeID, Reason: t.reason}
	in.Document, in.Parameters = l.target.document()
	var stream client.Stream
	err = t.withAccess(ctx, api, wanted{t.node, in.Document, ""}, func() (err error) {
		stream, err = api.Start(ctx, in)
		return err
	})
	if expired(err) { // what the files hold may be newer
		t.forgetAPI()
	}
	if err != nil {
		return nil, "", nil, err
	}
	f := client.NewForward(client.ChannelConfig{
		Stream: stream,
		Dial:   client.Dialer(api.TLS(), t.p.userAgent()),
		Resume: api.ResumeSession,
		Notify: func(text string) {
			t.show.tell(tunnelEvent{Event: eventNotice, Target: l.target.String(), Text: client.Clean(text)})
		},
		Logger: t.p.logger(),
	}, client.ForwardConfig{Event: func(e client.ForwardEvent) { t.connection(l, e) }, Bulk: t.p.bulk(api, stream)})
	return f, stream.SessionID, func() { t.p.leave(api, stream.SessionID) }, nil
}

// withAccess runs start, and asks for access where that is refused: one lane after the
// other, and only before anything listens. Later the screen is the display's, or a
// command's.
func (t *tunnel) withAccess(ctx context.Context, api *client.API, w wanted, start func() error) error {
	err := start()
	if !isDenied(err) {
		return err
	}
	t.asking.Lock()
	defer t.asking.Unlock()
	asker := t.p.asker()
	if t.up {
		asker = nil
	}
	return t.p.withAccess(ctx, api, asker, w, start)
}

// listening notes that every forward has its first session.
func (t *tunnel) listening() {
	t.asking.Lock()
	defer t.asking.Unlock()
	t.up = true
}

// bulk is how a forward opens connections beside its data channel.
func (p *program) bulk(api *client.API, stream client.Stream) *client.Bulk {
	return client.NewBulk(client.BulkConfig{
		SessionID: stream.SessionID, URL: stream.URL, Trust: api.TLS(), UserAgent: p.userAgent(), Logger: p.logger(),
	})
}

func (t *tunnel) api(ctx context.Context) (*client.API, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.p.api(ctx)
}

func (t *tunnel) forgetAPI() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.p.connected = nil
}

// connection tells of what happened to one.
func (t *tunnel) connection(l *lane, e client.ForwardEvent) {
	kind := map[client.ForwardEventKind]string{
		client.ForwardOpened: eventOpened, client.ForwardClosed: eventClosed, client.ForwardRefused: eventRefused,
	}[e.Kind]
	event := tunnelEvent{Event: kind, Target: l.target.String(), Connection: e.Conn, Sent: e.Sent, Received: e.Received}
	if e.Err != nil {
		event.Error = errorText(e.Err)
	}
	t.show.tell(event)
}

// serve accepts until the listener is closed.
func (t *tunnel) serve(ctx context.Context, d *door) {
	var conns sync.WaitGroup
	defer conns.Wait()
	for {
		select {
		case t.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c, err := d.Accept()
		if err != nil {
			<-t.slots
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			if sleep(ctx, 100*time.Millisecond) != nil { // out of descriptors, most likely
				return
			}
			continue
		}
		conns.Go(func() {
			defer func() { <-t.slots }()
			d.carry(ctx, c)
		})
	}
}

// carry serves one local connection.
func (d *door) carry(ctx context.Context, c net.Conn) {
	if d.socks != nil {
		d.socks.serve(ctx, c)
		return
	}
	d.lane.use(func() {
		if err := d.lane.carry(ctx, c); err != nil {
			d.lane.refused(err)
		}
	})
}

// refused tells why a connection was not made, unless the forward has told it.
func (l *lane) refused(err error) {
	var told *client.ForwardRefusedError
	if errors.As(err, &told) || errors.Is(err, errLeft) || errors.Is(err, context.Canceled) {
		return
	}
	l.tell(tunnelEvent{Event: eventRefused, Target: l.target.String(), Error: errorText(err)})
}

// address is where a door listens, as programs are told.
func (d *door) address() string {
	if d.spec.network == "unix" {
		return d.spec.local
	}
	return d.Addr().String()
}

// port is the door's port; the path of a socket.
func (d *door) port() string {
	if tcp, ok := d.Addr().(*net.TCPAddr); ok {
		return fmt.Sprint(tcp.Port)
	}
	return d.spec.local
}
