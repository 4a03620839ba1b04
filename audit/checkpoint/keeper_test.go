package checkpoint

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/internal/needs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a database of one chain in memory; that on databases is tested in
// store/storetest.
type memory struct {
	mu     sync.Mutex
	rows   []audit.Row
	points []Signed
}

func (m *memory) grow(t testing.TB) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	r := audit.Record{Member: "m1", Seq: int64(len(m.rows)) + 1, Time: time.Unix(int64(len(m.rows)), 0).UTC(), Event: audit.EventNode, Prev: audit.NoPrev}
	if n := len(m.rows); n > 0 {
		r.Prev = m.rows[n-1].Hash
	}
	r.Hash, _ = audit.Sum(r)
	text, err := audit.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	m.rows = append(m.rows, audit.RowOf(r, string(text)))
}

func (m *memory) AuditHeads(context.Context) ([]audit.Head, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	last := m.rows[len(m.rows)-1]
	return []audit.Head{{Member: "m1", Seq: last.Seq, Hash: last.Hash}}, nil
}

func (m *memory) AuditRows(_ context.Context, _ string, after int64, n int) ([]audit.Row, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.rows[after:min(int64(len(m.rows)), after+int64(n))]), nil
}

func (m *memory) UnstoredCheckpoints(_ context.Context, n int) (some []Signed, all int, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.points {
		if !p.Stored {
			if all++; all <= n {
				some = append(some, p)
			}
		}
	}
	return some, all, nil
}

func (m *memory) LastCheckpoint(context.Context) (Signed, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.points) == 0 {
		return Signed{}, false, nil
	}
	return m.points[len(m.points)-1], true, nil
}

func (m *memory) AddCheckpoint(_ context.Context, c Signed, _ string, _ time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c.Number != int64(len(m.points))+1 {
		return ErrConflict
	}
	m.points = append(m.points, c)
	return nil
}

func (m *memory) CheckpointStored(_ context.Context, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.points[n-1].Stored = true
	return nil
}

// shaky is a recording store that can be away, and remembers in which order things came.
type shaky struct {
	Dir
	mu    sync.Mutex
	away  bool
	names []string
}

var errAway = errors.New("the store is away")

func (s *shaky) Put(ctx context.Context, name string, data []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return errAway
	}
	s.names = append(s.names, filepath.Base(name))
	return s.Dir.Put(ctx, name, data)
}

func (s *shaky) Get(ctx context.Context, name string) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.away {
		return nil, errAway
	}
	return s.Dir.Get(ctx, name)
}

func (s *shaky) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return s.Dir.List(ctx, prefix)
}

func (s *shaky) set(away bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.away = away
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromSigner(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newKeeper(t testing.TB, m *memory, o Objects, signer ssh.Signer) *Keeper {
	return New(Config{
		Store: m, Objects: o, Account: "111111111111", Region: "us-east-1", Member: "m1", Every: 10 * time.Millisecond,
		Signer: func(context.Context) (ssh.Signer, error) { return signer, nil },
		Keys:   func(context.Context) ([]ssh.PublicKey, error) { return []ssh.PublicKey{signer.PublicKey()}, nil },
		Now:    time.Now, Logger: slog.New(slog.DiscardHandler),
	})
}

func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// While the recording store is away checkpoints go on being signed; once it is back they
// come to it, in order, none missing. What is left at the end finds the next start.
func TestStoreAway(t *testing.T) {
	m, store, signer := &memory{}, &shaky{Dir: Dir(t.TempDir()), away: true}, newSigner(t)
	m.grow(t)
	k := newKeeper(t, m, store, signer)
	k.Start(t.Context())
	for n := range 4 {
		until(t, "a checkpoint", func() bool { return k.Stats().Number == int64(n)+1 })
		m.grow(t)
	}
	until(t, "figures", func() bool { s := k.Stats(); return s.Waiting >= 1 && s.Failures > 0 })
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	made := k.Stats().Number
	if len(store.names) > 0 || made < 5 {
		t.Fatalf("while the store is away: got %v of %d", store.names, made)
	}
	store.set(false)
	k = newKeeper(t, m, store, signer)
	k.Start(t.Context())
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s := k.Stats(); s.Waiting != 0 || s.Number < made+1 || s.Problems != 0 {
		t.Errorf("figures: got %+v", s)
	}
	if !slices.IsSorted(store.texts()) || len(store.texts()) != int(k.Stats().Number) {
		t.Errorf("got %v", store.texts())
	}
}

// texts are the texts that were put, in order.
func (s *shaky) texts() (texts []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range s.names {
		if strings.HasSuffix(name, textSuffix) {
			texts = append(texts, name)
		}
	}
	return texts
}

// Another checkpoint of the same number in the store is never overwritten, and an alarm.
func TestStoreHasAnother(t *testing.T) {
	m, dir, signer := &memory{}, Dir(t.TempDir()), newSigner(t)
	m.grow(t)
	theirs := []byte("{}")
	if err := dir.Put(t.Context(), Name(1), theirs); err != nil {
		t.Fatal(err)
	}
	k := newKeeper(t, m, dir, signer)
	if err := k.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, err := dir.Get(t.Context(), Name(1)); err != nil || string(got) != string(theirs) {
		t.Errorf("what was there: got %q, %v", got, err)
	}
	var names []string
	for name := range dir.List(t.Context(), Folder) {
		names = append(names, name)
	}
	if k.Stats().Problems != 1 || len(names) != 3 {
		t.Errorf("got %d problems, %v", k.Stats().Problems, names)
	}
}

// That checkpoints were taken over from the store is told by the first that can be signed.
func TestRolledBack(t *testing.T) {
	m, dir, signer := &memory{}, Dir(t.TempDir()), newSigner(t)
	for range 3 {
		m.grow(t)
		if err := newKeeper(t, m, dir, signer).Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	m.points = m.points[:1]
	k := newKeeper(t, m, dir, signer)
	sign := k.config.Signer
	k.config.Signer = func(context.Context) (ssh.Signer, error) { return nil, errAway }
	if err := k.Make(t.Context(), WhyStart); !errors.Is(err, errAway) {
		t.Fatalf("without a key: got %v, want %v", err, errAway)
	}
	k.config.Signer = sign
	for _, want := range []string{"2 checkpoints up to 3 were in the recording store only", ""} {
		if err := k.Make(t.Context(), WhyStop); err != nil {
			t.Fatal(err)
		}
		c, err := m.points[len(m.points)-1].Open([]ssh.PublicKey{signer.PublicKey()})
		if got := strings.Join(c.Problems, "; "); err != nil || !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("checkpoint %d: got %q, %v, want %q", c.Number, got, err, want)
		}
	}
}

// What is too large to be a checkpoint, in the place of the next one or of a signature, keeps
// no other from the store, and none from being read.
func TestStoreHasTooMuch(t *testing.T) {
	for _, name := range []string{Name(1), Name(1) + SignatureSuffix} {
		t.Run(name, func(t *testing.T) {
			m, dir, signer := &memory{}, Dir(t.TempDir()), newSigner(t)
			m.grow(t)
			if err := dir.Put(t.Context(), name, make([]byte, MaxText+1)); err != nil {
				t.Fatal(err)
			}
			c, err := Read(t.Context(), dir, Name(1))
			if err == nil {
				_, err = c.Open([]ssh.PublicKey{signer.PublicKey()})
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("reading it: got %v", err)
			}
			if err == nil {
				t.Error("got a checkpoint")
			}
			k := newKeeper(t, m, dir, signer)
			if err := k.Make(t.Context(), WhyStart); err != nil {
				t.Fatal(err)
			}
			m.grow(t)
			if err := k.Make(t.Context(), WhyStop); err != nil {
				t.Fatal(err)
			}
			if err := k.Lift(t.Context()); err != nil {
				t.Fatal(err)
			}
			if c, err := Read(t.Context(), dir, Name(2)); err != nil || c.Text != m.points[1].Text {
				t.Errorf("the second checkpoint: got %q, %v", c.Text, err)
			}
		})
	}
}

// "ssh-keygen -Y verify" suffices to check a checkpoint by hand.
func TestSSHKeygenVerifies(t *testing.T) {
	program := needs.Program(t, "ssh-keygen")
	m, dir, signer := &memory{}, t.TempDir(), newSigner(t)
	m.grow(t)
	if err := newKeeper(t, m, Dir(dir), signer).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	allowed := filepath.Join(dir, "allowed_signers")
	if err := os.WriteFile(allowed, append([]byte("audit "), ssh.MarshalAuthorizedKey(signer.PublicKey())...), 0o600); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(dir, Name(1))
	verify := func(altered string) error {
		cmd := exec.CommandContext(t.Context(), program, "-Y", "verify", "-f", allowed, "-I", "audit", "-n", Namespace, "-s", text+SignatureSuffix)
		b, err := os.ReadFile(text)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = strings.NewReader(strings.Replace(string(b), `"seq"`, altered, 1))
		return cmd.Run()
	}
	if err := verify(`"seq"`); err != nil {
		t.Error(err)
	}
	if err := verify(`"sEq"`); err == nil {
		t.Error("an altered text verifies")
	}
}

// Records that no checkpoint has seen are counted among those that are looked at.
func TestUncovered(t *testing.T) {
	m, signer := &memory{}, newSigner(t)
	for range 4 {
		m.grow(t)
	}
	if err := newKeeper(t, m, Dir(t.TempDir()), signer).Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	m.grow(t)
	m.grow(t)
	for name, tt := range map[string]struct {
		rows    []audit.Row
		partial bool
		want    int64
	}{
		"all":           {m.rows, false, 2},
		"one removed":   {slices.Delete(slices.Clone(m.rows), 1, 2), false, 2},
		"the end":       {m.rows[3:], true, 2},
		"the beginning": {m.rows[:3], true, 0},
		"the last":      {m.rows[5:], true, 1},
	} {
		v := NewVerifier([]ssh.PublicKey{signer.PublicKey()})
		v.Partial = tt.partial
		v.Source("the store")
		v.Checkpoint(m.points[0])
		for _, row := range tt.rows {
			v.Record(row)
		}
		if got := v.Finish().Uncovered; got != tt.want {
			t.Errorf("%s: got %d uncovered, want %d", name, got, tt.want)
		}
	}
}

// What was noted of an earlier verification is in the chains, or missing.
func TestNoted(t *testing.T) {
	m := &memory{}
	for range 4 {
		m.grow(t)
	}
	forged, err := m.rows[3].Record()
	if err != nil {
		t.Fatal(err)
	}
	forged.Reason = "innocent"
	forged.Hash, _ = audit.Sum(forged)
	text, err := audit.Encode(forged)
	if err != nil {
		t.Fatal(err)
	}
	note := Noted{Heads: []audit.Head{{Member: "m1", Seq: 4, Hash: m.rows[3].Hash}}}
	for name, tt := range map[string]struct {
		rows []audit.Row
		want []string
	}{
		"whole":            {m.rows, nil},
		"the last forged":  {append(slices.Clone(m.rows[:3]), audit.RowOf(forged, string(text))), []string{`record 4 of member "m1" is not the one that note 1 saw: the chain was rewritten at it or before`}},
		"the end cut off":  {m.rows[:3], []string{`the chain of member "m1" ends with record 3, but note 1 saw record 4: its end was cut off`}},
		"nothing is there": {nil, []string{`the chain of member "m1" is missing altogether: note 1 saw its record 4`}},
	} {
		v := NewVerifier(nil, note)
		for _, row := range tt.rows {
			v.Record(row)
		}
		if diff := cmp.Diff(tt.want, v.Finish().Findings); diff != "" {
			t.Errorf("%s: findings (-want +got):\n%s", name, diff)
		}
	}
}

// Names and folders: nothing outside of a folder is read or written.
func TestDir(t *testing.T) {
	d := Dir(t.TempDir())
	for _, name := range []string{"../x", "/etc/passwd", "a/../../x", ""} {
		if err := d.Put(t.Context(), name, nil); err == nil {
			t.Errorf("writing %q: got no error", name)
		}
		if _, err := d.Get(t.Context(), name); err == nil {
			t.Errorf("reading %q: got no error", name)
		}
	}
	if _, err := d.Get(t.Context(), Name(1)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: got %v", err)
	}
	for name, want := range map[string]int64{
		Name(1): 1, Name(999999999999): 999999999999, Folder + "1.json": 0, Name(1) + SignatureSuffix: 0,
		Folder + "00000000000x.json": 0, Folder + "000000000000.json": 0, Folder + "-00000000001.json": 0, Folder + "+00000000001.json": 0,
	} {
		if got := NumberOf(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	signer := newSigner(f)
	signed, err := Sign(Checkpoint{Number: 1, Heads: []audit.Head{{Member: "m1", Seq: 1}}}, signer)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed.Text, signed.Signature)
	f.Add("{}", "-----BEGIN SSH SIGNATURE-----\n-----END SSH SIGNATURE-----")
	f.Fuzz(func(t *testing.T, text, signature string) {
		got, err := Signed{Text: text, Signature: signature}.Open([]ssh.PublicKey{signer.PublicKey()})
		if err == nil && text != signed.Text {
			t.Errorf("opened %q as %+v", text, got)
		}
	})
}
