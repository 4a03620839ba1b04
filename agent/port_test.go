package agent

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/vectors"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// shouter is the target that the vectors were recorded with: it answers each line in
// capitals, and quit with BYE and the end.
func shouter(t *testing.T) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer c.Close()
				shout(c)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

func shout(c net.Conn) {
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if line == "quit\n" {
			io.WriteString(c, "BYE\r\n")
			return
		}
		io.WriteString(c, strings.ToUpper(line))
	}
}

// carried is what an agent sent in a Port session: bytes by smux stream, or of stream 0
// where nothing is multiplexed; and flags.
type carried struct {
	Data  map[uint32]string
	Flags []uint32
	rest  []byte
}

func newCarried() *carried { return &carried{Data: map[uint32]string{}} }

func (c *carried) add(m *wire.Message, multiplexed bool) {
	switch {
	case m.PayloadType == wire.PayloadFlag:
		c.Flags = append(c.Flags, binary.BigEndian.Uint32(m.Payload))
	case m.PayloadType != wire.PayloadOutput:
	case !multiplexed:
		c.Data[0] += string(m.Payload)
	default:
		c.rest = append(c.rest, m.Payload...)
		for len(c.rest) >= 8 {
			n := 8 + int(binary.LittleEndian.Uint16(c.rest[2:]))
			if len(c.rest) < n {
				return
			}
			if id := binary.LittleEndian.Uint32(c.rest[4:]); n > 8 {
				c.Data[id] += string(c.rest[8:n])
			}
			c.rest = c.rest[n:]
		}
	}
}

// covers reports whether everything that want has is there.
func (c *carried) covers(want *carried) bool {
	for id, data := range want.Data {
		if !strings.HasPrefix(c.Data[id], data) {
			return false
		}
	}
	return len(c.Flags) >= len(want.Flags)
}

// portPeer plays a recorded client to the agent.
type portPeer struct {
	t    *testing.T
	link *websocket.Conn

	mu    sync.Mutex
	got   *carried
	shook bool
	acked []int64
	next  int64
	ended chan struct{}
}

func (p *portPeer) read(multiplexed bool) {
	defer close(p.ended)
	for {
		_, b, err := p.link.Read()
		if err != nil {
			return
		}
		m, err := wire.Decode(bytes.Clone(b))
		if err != nil {
			p.t.Error(err)
			return
		}
		p.mu.Lock()
		switch m.Type {
		case wire.TypeOutputStreamData:
			if m.SequenceNumber == p.next {
				p.next++
				p.shook = p.shook || m.PayloadType == wire.PayloadHandshakeRequest
				p.got.add(m, multiplexed)
			}
			p.link.Write(websocket.Binary, wire.NewAcknowledge(m, time.Now()).Encode())
		case wire.TypeAcknowledge:
			var a wire.Acknowledge
			json.Unmarshal(m.Payload, &a)
			p.acked = append(p.acked, a.SequenceNumber)
		}
		p.mu.Unlock()
	}
}

func (p *portPeer) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		p.mu.Lock()
		ok := cond()
		p.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("waited for %s; got %+v", what, p.got)
		}
	}
}

// TestReplayPorts plays what the official plugin sent in recorded Port sessions to the
// agent: the target's bytes come back as from the official agent, per stream, and the
// session ends the same.
func TestReplayPorts(t *testing.T) {
	for name, multiplexed := range map[string]bool{
		"07-forward-mux": true, "08-forward-basic": false, "09-forward-remote-host": true,
		"11-forward-closed-port": true, "12-ssh-session": false,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			replayPort(t, vectors.Load(t, vectorsDir, name), multiplexed)
		})
	}
}

func replayPort(t *testing.T, tr *vectors.Transcript, multiplexed bool) {
	id := tr.Info.Sessions[0]
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	port := shouter(t)
	want, inputs := newCarried(), 0
	var complete wire.TaskComplete
	var p *portPeer
	seen := map[int64]bool{}
	for _, l := range tr.Lines {
		if l.Background || l.Chan == "data" && l.Session != id || l.Event != "ws-binary" {
			continue
		}
		m, err := wire.Decode(tr.Message(&l))
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case l.From == "agent" && m.Type == wire.TypeOutputStreamData:
			want.add(m, multiplexed)
		case l.From == "agent" && m.Type == wire.TypeAgentTaskComplete:
			json.Unmarshal(m.Payload, &complete)
		case l.To == "agent" && m.Type == "interactive_shell":
			m.Payload = bytes.ReplaceAll(m.Payload, []byte("18080"), []byte(port))
			c.conn.Write(websocket.Binary, m.Encode())
			p = &portPeer{t: t, link: receive(t, g.links(id), "a data channel"), got: newCarried(), ended: make(chan struct{})}
			go p.read(multiplexed)
		case l.To == "agent" && m.Type == wire.TypeInputStreamData && !seen[m.SequenceNumber]:
			seen[m.SequenceNumber] = true
			inputs++
			p.until("handshake", func() bool { return p.shook })
			p.until("the official agent's output", func() bool { return p.got.covers(want) })
			p.link.Write(websocket.Binary, m.Encode())
			p.until("acknowledgement", func() bool { return slices.Contains(p.acked, m.SequenceNumber) })
		}
	}
	got := c.completed(id)
	if got.FinalTaskStatus != complete.FinalTaskStatus || got.Output != complete.Output {
		t.Errorf("got end %s %q, want %s %q", got.FinalTaskStatus, got.Output, complete.FinalTaskStatus, complete.Output)
	}
	<-p.ended
	if diff := cmp.Diff(want.Data, p.got.Data); diff != "" {
		t.Errorf("data (-official +ours):\n%s", diff)
	}
	if diff := cmp.Diff(want.Flags, p.got.Flags); diff != "" {
		t.Errorf("flags (-official +ours):\n%s", diff)
	}
	if inputs < 3 {
		t.Errorf("only %d inputs were played", inputs)
	}
}

// TestReplayDeniedHost: the session fails with the official agent's words, before
// anything is connected.
func TestReplayDeniedHost(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	tr := vectors.Load(t, vectorsDir, "10-forward-remote-host-denied")
	for _, l := range tr.Lines {
		if l.Frame != nil && l.Frame.Type == "interactive_shell" {
			c.conn.Write(websocket.Binary, tr.Message(&l))
		}
	}
	got := c.completed(tr.Info.Sessions[0])
	if want := "Forwarding to IP address 169.254.169.254 is forbidden."; got.FinalTaskStatus != statusFailed || got.Output != want {
		t.Errorf("got %s %q, want Failed %q", got.FinalTaskStatus, got.Output, want)
	}
}

// A single connection's target that is closed fails the session with address and cause.
func TestPortClosedSingle(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	document := fmt.Sprintf(`{"schemaVersion":"1.0","sessionType":"Port","properties":{"host":"127.0.0.1","portNumber":"%d"}}`, port)
	c.start(wire.StartSession{SessionID: "s", DataChannelToken: "given", DocumentContent: json.RawMessage(document)})
	p := &portPeer{t: t, link: receive(t, g.links("s"), "a data channel"), got: newCarried(), ended: make(chan struct{})}
	go p.read(false)
	p.until("handshake", func() bool { return p.shook })
	response := `{"ClientVersion":"1.2.694.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`
	p.link.Write(websocket.Binary, wire.NewStream(wire.TypeInputStreamData, 0, wire.PayloadHandshakeResponse, time.Now(), []byte(response)).Encode())
	got := c.completed("s")
	if want := fmt.Sprintf("Unable to connect to specified port: connecting to 127.0.0.1:%d: connection refused", port); got.Output != want {
		t.Errorf("got %s %q, want %q", got.FinalTaskStatus, got.Output, want)
	}
	<-p.ended
}

// A client that multiplexes and says that its one connection is over ends the session,
// whatever it sends beside that.
func TestPortTurnsWhileMultiplexing(t *testing.T) {
	g := newGateway(t)
	run(t, g.config())
	c := g.control()
	document := fmt.Sprintf(`{"schemaVersion":"1.0","sessionType":"Port","properties":{"portNumber":"%s","type":"LocalPortForwarding"}}`, shouter(t))
	c.start(wire.StartSession{SessionID: "s", DataChannelToken: "given", DocumentContent: json.RawMessage(document)})
	p := &portPeer{t: t, link: receive(t, g.links("s"), "a data channel"), got: newCarried(), ended: make(chan struct{})}
	go p.read(true)
	p.until("handshake", func() bool { return p.shook })
	seq := int64(0)
	say := func(pt wire.PayloadType, b []byte) {
		p.link.Write(websocket.Binary, wire.NewStream(wire.TypeInputStreamData, seq, pt, time.Now(), b).Encode())
		seq++
	}
	say(wire.PayloadHandshakeResponse, []byte(`{"ClientVersion":"1.2.694.0","ProcessedClientActions":[{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":null}`))
	for range 40 {
		say(wire.PayloadOutput, []byte{1, 3, 0, 0, 0, 0, 0, 0})
		say(wire.PayloadFlag, binary.BigEndian.AppendUint32(nil, wire.FlagDisconnectToPort))
	}
	c.completed("s")
	<-p.ended
}
