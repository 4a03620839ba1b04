package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/client"
)

// shown is what a tunnel writes of events, a minute apart.
func shown(p *program, command bool, events ...tunnelEvent) (stdout, stderr string) {
	var out, errs bytes.Buffer
	p.stdout, p.stderr = &out, &errs
	s := p.newTunnelShow(&tunnel{node: client.Node{Name: "web"}}, command)
	now := time.Unix(0, 0)
	s.now = func() time.Time { now = now.Add(time.Minute); return now }
	for _, e := range events {
		s.tell(e)
	}
	return out.String(), errs.String()
}

// Why there is no session is said once for each reason, however often it is tried again.
func TestTunnelSaysAReasonOnce(t *testing.T) {
	failed := func(target, why string) tunnelEvent {
		return tunnelEvent{Event: eventFailed, Target: target, Error: why}
	}
	up := tunnelEvent{Event: eventUp, Target: "port 80"}
	_, got := shown(&program{}, false,
		failed("port 80", "away"), failed("port 80", "away"), failed("port 81", "away"), failed("port 80", "away"),
		failed("port 80", "busy"), failed("port 80", "busy"), up, failed("port 80", "busy"))
	want := `sallyport: port 80: no session yet (away); trying again
sallyport: port 81: no session yet (away); trying again
sallyport: port 80: no session yet (busy); trying again
sallyport: port 80: no session yet (busy); trying again
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("got (+), want (-):\n%s", diff)
	}
}

// What a command writes to standard output has no events in between.
func TestTunnelEventsOfACommand(t *testing.T) {
	for _, command := range []bool{false, true} {
		p := &program{}
		p.flags.json = true
		stdout, stderr := shown(p, command, tunnelEvent{Event: eventUp})
		events, nothing := stdout, stderr
		if command {
			events, nothing = stderr, stdout
		}
		if !strings.HasPrefix(events, `{"time":`) || nothing != "" {
			t.Errorf("command %v: got %q on standard output, %q on standard error", command, stdout, stderr)
		}
	}
}
