package archive

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// peers are members that reach each other, unless they are gone.
type peers struct {
	members map[string]*Archive
	asked   atomic.Int64
	largest atomic.Int64
}

func (p *peers) Ask(ctx context.Context, member string, request []byte) ([]byte, error) {
	p.asked.Add(1)
	a := p.members[member]
	if a == nil {
		return nil, errors.New("the member is gone")
	}
	b, err := a.Answer(ctx, request)
	p.largest.Store(max(p.largest.Load(), int64(len(b))))
	return b, err
}

// pair are two members with one database and one store.
func pair(t *testing.T, store *s3server) (p *peers, one, two *Archive) {
	t.Helper()
	p = &peers{members: map[string]*Archive{}}
	s := store.with(t, func(c *Config) { c.ChunkSize, c.Peers = 3000, p })
	one = s.open()
	s.cfg.Member, s.cfg.Spool = "two", filepath.Join(t.TempDir(), "spool")
	two = s.open()
	p.members["one"], p.members["two"] = one, two
	return p, one, two
}

// A recording that lies in one member's spool is read on another, while it is written, when it
// has ended, and when the store has it; what goes between them is as sealed as in the spool.
func TestReadOnAnotherMember(t *testing.T) {
	for name, mode := range map[string]fault{"store works": works, "store away": fails} {
		t.Run(name, func(t *testing.T) {
			store := newS3(t)
			p, one, two := pair(t, store)
			warm := create(t, one, "warm") // for its row
			r := create(t, one, "alice-1")
			eventually(t, "the rows", func() bool { return one.Stats().Stored >= 2 })
			store.set(mode)
			for n := range 5 {
				show(t, r, n*100, 100)
				if text, _ := shown(t, mustRead(t, two, r.Name)); text != lines(0, n*100+100) {
					t.Fatalf("after %d lines: got %d bytes", n*100+100, len(text))
				}
			}
			if p.asked.Load() == 0 || p.largest.Load() > 1<<20 {
				t.Errorf("asked %d times, with answers of up to %d bytes", p.asked.Load(), p.largest.Load())
			}
			end(t, r)
			if text, end := shown(t, mustRead(t, two, r.Name)); text != lines(0, 500) || end == nil {
				t.Errorf("got %d bytes and the end %v", len(text), end)
			}
			end(t, warm)
			store.set(works)
			waitStored(t, one)
			checkWhole(t, two, r.Name, lines(0, 500))
		})
	}
}

// When the home member is gone, what the store has is read: less than there was, and all of it
// good.
func TestReadWithoutTheHomeMember(t *testing.T) {
	p, one, two := pair(t, newS3(t))
	r := create(t, one, "alice-1")
	show(t, r, 0, 300)
	eventually(t, "chunks", func() bool { return one.Stats().Stored >= 4 && one.Stats().Lag == 0 })
	delete(p.members, "one")
	text, end := shown(t, mustRead(t, two, r.Name))
	if !strings.HasPrefix(lines(0, 300), text) || len(text) < 1000 || end != nil {
		t.Errorf("got %d bytes and the end %v", len(text), end)
	}
	if _, err := two.Verify(t.Context(), r.Name); err == nil {
		t.Error("got no error, want ErrIncomplete")
	}
}

// liar is a member that lists chunks as it likes, and has as many bytes of each as are asked
// for. It tells the truth about keys.
type liar struct {
	honest *Archive
	list   string
	asked  atomic.Int64 // for lists
}

func (l *liar) Ask(ctx context.Context, _ string, request []byte) ([]byte, error) {
	var q ask
	if err := json.Unmarshal(request, &q); err != nil {
		return nil, err
	}
	switch {
	case q.Op == "list" && l.asked.Add(1) > 100:
		return nil, errors.New("asked without end")
	case q.Op == "list":
		return []byte(l.list), nil
	case q.Object == keyObject:
		return l.honest.Answer(ctx, request)
	}
	return json.Marshal(answer{Found: true, Data: make([]byte, q.N)})
}

// What another member answers that makes no sense is not believed: what the store has is read.
func TestPeerThatLies(t *testing.T) {
	p, one, two := pair(t, newS3(t))
	r := create(t, one, "alice-1")
	show(t, r, 0, 300)
	eventually(t, "chunks", func() bool { return one.Stats().Stored >= 4 && one.Stats().Lag == 0 })
	delete(p.members, "one")
	digest := strings.Repeat("a", 64)
	for _, list := range []string{
		"", "[]", "{}", `{"found":true,"more":true}`,
		`{"found":true,"chunks":[{"name":"000001.chunk","size":-1,"frames":1,"plain_size":100}]}`,
		`{"found":true,"chunks":[{"name":"000001.chunk","size":4611686018427387904,"frames":1,"plain_size":100}]}`,
		`{"found":true,"chunks":[{"name":"../../x","size":100,"frames":1,"plain_size":100}]}`,
		`{"found":true,"chunks":[{"name":"000002.chunk","size":100,"frames":1,"plain_size":100}]}`,
		`{"found":true,"chunks":[{"name":"000001.chunk","size":100,"frames":1,"plain_offset":-9,"plain_size":100}]}`,
		`{"found":true,"chunks":[{"name":"000001.chunk","size":100,"frames":1,"plain_size":-100}]}`,
		`{"found":true,"chunks":[{"name":"000001.chunk","size":100,"frames":1,"plain_size":100,"sha256":"` + digest + `x"}]}`,
		`{"found":true,"open":{"name":"000001.chunk","size":9223372036854775807,"frames":1,"plain_size":100}}`,
		`{"found":true,"more":true,"chunks":[{"name":"000001.chunk","size":100,"frames":1,"plain_size":100}]}`,
	} {
		liar := &liar{honest: one, list: list}
		two.cfg.Peers = liar
		text, err := readAll(t, two, r.Name, 512<<10)
		var d *Damage
		if err != nil && !errors.As(err, &d) {
			t.Errorf("%s: got %v", list, err)
		}
		if err == nil && len(text) > 0 && !strings.Contains(string(text), "line 000000") {
			t.Errorf("%s: got %.100q", list, text)
		}
		if n := liar.asked.Load(); n > 4 {
			t.Errorf("%s: asked %d times", list, n)
		}
	}
}

// Members answer for recordings alone.
func TestAnswerRefuses(t *testing.T) {
	s := newSystem(t)
	a := s.open()
	r := create(t, a, "alice-1")
	for _, q := range []string{
		"", "{}", `{"op":"read"}`, `{"op":"read","name":"../x","object":"key.json"}`,
		`{"op":"read","name":"` + r.Name + `","object":"journal","n":10}`,
		`{"op":"read","name":"` + r.Name + `","object":"../../.lock","n":10}`,
		`{"op":"read","name":"` + r.Name + `","object":"key.json","from":-1,"n":10}`,
		`{"op":"write","name":"` + r.Name + `","object":"key.json"}`,
	} {
		if b, err := a.Answer(t.Context(), []byte(q)); err == nil {
			t.Errorf("%s: got %s, want an error", q, b)
		}
	}
}
