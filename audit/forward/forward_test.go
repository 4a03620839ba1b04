package forward

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"math"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"sallyport.dev/audit"
	"sallyport.dev/internal/hooksign"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memory is a Store in memory; that on databases is tested in store/storetest.
type memory struct {
	mu      sync.Mutex
	rows    map[string][]audit.Row
	cursors map[string]map[string]int64
	holders map[string]string
	until   map[string]time.Time
	holds   int           // changes of leases
	refuses int           // moves of cursors that fail next
	later   time.Duration // of the clock
}

func newMemory() *memory {
	return &memory{rows: map[string][]audit.Row{}, cursors: map[string]map[string]int64{}, holders: map[string]string{}, until: map[string]time.Time{}}
}

// grow appends records to a chain.
func (m *memory) grow(t testing.TB, member string, n int, change ...func(*audit.Record)) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		r := audit.Record{Member: member, Seq: int64(len(m.rows[member])) + 1, Time: time.Now().UTC().Truncate(time.Microsecond),
			Event: audit.EventDecision, Action: "ssm:StartSession", Decision: "Allowed", Principal: "arn:aws:iam::1:user/alice", Prev: audit.NoPrev}
		for _, c := range change {
			c(&r)
		}
		sum, err := audit.Sum(r)
		if err != nil {
			t.Fatal(err)
		}
		r.Hash = sum
		text, _ := json.Marshal(r)
		m.rows[member] = append(m.rows[member], audit.RowOf(r, string(text)))
	}
}

func (m *memory) AuditHeads(context.Context) (heads []audit.Head, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for member, rows := range m.rows {
		last := rows[len(rows)-1]
		heads = append(heads, audit.Head{Member: member, Seq: last.Seq, Hash: last.Hash})
	}
	slices.SortFunc(heads, func(a, b audit.Head) int { return strings.Compare(a.Member, b.Member) })
	return heads, nil
}

func (m *memory) AuditRows(_ context.Context, member string, after int64, n int) (rows []audit.Row, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.rows[member] {
		if r.Seq > after && len(rows) < n {
			rows = append(rows, r)
		}
	}
	return rows, nil
}

func (m *memory) AuditCursors(_ context.Context, destination string) (map[string]int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]int64{}
	for member, seq := range m.cursors[destination] {
		all[member] = seq
	}
	return all, nil
}

func (m *memory) MoveAuditCursor(_ context.Context, destination, holder string, to ...audit.Head) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holders[destination] != holder {
		return ErrLease
	}
	if m.refuses > 0 {
		m.refuses--
		return errors.New("disk full")
	}
	if m.cursors[destination] == nil {
		m.cursors[destination] = map[string]int64{}
	}
	for _, h := range to {
		m.cursors[destination][h.Member] = h.Seq
	}
	return nil
}

func (m *memory) HoldDestination(_ context.Context, name, holder string, now, until time.Time) (held bool, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.holds++
	if m.holders[name] != holder && m.until[name].After(now) {
		return false, nil
	}
	m.holders[name], m.until[name] = holder, until
	return true, nil
}

// now is the clock of all members; pass moves it.
func (m *memory) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.later)
}

func (m *memory) pass(d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.later += d
}

func (m *memory) DropDestination(_ context.Context, name, holder string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.holders[name] == holder {
		m.holders[name], m.until[name] = "", time.Time{}
	}
	return nil
}

func (m *memory) cursor(destination, member string) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.cursors[destination][member]
}

// lease is longer than any test takes: whoever is to lose it has the clock moved.
const lease = time.Hour

// start forwards as a member until the test's end.
func (m *memory) start(t testing.TB, member string, ds ...Destination) *Forwarder {
	t.Helper()
	for i := range ds {
		if ds[i].Encode == nil {
			ds[i].Encode = audit.Encode
		}
	}
	f := New(Config{Store: m, Destinations: ds, Member: member, Now: m.now, Logger: slog.New(slog.DiscardHandler),
		Poll: 5 * time.Millisecond, Retry: 5 * time.Millisecond, Lease: lease})
	f.Start(t.Context())
	t.Cleanup(func() { f.Close(context.Background()) })
	return f
}

// until waits for what other goroutines bring about.
func until(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(2 * time.Minute); !done(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for: %s", what)
		}
	}
}

// got is what a destination was sent: how often each record.
type got struct {
	mu    sync.Mutex
	times map[string]int // member/seq
	order map[string][]int64
	lines []string
}

func (g *got) take(line []byte) {
	r, err := audit.ParseRecord(line)
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.times == nil {
		g.times, g.order = map[string]int{}, map[string][]int64{}
	}
	if err != nil {
		g.lines = append(g.lines, "!"+err.Error())
		return
	}
	g.times[fmt.Sprint(r.Member, "/", r.Seq)]++
	g.order[r.Member] = append(g.order[r.Member], r.Seq)
	g.lines = append(g.lines, string(line))
}

// count is how often a record came; total how many records did.
func (g *got) count(record string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.times[record]
}

func (g *got) total() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.times)
}

// has reports whether records 1 to n of a member came, in order but for repeats.
func (g *got) has(member string, n int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := int64(1)
	for _, seq := range g.order[member] {
		if seq == next {
			next++
		}
	}
	return next == int64(n)+1
}

// fake is a Sender that tests lead.
type fake struct {
	got
	fail  atomic.Bool
	hang  atomic.Bool
	sends atomic.Int32
}

func (f *fake) Send(ctx context.Context, b Batch) error {
	f.sends.Add(1)
	if f.hang.Load() {
		<-ctx.Done()
		return ctx.Err()
	}
	if f.fail.Load() {
		return errors.New("away")
	}
	for _, line := range b.Lines {
		f.take(line)
	}
	return nil
}

func (f *fake) Close() error { return nil }

// A destination that is away or hangs holds up no other one, and gets everything when it
// is back.
func TestDestinationsDoNotHoldUpEachOther(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 3)
	good, away, hung := &fake{}, &fake{}, &fake{}
	away.fail.Store(true)
	hung.hang.Store(true)
	f := m.start(t, "m1", Destination{Name: "a/good", Sender: good}, Destination{Name: "b/away", Sender: away}, Destination{Name: "c/hung", Sender: hung})
	until(t, "the good one", func() bool { return good.has("m1", 3) })
	m.grow(t, "m1", 1200)
	m.grow(t, "m2", 2) // a member that runs no more, or elsewhere
	until(t, "the good one", func() bool { return good.has("m1", 1203) && good.has("m2", 2) })
	until(t, "a figure", func() bool { return f.Stats()[1].Behind == 1205 })
	if s := f.Stats()[1]; s.Problem != "away" || s.Failures == 0 || s.Lag <= 0 || !s.Held {
		t.Errorf("figures of the one that is away: got %+v", s)
	}
	away.fail.Store(false)
	until(t, "the one that was away", func() bool { return away.has("m1", 1203) && away.has("m2", 2) })
	until(t, "its figures", func() bool { s := f.Stats()[1]; return s.Behind == 0 && s.Problem == "" && s.Lag == 0 })
	for record, n := range good.times {
		if n != 1 {
			t.Errorf("%s was sent %d times to who took it at once", record, n)
		}
	}
}

// What was delivered is not sent again after a restart, and what was not is.
func TestCursorsSurvive(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 5)
	first := &fake{}
	f := m.start(t, "m1", Destination{Name: "x", Sender: first})
	until(t, "all", func() bool { return first.has("m1", 5) })
	m.grow(t, "m1", 1)
	if err := f.Close(t.Context()); err != nil { // sends what came last
		t.Fatal(err)
	}
	if !first.has("m1", 6) || m.cursor("x", "m1") != 6 {
		t.Errorf("at the end: got %v, cursor %d", first.order, m.cursor("x", "m1"))
	}
	m.grow(t, "m1", 2)
	second := &fake{}
	m.start(t, "m1", Destination{Name: "x", Sender: second})
	until(t, "the rest", func() bool { return second.total() == 2 && second.count("m1/8") == 1 })
}

// When the member that sends dies, another sends the rest, the dead one's chain too.
func TestAnotherMemberGoesOn(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 5)
	one, two := &fake{}, &fake{}
	f := m.start(t, "m1", Destination{Name: "x", Sender: one})
	until(t, "the first", func() bool { return one.has("m1", 5) })
	m.start(t, "m2", Destination{Name: "x", Sender: two})
	m.grow(t, "m2", 5)
	until(t, "the first, of both", func() bool { return one.has("m2", 5) })
	if two.sends.Load() != 0 {
		t.Error("the other member sent as well")
	}
	f.cancel() // dies: gives nothing up
	f.done.Wait()
	m.grow(t, "m1", 3) // what it wrote last
	m.pass(lease)
	until(t, "the other", func() bool { return two.count("m1/8") == 1 })
	if n := two.total(); n != 3 {
		t.Errorf("the other sent %d records, want the 3 that were left: %v", n, two.times)
	}
}

// From now on, or from the beginning.
func TestFrom(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 5)
	d := &fake{}
	f := m.start(t, "m1", Destination{Name: "x", Sender: d, FromNow: true})
	until(t, "the lease", func() bool { return m.cursor("x", "m1") == 5 })
	m.grow(t, "m1", 1)
	until(t, "the new one", func() bool { return d.count("m1/6") == 1 })
	if n := d.total(); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
	f.Close(t.Context())
	m.grow(t, "m1", 1) // once known, nothing is left out
	m.start(t, "m1", Destination{Name: "x", Sender: d, FromNow: true})
	until(t, "what came in between", func() bool { return d.count("m1/7") == 1 })
}

// What is to be left out stays out when noting that fails at first.
func TestFromNowOfAFullDisk(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 5)
	m.grow(t, "m2", 5)
	m.refuses = 2
	d := &fake{}
	m.start(t, "m1", Destination{Name: "x", Sender: d, FromNow: true})
	until(t, "the cursors", func() bool { return m.cursor("x", "m1") == 5 && m.cursor("x", "m2") == 5 })
	m.grow(t, "m2", 1)
	until(t, "the new one", func() bool { return d.count("m2/6") == 1 })
	if n := d.total(); n != 1 {
		t.Errorf("got %d records, want 1", n)
	}
}

// A lease is a change of the database, and not made anew at each look at the log; but it
// is kept, and whoever lost it finds out before they move a cursor.
func TestLease(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 1)
	d := &fake{}
	f := m.start(t, "m1", Destination{Name: "x", Sender: d})
	holds := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.holds
	}
	for n := int64(1); n <= 20; n++ {
		until(t, "a record", func() bool { return m.cursor("x", "m1") == n })
		m.grow(t, "m1", 1)
	}
	until(t, "the last record", func() bool { return d.has("m1", 21) && m.cursor("x", "m1") == 21 })
	if n := holds(); n != 1 {
		t.Errorf("the lease was taken %d times for 20 batches, want once", n)
	}
	m.pass(lease / 2)
	until(t, "the lease prolonged", func() bool { return holds() == 2 })
	m.pass(-lease) // a clock set back
	until(t, "the lease prolonged", func() bool { return holds() == 3 })
	m.mu.Lock()
	m.holders["x"], m.until["x"] = "m2", m.until["x"].Add(24*time.Hour)
	m.mu.Unlock()
	m.grow(t, "m1", 1)
	until(t, "the loss noticed", func() bool { s := f.Stats()[0]; return !s.Held && s.Problem == ErrLease.Error() })
	if at := m.cursor("x", "m1"); at != 21 {
		t.Errorf("the cursor that another holds: got %d, want 21", at)
	}
}

// A row that somebody made no record of is told of, and holds nothing up.
func TestUnreadableRows(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 4)
	m.rows["m1"][1].Text = `{"member":` // no JSON
	m.rows["m1"][2].Text = strings.Replace(m.rows["m1"][3].Text, "x", "x", 1)
	d := &fake{}
	m.start(t, "m1", Destination{Name: "x", Sender: d})
	until(t, "all", func() bool { return d.has("m1", 4) })
	for _, line := range d.lines[1:3] {
		if !strings.Contains(line, `"event":"unreadable"`) || !strings.Contains(line, "AuditRecordChanged") {
			t.Errorf("got %s", line)
		}
	}
}

// Nor does a row whose time cannot be written.
func TestRowsOfNoTime(t *testing.T) {
	for _, at := range []time.Time{time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(-9000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		m := newMemory()
		m.grow(t, "m1", 3)
		m.rows["m1"][0].Text, m.rows["m1"][0].Time = "{", at
		d := &fake{}
		m.start(t, "m1", Destination{Name: "x", Sender: d})
		until(t, "all", func() bool { return d.has("m1", 3) })
	}
}

// A cursor that somebody moved in the database, to have records left out, leaves none out.
func TestMovedCursors(t *testing.T) {
	for _, at := range []int64{6, math.MaxInt64, -1, math.MinInt64} {
		m := newMemory()
		m.grow(t, "m1", 5)
		m.grow(t, "m2", 5)
		m.cursors["x"] = map[string]int64{"m1": at, "m2": 2}
		d := &fake{}
		f := m.start(t, "m1", Destination{Name: "x", Sender: d})
		until(t, fmt.Sprint("all, with the cursor at ", at), func() bool { return d.has("m1", 5) && d.count("m2/5") == 1 && f.Stats()[0].Behind == 0 })
		if d.count("m2/2") > 0 {
			t.Error("the other chain was sent again, too")
		}
		if got := m.cursor("x", "m1"); got != 5 {
			t.Errorf("the cursor: got %d, want 5", got)
		}
	}
}

// batches are bounded in records and bytes.
func TestBatchesAreBounded(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 40, func(r *audit.Record) { r.Reason = strings.Repeat("x", 100<<10) })
	l := &lane{Destination: Destination{Encode: audit.Encode}, config: Config{Store: m, Now: time.Now}, log: slog.New(slog.DiscardHandler)}
	b, err := l.batch(t.Context(), "m1", 0)
	if err != nil || len(b.Lines) < 10 || len(b.Lines) > 11 || b.First != 1 || b.Last != int64(len(b.Lines)) {
		t.Errorf("got %d lines, %d to %d, %v, want about a megabyte", len(b.Lines), b.First, b.Last, err)
	}
	m.grow(t, "m2", 2*maxRecords)
	if b, err = l.batch(t.Context(), "m2", 3); err != nil || len(b.Lines) != maxRecords || b.First != 4 {
		t.Errorf("got %d lines from %d, %v, want %d from 4", len(b.Lines), b.First, err, maxRecords)
	}
}

// linger: small batches wait for more, but not for ever and not at the end.
func TestLinger(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 2)
	d := &fake{}
	f := m.start(t, "m1", Destination{Name: "x", Sender: d, Linger: time.Hour})
	until(t, "a figure", func() bool { return f.Stats()[0].Behind == 2 })
	m.grow(t, "m1", maxRecords)
	until(t, "a full batch", func() bool { return d.has("m1", maxRecords) })
	if d.has("m1", maxRecords+2) {
		t.Error("the rest was sent as well")
	}
	f.Close(t.Context())
	if !d.has("m1", maxRecords+2) {
		t.Error("at the end: the rest was not sent")
	}
}

// folder holds the objects of a bucket.
type folder map[string]string

func (f folder) Put(_ context.Context, name string, data []byte) error {
	f[name] = string(data)
	return nil
}

// Whoever can write to the database replaces nothing that lies in the bucket: neither by
// having altered records sent again, nor by a chain whose name looks like another's.
func TestObjectsAreNotReplaced(t *testing.T) {
	objects := folder{}
	send := func(member, line string) {
		t.Helper()
		b := Batch{Member: member, First: 1, Last: 1, Time: time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC), Lines: [][]byte{[]byte(line)}}
		if err := (&Bucket{Objects: objects}).Send(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	send("m_1", "told")
	send("m_1", "told") // again is the same
	send("m_1", "altered")
	send("m/1", "another's")
	got := slices.Sorted(maps.Values(objects))
	if diff := cmp.Diff([]string{"altered\n", "another's\n", "told\n"}, got); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	name := regexp.MustCompile(`^2026/11/20/m_1/000000000001-000000000001-[0-9a-f]{32}\.jsonl$`)
	for n := range objects {
		if !name.MatchString(n) {
			t.Errorf("an object named %s", n)
		}
	}
}

// receiver is a syslog server on a real socket.
type receiver struct {
	got
	t       testing.TB
	ln      net.Listener
	mu      sync.Mutex
	conns   []net.Conn
	closed  bool
	texts   []string
	deaf    atomic.Bool  // accepts and reads nothing
	unheard atomic.Int32 // connections that were taken so
	done    sync.WaitGroup
}

func listen(t testing.TB, address string, config *tls.Config) *receiver {
	t.Helper()
	ln, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		ln = tls.NewListener(ln, config)
	}
	r := &receiver{t: t, ln: ln}
	r.done.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *receiver) accept() {
	for {
		conn, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.mu.Lock()
		r.conns = append(r.conns, conn)
		if r.closed { // it was taken beside that
			conn.Close()
		}
		r.mu.Unlock()
		r.done.Go(func() { r.serve(conn) })
	}
}

// serve reads messages of RFC 6587 3.4.1: a length, a space, so many bytes.
func (r *receiver) serve(conn net.Conn) {
	if r.deaf.Load() {
		r.unheard.Add(1)
		return
	}
	in := bufio.NewReader(conn)
	for {
		length, err := in.ReadString(' ')
		if err != nil {
			return
		}
		n, err := strconv.Atoi(strings.TrimSpace(length))
		if err != nil || n > 1<<20 {
			r.t.Errorf("length: got %q", length)
			return
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(in, message); err != nil {
			return
		}
		r.mu.Lock()
		r.texts = append(r.texts, string(message))
		r.mu.Unlock()
		_, line, found := bytes.Cut(message, []byte("] \xef\xbb\xbf"))
		if !found {
			r.t.Errorf("message: got %q", message)
			return
		}
		r.take(line)
	}
}

// cut closes all connections.
func (r *receiver) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		c.Close()
	}
	r.conns = nil
}

func (r *receiver) close() {
	r.ln.Close()
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cut()
	r.done.Wait()
}

func (r *receiver) address(scheme string) string { return scheme + "://" + r.ln.Addr().String() }

func mustSyslog(t testing.TB, s Syslog) Sender {
	t.Helper()
	sender, err := NewSyslog(s)
	if err != nil {
		t.Fatal(err)
	}
	return sender
}

// A receiver that restarts misses nothing.
func TestSyslogRestarts(t *testing.T) {
	m := newMemory()
	m.grow(t, "m1", 10)
	r := listen(t, "127.0.0.1:0", nil)
	m.start(t, "m1", Destination{Name: "syslog/x", Sender: mustSyslog(t, Syslog{Address: r.address("tcp"), Facility: FacilityLogAudit})})
	until(t, "the first", func() bool { return r.has("m1", 10) })
	r.cut()
	m.grow(t, "m1", 10)
	until(t, "after a broken connection", func() bool { return r.has("m1", 20) })
	address := r.ln.Addr().String()
	r.close()
	m.grow(t, "m1", 700)
	time.Sleep(20 * time.Millisecond) // some attempts are refused
	again := listen(t, address, nil)
	again.mu.Lock()
	again.order, again.times = map[string][]int64{"m1": slices.Clone(r.order["m1"])}, map[string]int{}
	again.mu.Unlock()
	until(t, "after a restart", func() bool { return again.has("m1", 720) })
}

// What a receiver accepted but did not read before it went is sent again.
func TestSyslogSendsTheLastBatchAgain(t *testing.T) {
	r := listen(t, "127.0.0.1:0", nil)
	r.deaf.Store(true)
	s := mustSyslog(t, Syslog{Address: r.address("tcp")})
	defer s.Close()
	m := newMemory()
	m.grow(t, "m1", 2)
	l := &lane{Destination: Destination{Encode: audit.Encode}, config: Config{Store: m, Now: time.Now}, log: slog.New(slog.DiscardHandler)}
	for i := range 2 {
		b, err := l.batch(t.Context(), "m1", int64(i))
		if err != nil {
			t.Fatal(err)
		}
		b.Records, b.Lines = b.Records[:1], b.Lines[:1]
		if err := s.Send(t.Context(), b); err != nil { // its system took it
			t.Fatal(err)
		}
		if i == 0 {
			until(t, "the receiver takes the connection", func() bool { return r.unheard.Load() == 1 })
			r.cut()
			r.deaf.Store(false)
			until(t, "the end of the connection", func() bool { return s.(*Syslog).conn.broken() })
		}
	}
	until(t, "both", func() bool { return r.has("m1", 2) })
}

// A receiver that hangs does not hang the sender beyond its time.
func TestSyslogHangs(t *testing.T) {
	r := listen(t, "127.0.0.1:0", nil)
	r.deaf.Store(true)
	s := mustSyslog(t, Syslog{Address: r.address("tcp")})
	defer s.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	big := bytes.Repeat([]byte("x"), 64<<20) // more than sockets buffer
	if err := s.Send(ctx, Batch{Records: []audit.Record{{}}, Lines: [][]byte{big}}); err == nil {
		t.Error("got no error")
	}
}

// certificates makes a CA and a certificate for 127.0.0.1.
func certificates(t testing.TB) (*x509.CertPool, tls.Certificate) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "syslog"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return pool, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestSyslogOverTLS(t *testing.T) {
	pool, cert := certificates(t)
	r := listen(t, "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert})
	m := newMemory()
	m.grow(t, "m1", 3, func(r *audit.Record) {
		r.Reason = "not allowed]\n\"x\\\u2028"
		r.Decision, r.Session = "ImplicitlyDenied", `a]"\b`
	})
	own := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}
	m.start(t, "m1", Destination{Name: "syslog/tls", Sender: mustSyslog(t, Syslog{Address: r.address("tcp+tls"), Facility: FacilityLogAudit, TLS: own})})
	until(t, "all", func() bool { return r.has("m1", 3) })
	r.mu.Lock()
	text := r.texts[0]
	r.mu.Unlock()
	want := `<109>1 ` + m.rows["m1"][0].Time.Format("2006-01-02T15:04:05.000000Z07:00") + ` m1 sallyport - decision [sallyport@32473 member="m1" seq="1"` +
		` event="decision" principal="arn:aws:iam::1:user/alice" action="ssm:StartSession" decision="ImplicitlyDenied" session="a\]\"\\b" hash="` +
		m.rows["m1"][0].Hash + "\"] \xef\xbb\xbf{"
	if !strings.HasPrefix(text, want) {
		t.Errorf("got  %q\nwant %q…", text, want)
	}
	if strings.ContainsAny(text, "\n") {
		t.Errorf("a line feed in %q", text)
	}

	// A receiver that nobody vouches for is told nothing.
	stranger := mustSyslog(t, Syslog{Address: r.address("tcp+tls")})
	defer stranger.Close()
	if err := stranger.Send(t.Context(), Batch{Records: []audit.Record{{}}, Lines: [][]byte{[]byte("{}")}}); err == nil {
		t.Error("an unknown certificate: got no error")
	}
}

func TestSyslogConfiguration(t *testing.T) {
	for address, want := range map[string]string{
		"":                            "address",
		"syslog.example.com:514":      "address",
		"udp://127.0.0.1:514":         "address",
		"tcp://192.0.2.1:514":         "loopback",
		"tcp://localhost.evil:514":    "loopback",
		"tcp+tls://host":              "address",
		"tcp+tls://user:pw@host:514":  "address",
		"tcp+tls://host:514?token=pw": "address",
		"tcp+tls://host:6514/path":    "address",
		"tcp://127.0.0.1:514":         "",
		"tcp://[::1]:514":             "",
		"tcp+tls://host:6514":         "",
	} {
		_, err := NewSyslog(Syslog{Address: address})
		if (err == nil) != (want == "") || err != nil && (!strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pw")) {
			t.Errorf("%q: got %v, want %q, and nothing secret", address, err, want)
		}
	}
	for _, id := range []string{"sallyport", "a b@1", `x"@1`, "x@", "@1", "x=@1"} {
		if _, err := NewSyslog(Syslog{Address: "tcp+tls://h:1", StructuredID: id}); err == nil {
			t.Errorf("structured_data_id %q: got no error", id)
		}
	}
}

// hook is a webhook on a real server, which checks signatures.
type hook struct {
	got
	*httptest.Server
	status atomic.Int32
	ids    sync.Map
}

const hookSecret = "0123456789abcdef-secret"

func newHook(t testing.TB) *hook {
	h := &hook{}
	h.status.Store(204)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get(hooksign.HeaderSignature) != hooksign.Sign(hookSecret, r.Header.Get(hooksign.HeaderTimestamp), body) {
			t.Errorf("the signature is wrong")
		}
		h.ids.Store(r.Header.Get(hooksign.HeaderDelivery), string(body))
		if status := int(h.status.Load()); status != 204 {
			http.Redirect(w, r, "http://192.0.2.1/", status)
			return
		}
		for _, line := range bytes.Split(bytes.TrimSuffix(body, []byte("\n")), []byte("\n")) {
			h.take(line)
		}
		w.WriteHeader(204)
	}))
	t.Cleanup(h.Server.Close)
	return h
}

func TestWebhook(t *testing.T) {
	h := newHook(t)
	h.status.Store(307) // neither followed nor taken
	sender, err := NewWebhook(Webhook{URL: h.URL + "/hook?token=hidden", Secret: hookSecret, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	m := newMemory()
	m.grow(t, "m1", 3)
	f := m.start(t, "m1", Destination{Name: "webhook/x", Sender: sender})
	until(t, "a failure", func() bool { return f.Stats()[0].Failures > 1 })
	if p := f.Stats()[0].Problem; !strings.Contains(p, "307") {
		t.Errorf("problem: got %q", p)
	}
	h.status.Store(204)
	until(t, "all", func() bool { return h.has("m1", 3) })
	if body, found := h.ids.Load("webhook/x/m1/1-3"); !found || strings.Count(body.(string), "\n") != 3 {
		t.Errorf("the delivery: got %v, %q", found, body)
	}
	h.Server.Close()
	m.grow(t, "m1", 1)
	until(t, "a failure", func() bool { return f.Stats()[0].Behind == 1 && f.Stats()[0].Problem != "" })
	if p := f.Stats()[0].Problem; strings.Contains(p, "hidden") {
		t.Errorf("the URL is in %q", p)
	}
}

// A webhook that answers with megabytes of its own words has none of them kept or logged.
func TestWebhookOfManyWords(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(conn))
			fmt.Fprintf(conn, "HTTP/1.1 500 \x1b[2J%s\r\n\r\n", strings.Repeat("x", 1<<20))
			conn.Close()
		}
	}()
	sender, err := NewWebhook(Webhook{URL: "http://" + ln.Addr().String(), Secret: hookSecret, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer sender.Close()
	err = sender.Send(t.Context(), Batch{ID: "x", Lines: [][]byte{[]byte("{}")}})
	if want := "the webhook answered 500 Internal Server Error"; err == nil || err.Error() != want {
		t.Errorf("got %.100q, want %q", fmt.Sprint(err), want)
	}
}

func TestWebhookConfiguration(t *testing.T) {
	for _, w := range []Webhook{
		{URL: "http://192.0.2.1/", Secret: hookSecret}, {URL: "https://", Secret: hookSecret},
		{URL: "ftp://x/", Secret: hookSecret}, {URL: "https://x/", Secret: "short"},
	} {
		if _, err := NewWebhook(w); err == nil {
			t.Errorf("%+v: got no error", w.URL)
		}
	}
}

// A webhook over TLS is trusted by the CA given, and shown the certificate.
func TestWebhookOverTLS(t *testing.T) {
	pool, cert := certificates(t)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	for name, tt := range map[string]struct {
		config *tls.Config
		taken  bool
	}{
		"as configured":     {&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}}, true},
		"no certificate":    {&tls.Config{RootCAs: pool}, false},
		"an unknown server": {nil, false},
	} {
		sender, err := NewWebhook(Webhook{URL: server.URL, Secret: hookSecret, TLS: tt.config, Now: time.Now})
		if err != nil {
			t.Fatal(err)
		}
		err = sender.Send(t.Context(), Batch{ID: "x", Lines: [][]byte{[]byte("{}")}})
		if (err == nil) != tt.taken {
			t.Errorf("%s: got %v, want it taken: %v", name, err, tt.taken)
		}
		if err := sender.Close(); err != nil {
			t.Error(err)
		}
	}
}
