package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ssm"

	"sallyport.dev/client"
	"sallyport.dev/index"
	"sallyport.dev/internal/websocket"
	"sallyport.dev/wire"
)

// A performance is what a node shows in each of some sessions at once: pieces, one to a
// message, of a text that is like the real thing.
type performance struct {
	Node     string
	Sessions int
	Bytes    int           // to be shown in each session
	Piece    int           // bytes of a message; 0 for keys and lines, as people cause them
	Pause    time.Duration // between messages
}

// stand is a server with its people, and what is done there about sessions.
type stand struct {
	name   string
	system *system
	people *child
	end    func()
}

// States of recording, in the order in which each costs more.
const (
	unrecorded = "not recorded"
	recorded   = "recorded"
	indexed    = "recorded and indexed"
)

// benchRecording compares what servers do for the same shells where they are recorded and
// indexed, recorded alone, and neither. Servers, nodes and people are processes of their own
// with real websockets over TLS between them; those that are not measured are idle.
func benchRecording(ctx context.Context, l *lab) ([]figure, error) {
	var stands []stand
	defer func() {
		for _, s := range stands {
			s.end()
			s.system.server.end()
		}
	}()
	for name, v := range map[string]serving{
		unrecorded: {Dir: "unrecorded", Unrecorded: true, Unindexed: true},
		recorded:   {Dir: "recorded", Unindexed: true},
		indexed:    {Dir: "indexed"},
	} {
		s, err := l.newServing(v)
		if err != nil {
			return nil, err
		}
		people, stop, err := l.silentNode(s)
		if err != nil {
			return nil, err
		}
		stands = append(stands, stand{name, s, people, stop})
	}
	var figures []figure
	for _, w := range []struct {
		name string
		performance
	}{
		{"people at shells", performance{Sessions: 100, Bytes: l.pickInt(600, 200) << 10, Pause: 5 * time.Millisecond}},
		{"a log, line by line", performance{Sessions: 20, Bytes: l.pickInt(2, 1) << 20, Piece: 120, Pause: 200 * time.Microsecond}},
		{"a flood, AWS's agent (1 KiB messages)", performance{Sessions: 4, Bytes: l.pickInt(16, 6) << 20, Piece: 1 << 10}},
		{"a flood, our agent (4 KiB messages)", performance{Sessions: 4, Bytes: l.pickInt(40, 12) << 20, Piece: 4 << 10}},
		{"a flood, our agent (32 KiB messages)", performance{Sessions: 4, Bytes: l.pickInt(60, 20) << 20, Piece: 32 << 10}},
	} {
		f, err := recordingCost(ctx, l, stands, w.name, w.performance)
		if err != nil {
			return figures, fmt.Errorf("%s: %w", w.name, err)
		}
		figures = append(figures, f...)
	}
	return figures, nil
}

// recordingCost measures nanoseconds of the servers' processor time per byte shown.
func recordingCost(ctx context.Context, l *lab, stands []stand, name string, p performance) ([]figure, error) {
	var r results
	measure := func() (err error) {
		var all []contestant
		for _, s := range stands {
			all = append(all, contestant{s.name, perform(s, p)})
		}
		r, err = compete(ctx, l.pickInt(4, 3), all...)
		return err
	}
	for _, s := range stands {
		rest := measure
		measure = func() error {
			return s.system.server.profiling("recording-"+strings.ReplaceAll(name+"-"+s.name, " ", "-"), rest)
		}
	}
	if err := measure(); err != nil {
		return nil, err
	}
	with := r.figure(recorded, "ns/B", unrecorded)
	with.name = name + ", recorded"
	with.aim, with.met = "a tenth more", with.peers[0].ratio <= 1.1
	whole := r.figure(indexed, "ns/B", unrecorded, recorded)
	whole.name = name + ", recorded and indexed"
	return []figure{with, whole}, nil
}

// perform has a performance given, and returns what a byte of it costs the server. The sessions
// end before the next: what a recording sends to the store later must not count there.
func perform(s stand, p performance) func(context.Context) (float64, error) {
	p.Node = s.system.node
	return func(context.Context) (float64, error) {
		if err := s.people.ask("attend", p, nil); err != nil {
			return 0, err
		}
		before, err := s.system.server.processor()
		if err != nil {
			return 0, err
		}
		if err := s.people.ask("applaud", p, nil); err != nil {
			return 0, err
		}
		time.Sleep(settling(s.name)) // what is written behind counts as well
		after, err := s.system.server.processor()
		if err != nil {
			return 0, err
		}
		return (after - before) * 1e9 / float64(p.Sessions*p.Bytes), s.people.ask("depart", nil, nil)
	}
}

// settling is how long a server may take to write down what it still holds.
func settling(state string) time.Duration {
	const d = 1200 * time.Millisecond
	if state == indexed {
		return d + index.Behind
	}
	return d // being idle for longer costs nothing to speak of
}

// spectator is a client that counts what it is shown.
type spectator struct {
	channel *client.DataChannel
	first   chan struct{} // closed with the first byte
	once    sync.Once
	seen    atomic.Int64
	want    int64
	done    chan struct{}
}

// Start implements client.Handler.
func (v *spectator) Start(json.RawMessage) error { return nil }

// Take implements client.Handler.
func (v *spectator) Take(_ wire.PayloadType, p []byte) error {
	v.once.Do(func() { close(v.first) })
	if seen := v.seen.Add(int64(len(p))); seen >= v.want && seen-int64(len(p)) < v.want {
		close(v.done)
	}
	return nil
}

// attend opens the sessions of a performance.
func (p *peopleProcess) attend(f performance) (struct{}, error) {
	return struct{}{}, each(f.Sessions, 4, func(int) error {
		in := &ssm.StartSessionInput{Target: aws.String(f.Node)}
		v, stop, err := p.spectate(in, f)
		if err != nil {
			return err
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.spectators = append(p.spectators, v)
		p.visits = append(p.visits, stop)
		return nil
	})
}

func (p *peopleProcess) spectate(in *ssm.StartSessionInput, f performance) (*spectator, *visit, error) {
	ctx, cancel := context.WithCancel(context.Background())
	stream, err := p.api.StartSession(ctx, in)
	if err != nil {
		cancel()
		return nil, nil, err
	}
	v := &spectator{first: make(chan struct{}), done: make(chan struct{}), want: int64(f.Bytes) + 1}
	v.channel = client.NewDataChannel(client.ChannelConfig{
		Stream: stream, Dial: client.Dialer(p.api.TLS(), "sallyport-bench/1"), Resume: p.api.ResumeSession, Direct: v,
	})
	var running sync.WaitGroup
	running.Go(func() { v.channel.Run(ctx) }) // how it ends shows in what was seen
	stop := &visit{id: stream.SessionID, end: func() {
		cancel()
		running.Wait()
	}}
	select {
	case <-v.first:
		return v, stop, nil
	case <-time.After(patience):
		stop.end()
		return nil, nil, errors.New("a session did not begin")
	}
}

// applaud has the performance begin in all sessions, and returns when it was seen.
func (p *peopleProcess) applaud(f performance) (struct{}, error) {
	spectators := p.spectators
	p.spectators = nil
	wish, err := json.Marshal(f)
	if err != nil {
		return struct{}{}, err
	}
	for _, v := range spectators {
		if err := v.channel.Send(context.Background(), wire.PayloadOutput, wish); err != nil {
			return struct{}{}, err
		}
	}
	late := time.After(2 * time.Minute)
	for _, v := range spectators {
		select {
		case <-v.done:
		case <-late:
			return struct{}{}, fmt.Errorf("%d of %d bytes were seen", v.seen.Load(), v.want)
		}
	}
	return struct{}{}, nil
}

// The node's end of a performance keeps as much in flight as an agent does.
const (
	stageMessages = 64
	stageBytes    = 2 << 20
)

// stage is the node's end of one session.
type stage struct {
	conn *websocket.Conn

	mu    sync.Mutex
	room  *sync.Cond
	seq   int64
	sizes []int // of what is not acknowledged
	bytes int
	over  bool
}

// play serves a session: it gives the performance that it is asked for.
func (t *stage) play(first []byte) error {
	t.room = sync.NewCond(&t.mu)
	if err := t.show(first); err != nil {
		return err
	}
	var playing sync.WaitGroup
	var asked int64
	defer playing.Wait()
	defer t.leave()
	for {
		_, b, err := t.conn.Read()
		if err != nil {
			return err
		}
		m, err := wire.Decode(b)
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.TypeAcknowledge:
			t.acknowledged()
		case wire.TypeInputStreamData:
			var f performance
			if err := t.conn.Write(websocket.Binary, wire.NewAcknowledge(m, time.Now()).Encode()); err != nil {
				return err
			}
			if m.SequenceNumber != asked { // again
				continue
			}
			asked++
			if json.Unmarshal(m.Payload, &f) == nil && f.Bytes > 0 {
				playing.Go(func() { t.perform(f) }) // an error shows in the reader, too
			}
		}
	}
}

func (t *stage) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	t.room.Broadcast()
}

func (t *stage) acknowledged() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.sizes) > 0 {
		t.bytes -= t.sizes[0]
		t.sizes = t.sizes[1:]
	}
	t.room.Signal()
}

// show sends a message when there is room for it.
func (t *stage) show(p []byte) error {
	t.mu.Lock()
	for !t.over && (len(t.sizes) >= stageMessages || t.bytes > stageBytes) {
		t.room.Wait()
	}
	seq, over := t.seq, t.over
	t.seq++
	t.sizes = append(t.sizes, len(p))
	t.bytes += len(p)
	t.mu.Unlock()
	if over {
		return errors.New("the session is over")
	}
	return t.conn.Write(websocket.Binary, wire.NewStream(wire.TypeOutputStreamData, seq, wire.PayloadOutput, time.Now(), p).Encode())
}

// perform shows the text of a performance, piece by piece.
func (t *stage) perform(f performance) error {
	random := rand.New(rand.NewPCG(uint64(f.Piece), 7))
	script := logText(random)
	for left := f.Bytes; left > 0; {
		n := f.Piece
		if n == 0 {
			n = pieceOfShell(random)
		}
		n = min(n, left)
		from := random.IntN(len(script) - n)
		if err := t.show(script[from : from+n]); err != nil {
			return err
		}
		left -= n
		if f.Pause > 0 {
			time.Sleep(f.Pause)
		}
	}
	return nil
}

// pieceOfShell is the size of a message as people at shells cause them: most are echoes of
// keys, most bytes are in what commands write.
func pieceOfShell(random *rand.Rand) int {
	switch n := random.IntN(100); {
	case n < 70:
		return 1 + random.IntN(12)
	case n < 90:
		return 60 + random.IntN(600)
	}
	return 600 + random.IntN(3400)
}

// logText makes lines as services log them: times, words that come again, numbers that do
// not, now and then colours.
func logText(random *rand.Rand) []byte {
	levels := []string{"INFO", "INFO", "INFO", "\x1b[33mWARN\x1b[0m", "\x1b[31mERROR\x1b[0m", "DEBUG"}
	words := strings.Fields("request served from cache after retry upstream connection closed by peer user session started handler timeout reading body response status queue worker finished job payload accepted token refreshed index updated segment flushed")
	var b strings.Builder
	for at := time.Date(2026, 11, 20, 9, 0, 0, 0, time.UTC); b.Len() < 1<<20; at = at.Add(time.Duration(random.IntN(400)) * time.Millisecond) {
		fmt.Fprintf(&b, "%s %s app[%d]:", at.Format(time.RFC3339Nano), levels[random.IntN(len(levels))], 1000+random.IntN(40))
		for range 4 + random.IntN(9) {
			b.WriteByte(' ')
			b.WriteString(words[random.IntN(len(words))])
		}
		fmt.Fprintf(&b, " id=%08x took=%d.%03dms\r\n", random.Uint32(), random.IntN(900), random.IntN(1000))
	}
	return []byte(b.String())
}
