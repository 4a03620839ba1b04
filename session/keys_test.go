package session

import (
	"errors"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// nextControl reads a control channel until a message comes, for as long as d.
func nextControl(t *testing.T, conn *websocket.Conn, d time.Duration) string {
	t.Helper()
	conn.SetReadDeadline(time.Now().Add(d))
	_, data, err := conn.Read()
	if err != nil {
		return ""
	}
	m, err := wire.Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	return m.Type
}

// keyed opens the control channel of an agent that has features.
func (w *world) keyed(node string, features ...string) *websocket.Conn {
	w.t.Helper()
	conn := w.dial("/v1/control-channel/"+node, node, wire.Opening{TokenValue: w.g.ControlToken(node), Features: features})
	eventually(w.t, "node connects", func() bool { return w.g.control(node) != nil && w.store.memberOf(node) != "" })
	w.t.Cleanup(conn.Abort)
	return conn
}

// Our agents are told that keys changed, by whichever member; AWS's never are.
func TestKeysChanged(t *testing.T) {
	const other = "i-0aaaaaaaaaaaaaaaa"
	store, b := newMemory(), newBus()
	b.setMembers(Member{ID: "m1", URL: "http://m1"}, Member{ID: "m2", URL: "http://m2"})
	first, second := newMember(t, store, b, "m1"), newMember(t, store, b, "m2")
	ours := second.keyed(testNode, "later", wire.FeatureKeys)
	aws := second.keyed(other)
	if got := second.g.KeySyncNodes(); len(got) != 1 || got[0] != testNode || len(first.g.KeySyncNodes()) != 0 {
		t.Errorf("nodes that keep keys: got %q", got)
	}
	for _, member := range []*world{first, second} {
		for _, node := range []string{testNode, other} {
			if err := member.g.KeysChanged(t.Context(), node); err != nil {
				t.Errorf("telling %s: %v", node, err)
			}
		}
		if got := nextControl(t, ours, 10*time.Second); got != wire.TypeKeysChanged {
			t.Errorf("our agent got %q, want %s", got, wire.TypeKeysChanged)
		}
	}
	if got := nextControl(t, aws, 100*time.Millisecond); got != "" {
		t.Errorf("an agent without the feature got %q", got)
	}
	if err := first.g.KeysChanged(t.Context(), "i-0bbbbbbbbbbbbbbbb"); !errors.Is(err, ErrNoResponder) {
		t.Errorf("telling a node that is away: got %v", err)
	}
}
