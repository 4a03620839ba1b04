package checkpoint

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
)

// Verifier checks a whole log against its checkpoints and gathers what is wrong. First
// the checkpoints are given to it, of one source or both, each in the order in which it
// has them; then every row, chain by chain; then Finish.
type Verifier struct {
	// Partial says that the log given begins later, or ends earlier, than the log that
	// there is: chains are checked from the first record that is given.
	Partial bool

	trusted  []ssh.PublicKey
	findings []string
	more     int // that were not kept

	sources []*source
	current *source               // that Checkpoint goes to
	seen    map[string][]sighting // heads that checkpoints saw, by member
	noted   []Noted

	chains    map[string]*chain
	records   int64
	uncovered int64
}

// Noted is what was written down of an earlier verification: see Report.Note.
type Noted struct {
	Checkpoint int64        `json:"checkpoint"` // number of the last one, 0 for none
	Sum        string       `json:"sum,omitempty"`
	Heads      []audit.Head `json:"heads"`
}

// sighting is a head that a checkpoint, or a note, saw.
type sighting struct {
	audit.Head
	by string
}

// source is a place that checkpoints were read from.
type source struct {
	name string
	sums map[int64]string // by number
	last Checkpoint
	sum  string // of last

	waiting map[int64]bool // numbers that the other place need not have yet
}

type chain struct {
	audit.Inspector
	next int // of the sightings
	last int64
}

// maxFindings bounds what a Verifier keeps: somebody may have changed everything.
const maxFindings = 1000

// NewVerifier returns a verifier that trusts keys. What was noted down earlier must be in
// the log.
func NewVerifier(trusted []ssh.PublicKey, noted ...Noted) *Verifier {
	return &Verifier{trusted: trusted, seen: map[string][]sighting{}, chains: map[string]*chain{}, noted: noted}
}

func (v *Verifier) find(format string, args ...any) {
	if len(v.findings) == maxFindings {
		v.more++
		return
	}
	v.findings = append(v.findings, fmt.Sprintf(format, args...))
}

// Source begins the checkpoints of another place, "the database" say.
func (v *Verifier) Source(name string) {
	v.current = &source{name: name, sums: map[int64]string{}, waiting: map[int64]bool{}}
	v.sources = append(v.sources, v.current)
}

// Return goes on with the checkpoints of the first place.
func (v *Verifier) Return() { v.current = v.sources[0] }

// Line takes a line of a file that is no record.
func (v *Verifier) Line(n int, err error) { v.find("line %d of the file %v", n, err) }

// Checkpoint takes the next checkpoint of the source; s.Number is where it lies.
func (v *Verifier) Checkpoint(s Signed) {
	src := v.current
	src.waiting[s.Number] = !s.Stored
	name := fmt.Sprintf("checkpoint %d in %s", s.Number, src.name)
	for n := src.last.Number + 1; n < s.Number && n < src.last.Number+maxFindings; n++ {
		v.find("checkpoint %d in %s is missing", n, src.name)
	}
	gap := s.Number != src.last.Number+1
	c, err := s.Open(v.trusted)
	if err != nil {
		v.find("%s %v", name, err)
		src.last, src.sum = Checkpoint{Number: s.Number, Time: src.last.Time}, s.Sum()
		src.sums[s.Number] = s.Sum()
		return
	}
	if c.Number != s.Number {
		v.find("%s is checkpoint %d: it was moved", name, c.Number)
		src.last, src.sum = Checkpoint{Number: s.Number, Time: src.last.Time}, ""
		return
	}
	v.link(src, name, c, gap)
	for _, p := range c.Problems {
		v.find("%s, of %s, reports: %s", name, c.Time.Format("2006-01-02 15:04:05"), p)
	}
	if len(v.sources) == 1 || v.sources[0].sums[c.Number] != s.Sum() {
		v.see(name, c.Heads)
	}
	src.last, src.sum = c, s.Sum()
	src.sums[s.Number] = s.Sum()
}

// see notes what a checkpoint saw, once for all checkpoints that saw the same.
func (v *Verifier) see(name string, heads []audit.Head) {
	for _, h := range heads {
		all := v.seen[h.Member]
		if len(all) == 0 || all[len(all)-1].Head != h {
			v.seen[h.Member] = append(all, sighting{h, name})
		}
	}
}

// link checks that a checkpoint continues the one before it.
func (v *Verifier) link(src *source, name string, c Checkpoint, gap bool) {
	before := src.sum
	if c.Number == 1 {
		before = audit.NoPrev
	}
	if !gap && before != "" && c.Prev != before {
		v.find("%s does not continue checkpoint %d: one of them was replaced", name, c.Number-1)
	}
	if c.Time.Before(src.last.Time) {
		v.find("%s is older than checkpoint %d", name, src.last.Number)
	}
	stood := map[string]int64{}
	for _, h := range c.Heads {
		stood[h.Member] = h.Seq
	}
	for _, h := range src.last.Heads {
		if stood[h.Member] < h.Seq {
			v.find("%s saw the chain of member %q end with record %d, but checkpoint %d had seen record %d: its end was cut off",
				name, h.Member, stood[h.Member], src.last.Number, h.Seq)
		}
	}
}

// Stray takes the name of an object that lies among the checkpoints and is none.
func (v *Verifier) Stray(name string) {
	v.find("%s in %s is no checkpoint of the sequence", name, v.current.name)
}

// Record takes the next row; those of one member in the order in which they lie.
func (v *Verifier) Record(w audit.Row) {
	c := v.chains[w.Member]
	if c == nil {
		c = v.begin(w)
	}
	v.records++
	if all := v.seen[w.Member]; len(all) == 0 || w.Seq > all[len(all)-1].Seq {
		v.uncovered++
	}
	r, problem := c.Inspect(w)
	if problem != "" {
		v.find("record %d of member %q %s", w.Seq, w.Member, problem)
	}
	c.last = max(c.last, w.Seq)
	told := false
	for all := v.seen[w.Member]; c.next < len(all) && all[c.next].Seq <= w.Seq; c.next++ {
		s := all[c.next]
		if s.Seq == w.Seq && s.Hash != r.Hash && problem == "" && !told {
			v.find("record %d of member %q is not the one that %s saw: the chain was rewritten at it or before", w.Seq, w.Member, s.by)
			told = true
		}
	}
}

// begin begins a chain: its sightings in order of the sequence.
func (v *Verifier) begin(w audit.Row) *chain {
	member := w.Member
	for i, n := range v.noted {
		for _, h := range n.Heads {
			if h.Member == member && h.Seq > 0 {
				v.seen[member] = append(v.seen[member], sighting{h, fmt.Sprintf("note %d", i+1)})
			}
		}
	}
	slices.SortStableFunc(v.seen[member], func(a, b sighting) int { return cmp.Compare(a.Seq, b.Seq) })
	c := &chain{}
	if r, err := w.Record(); err == nil && v.Partial {
		c.Resume(audit.Record{Member: member, Seq: r.Seq - 1, Hash: r.Prev})
		if r.Seq == 1 {
			c.Resume(audit.Record{})
		}
	}
	v.chains[member] = c
	return c
}

// Report is what a verification found.
type Report struct {
	Findings    []string // what is wrong, each with its place
	Records     int64
	Checkpoints int64        // number of the last one
	Sum         string       // of the last one
	Heads       []audit.Head // to note down
	// Uncovered is how many of the records no checkpoint, and no note, has seen yet.
	Uncovered int64
}

// Note is what is to be written down of it, for the next time.
func (r Report) Note() Noted { return Noted{Checkpoint: r.Checkpoints, Sum: r.Sum, Heads: r.Heads} }

// Finish checks what only shows at the end: ends cut off, chains and checkpoints missing.
func (v *Verifier) Finish() Report {
	for _, member := range slices.Sorted(maps.Keys(v.seen)) {
		v.finishChain(member)
	}
	for i, n := range v.noted {
		v.finishNote(i, n)
	}
	if len(v.sources) == 2 {
		v.compare(v.sources[0], v.sources[1])
	}
	r := Report{Records: v.records, Uncovered: v.uncovered}
	for _, src := range v.sources {
		if src.last.Number > r.Checkpoints {
			r.Checkpoints, r.Sum = src.last.Number, src.sum
		}
	}
	if r.Checkpoints == 0 && len(v.sources) > 0 && v.records > 0 {
		v.find("there is no checkpoint at all: whether the log was rewritten, or its end cut off, cannot be told")
	}
	for _, member := range slices.Sorted(maps.Keys(v.chains)) {
		last := v.chains[member].Last()
		r.Heads = append(r.Heads, audit.Head{Member: member, Seq: last.Seq, Hash: last.Hash})
	}
	if v.more > 0 {
		v.findings = append(v.findings, fmt.Sprintf("… and %d more", v.more))
	}
	r.Findings = v.findings
	return r
}

func (v *Verifier) finishChain(member string) {
	if v.Partial {
		return
	}
	last := int64(0)
	c := v.chains[member]
	if c != nil {
		last = c.last
	}
	for _, s := range v.seen[member] {
		switch {
		case s.Seq <= last:
			continue
		case c == nil:
			v.find("the chain of member %q is missing altogether: %s saw its record %d", member, s.by, s.Seq)
		default:
			v.find("the chain of member %q ends with record %d, but %s saw record %d: its end was cut off", member, last, s.by, s.Seq)
		}
		return // the first one says where
	}
}

// finishNote looks for what was noted down: chains that nothing else tells of, and the
// checkpoint.
func (v *Verifier) finishNote(i int, n Noted) {
	for _, h := range n.Heads {
		if !v.Partial && v.chains[h.Member] == nil && len(v.seen[h.Member]) == 0 && h.Seq > 0 {
			v.find("the chain of member %q is missing altogether: note %d saw its record %d", h.Member, i+1, h.Seq)
		}
	}
	if n.Checkpoint == 0 {
		return
	}
	for _, src := range v.sources {
		switch sum, found := src.sums[n.Checkpoint]; {
		case !found:
			v.find("checkpoint %d in %s is missing: note %d saw it", n.Checkpoint, src.name, i+1)
		case sum != n.Sum:
			v.find("checkpoint %d in %s is not the one that note %d saw", n.Checkpoint, src.name, i+1)
		}
	}
}

// compare finds what one place has and the other has not.
func (v *Verifier) compare(a, b *source) {
	numbers := slices.Sorted(maps.Keys(a.sums))
	for _, n := range numbers {
		switch sum, found := b.sums[n]; {
		case !found && (a.waiting[n] || n <= b.last.Number):
			// Not there yet, or found missing there already.
		case !found:
			v.find("checkpoint %d is in %s, but not in %s", n, a.name, b.name)
		case sum != a.sums[n]:
			v.find("checkpoint %d in %s is not that in %s: one of them was altered", n, a.name, b.name)
		}
	}
	for _, n := range slices.Sorted(maps.Keys(b.sums)) {
		if _, found := a.sums[n]; !found && n > a.last.Number {
			v.find("checkpoint %d is in %s, but not in %s", n, b.name, a.name)
		}
	}
}

// Fingerprint shows a key as people compare it.
func Fingerprint(key ssh.PublicKey) string {
	return ssh.FingerprintSHA256(key) + " " + strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
}
