package server

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"

	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/store"
)

// shelf is an AuditChain on the harness's database and a recording store that can be
// away.
type shelf struct {
	*store.Store
	dir  checkpoint.Dir
	away bool
}

func (s *shelf) StoredNames(ctx context.Context) iter.Seq2[string, error] {
	if s.away {
		return func(yield func(string, error) bool) { yield("", errors.New("connection refused")) }
	}
	return s.dir.List(ctx, checkpoint.Folder)
}

func (s *shelf) StoredNamed(ctx context.Context, name string) (checkpoint.Signed, error) {
	if s.away {
		return checkpoint.Signed{}, errors.New("connection refused")
	}
	return checkpoint.Read(ctx, s.dir, name)
}

func (s *shelf) Status(context.Context) (AuditStatus, error) { return AuditStatus{Checkpoint: 3}, nil }

func newShelf(t *testing.T) (*harness, *shelf) {
	s := &shelf{dir: checkpoint.Dir(t.TempDir())}
	h := newHarness(t, func(c *Config) { s.Store, c.AuditChain = c.AuditStore.(*store.Store), s })
	return h, s
}

// Verifying is one action, whatever is read for it; each way of it leaves one record of
// who read, and refusals are refusals.
func TestAuditOperations(t *testing.T) {
	h, s := newShelf(t)
	if err := s.dir.Put(t.Context(), checkpoint.Name(1), []byte("text")); err != nil {
		t.Fatal(err)
	}
	auditor := h.user("auditor", nil, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sallyport:VerifyAudit","Resource":"*"}}`)
	reader := h.user("reader", nil, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"sallyport:QueryAudit","Resource":"*"}}`)
	for operation, in := range map[string]any{
		"ListAuditChains":      struct{}{},
		"ReadAuditChain":       readAuditChainInput{Member: "m1"},
		"ReadAuditCheckpoints": readAuditCheckpointsInput{},
		"ListAuditObjects":     listAuditObjectsInput{},
		"ReadAuditObjects":     readAuditObjectsInput{Names: []string{checkpoint.Name(1), checkpoint.Name(2)}},
		"GetAuditStatus":       struct{}{},
	} {
		if got := h.json(reader, "Sallyport."+operation, in); got.code() != "AccessDeniedException" || !strings.Contains(got.message(), "sallyport:VerifyAudit") {
			t.Errorf("%s without the right: got %d %s", operation, got.status, got.body)
		}
		before := len(h.audited(audit.EventDecision))
		for range 3 {
			if got := h.json(auditor, "Sallyport."+operation, in); got.status != 200 {
				t.Errorf("%s: got %d %s", operation, got.status, got.body)
			}
		}
		records := h.audited(audit.EventDecision)[before:]
		if len(records) != 1 || records[0].Action != "sallyport:VerifyAudit" || !strings.HasSuffix(records[0].Principal, "user/auditor") {
			t.Errorf("%s: got %d records, %+v, want one", operation, len(records), records)
		}
	}
	s.away = true
	for operation, in := range map[string]any{
		"ListAuditObjects": struct{}{}, "ReadAuditObjects": readAuditObjectsInput{Names: []string{checkpoint.Name(1)}},
	} {
		if got := h.json(auditor, "Sallyport."+operation, in); got.code() != "ServiceUnavailable" || !strings.Contains(got.message(), "connection refused") {
			t.Errorf("%s while the store is away: got %d %s", operation, got.status, got.body)
		}
	}
}

// What is read beside the recordings is checkpoints and nothing else.
func TestAuditObjectsAreCheckpoints(t *testing.T) {
	h, s := newShelf(t)
	if err := s.dir.Put(t.Context(), "2026/11/20/alice-1/key.json", []byte("hidden")); err != nil {
		t.Fatal(err)
	}
	admin := h.user("admin", nil, allowAll)
	for _, name := range []string{
		"2026/11/20/alice-1/key.json", "audit/checkpoints/../../2026/11/20/alice-1/key.json", "../master.key",
		"audit/checkpoints/000000000001.json/../../../x", "000000000001.json", checkpoint.Name(1) + checkpoint.SignatureSuffix,
	} {
		got := h.json(admin, "Sallyport.ReadAuditObjects", readAuditObjectsInput{Names: []string{name}})
		if got.code() != "ValidationException" || strings.Contains(got.body, "hidden") {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
	}
	for _, in := range []string{`{}`, `{"Names":[]}`, fmt.Sprintf(`{"Names":[%s"x"]}`, strings.Repeat(`"x",`, 100))} {
		if got := h.json(admin, "Sallyport.ReadAuditObjects", in); got.code() != "ValidationException" {
			t.Errorf("%.40s: got %d %s", in, got.status, got.body)
		}
	}
}

// Checkpoints come in the order of their names, those that are missing among them, up to
// what goes into one answer.
func TestReadAuditObjects(t *testing.T) {
	h, s := newShelf(t)
	admin := h.user("admin", nil, allowAll)
	var names []string
	for n := int64(1); n <= 30; n++ {
		names = append(names, checkpoint.Name(n))
		if n == 3 {
			continue
		}
		text := fmt.Sprint(n, " ", strings.Repeat("x", 300<<10))
		if err := s.dir.Put(t.Context(), checkpoint.Name(n), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	read := 0
	for calls := 0; read < len(names); calls++ {
		in := readAuditObjectsInput{Names: names[read:]}
		got := decodeInto[readAuditObjectsOutput](t, h.json(admin, "Sallyport.ReadAuditObjects", in)).Objects
		if want := maxAuditBytes/(300<<10) + 2; len(got) == 0 || len(got) > want || calls > 3 {
			t.Fatalf("call %d: got %d checkpoints, want 1 to %d", calls, len(got), want)
		}
		for _, c := range got {
			read++
			if text, _, _ := strings.Cut(c.Text, " "); c.Number != int64(read) || text != fmt.Sprint(read) && !(read == 3 && text == "") {
				t.Errorf("checkpoint %d: got number %d, text %.10s…", read, c.Number, c.Text)
			}
		}
	}
}

// The rows are those of the database, page by page, each answer bounded.
func TestReadAuditChain(t *testing.T) {
	h, _ := newShelf(t)
	admin := h.user("admin", nil, allowAll)
	for range 3 {
		h.json(admin, "IAM.nothing", struct{}{})
	}
	for range 5 {
		h.json(admin, "AmazonSSM.CreateActivation", map[string]any{"IamRole": strings.Repeat("r", 60)})
	}
	heads := decodeInto[auditChainsOutput](t, h.json(admin, "Sallyport.ListAuditChains", struct{}{})).Heads
	if len(heads) != 1 || heads[0].Seq < 5 {
		t.Fatalf("heads: got %+v", heads)
	}
	i, after := audit.Inspector{}, int64(0)
	for {
		rows := decodeInto[readAuditChainOutput](t, h.json(admin, "Sallyport.ReadAuditChain", readAuditChainInput{Member: heads[0].Member, After: after, MaxResults: 2})).Rows
		if len(rows) == 0 {
			break
		}
		for _, row := range rows {
			if _, problem := i.Inspect(row); problem != "" {
				t.Errorf("record %d %s", row.Seq, problem)
			}
			after = row.Seq
		}
	}
	if after < heads[0].Seq {
		t.Errorf("got %d records, want %d", after, heads[0].Seq)
	}
	h.server.config.AuditChain = nil
	if got := h.json(admin, "Sallyport.ListAuditChains", struct{}{}); got.code() != "ValidationException" {
		t.Errorf("without checkpoints: got %d %s", got.status, got.body)
	}
}
