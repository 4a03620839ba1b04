package storetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"sallyport.dev/audit"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/store"
)

// auditWorld is a log of two members with three checkpoints, and the means to tamper with
// it: a connection to the database that knows nothing of the store, and a folder.
type auditWorld struct {
	t      *testing.T
	store  *store.Store
	raw    *sql.DB
	dir    string
	signer ssh.Signer
	keeper *checkpoint.Keeper
	now    time.Time
}

func newSigner(t testing.TB) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	must(t, err)
	return get[ssh.Signer](t)(ssh.NewSignerFromSigner(private))
}

// rawDatabase opens the database behind the store's back.
func rawDatabase(t testing.TB, url string) *sql.DB {
	t.Helper()
	driver, name := "pgx", url
	if path, found := strings.CutPrefix(url, "sqlite:"); found {
		driver, name = "sqlite", "file:"+path+"?_pragma=busy_timeout(10000)"
	}
	db := get[*sql.DB](t)(sql.Open(driver, name))
	db.SetMaxOpenConns(1)
	t.Cleanup(func() { db.Close() })
	return db
}

func newAuditWorld(t *testing.T, fresh Fresh) *auditWorld {
	t.Helper()
	url := fresh(t)
	w := &auditWorld{t: t, store: Open(t, url), raw: rawDatabase(t, url), dir: t.TempDir(), signer: newSigner(t), now: at(30)}
	w.keeper = w.newKeeper("m1")
	w.grow(6, 4)
	w.checkpoint(checkpoint.WhyStart)
	w.grow(3, 2)
	w.checkpoint(checkpoint.WhyTime)
	w.grow(1, 0)
	w.checkpoint(checkpoint.WhyTime)
	return w
}

func (w *auditWorld) newKeeper(member string) *checkpoint.Keeper {
	return checkpoint.New(checkpoint.Config{
		Store: w.store, Objects: checkpoint.Dir(w.dir), Account: "111111111111", Region: "us-east-1", Member: member,
		Signer: func(context.Context) (ssh.Signer, error) { return w.signer, nil },
		Keys:   func(context.Context) ([]ssh.PublicKey, error) { return []ssh.PublicKey{w.signer.PublicKey()}, nil },
		Now:    func() time.Time { return w.now }, Logger: slog.New(slog.DiscardHandler), Every: time.Minute,
	})
}

// grow appends records to the chains of m1 and m2.
func (w *auditWorld) grow(m1, m2 int) {
	w.t.Helper()
	for member, n := range map[string]int{"m1": m1, "m2": m2} {
		last, _, err := w.store.LastAudit(w.t.Context(), member)
		must(w.t, err)
		last.Member = member
		must(w.t, w.store.AppendAudit(w.t.Context(), told(w.t, last, n, "")))
	}
}

// told is chain with a reason in each record.
func told(t testing.TB, last audit.Record, n int, prefix string) []audit.Record {
	all := chain(t, last, n)
	if last.Seq == 0 {
		last.Hash = audit.NoPrev
	}
	for i := range all {
		all[i].Reason, all[i].Principal, all[i].Prev = fmt.Sprint(prefix, "reason ", all[i].Seq), "arn:aws:iam::1:user/alice", last.Hash
		all[i].Hash = get[string](t)(audit.Sum(all[i]))
		last = all[i]
	}
	return all
}

func (w *auditWorld) checkpoint(why string) {
	w.t.Helper()
	w.now = w.now.Add(time.Minute)
	must(w.t, w.keeper.Make(w.t.Context(), why))
	must(w.t, w.keeper.Lift(w.t.Context()))
}

// save remembers what can be tampered with; what it returns puts it back.
func (w *auditWorld) save() (restore func()) {
	w.t.Helper()
	tables, folder := []string{"audit", "audit_checkpoints"}, w.t.TempDir()
	for _, table := range tables {
		w.exec("CREATE TABLE saved_" + table + " AS SELECT * FROM " + table)
	}
	must(w.t, os.CopyFS(folder, os.DirFS(w.dir)))
	return func() {
		w.t.Helper()
		for _, table := range tables {
			w.exec("DELETE FROM " + table)
			w.exec("INSERT INTO " + table + " SELECT * FROM saved_" + table)
		}
		must(w.t, errors.Join(os.RemoveAll(w.dir), os.CopyFS(w.dir, os.DirFS(folder))))
	}
}

// exec runs a statement behind the store's back.
func (w *auditWorld) exec(query string, args ...any) sql.Result {
	w.t.Helper()
	return get[sql.Result](w.t)(w.raw.ExecContext(w.t.Context(), query, args...))
}

// do is exec of a statement that must change rows.
func (w *auditWorld) do(query string, args ...any) {
	w.t.Helper()
	res := w.exec(query, args...)
	if n, err := res.RowsAffected(); err != nil || n == 0 {
		w.t.Fatalf("%s: changed %d rows, %v", query, n, err)
	}
}

// rewrite replaces a member's chain by another that holds together.
func (w *auditWorld) rewrite(member string, n int) {
	w.t.Helper()
	w.do("DELETE FROM audit WHERE member = $1", member)
	must(w.t, w.store.AppendAudit(w.t.Context(), told(w.t, audit.Record{Member: member}, n, "innocent ")))
}

// swap exchanges a column of two rows.
func (w *auditWorld) swap(table, column, where string, a, b any) {
	w.t.Helper()
	var texts [2]any
	for i, at := range []any{a, b} {
		must(w.t, w.raw.QueryRowContext(w.t.Context(), "SELECT "+column+" FROM "+table+" WHERE "+where+" = $1", at).Scan(&texts[i]))
	}
	w.do("UPDATE "+table+" SET "+column+" = $1 WHERE "+where+" = $2", texts[1], a)
	w.do("UPDATE "+table+" SET "+column+" = $1 WHERE "+where+" = $2", texts[0], b)
}

func (w *auditWorld) object(n int64) string { return filepath.Join(w.dir, checkpoint.Name(n)) }

func (w *auditWorld) removeObject(n int64) {
	w.t.Helper()
	must(w.t, errors.Join(os.Remove(w.object(n)), os.Remove(w.object(n)+checkpoint.SignatureSuffix)))
}

// verify looks at the log as "sallyport audit verify" does.
func (w *auditWorld) verify(noted ...checkpoint.Noted) checkpoint.Report {
	w.t.Helper()
	ctx := w.t.Context()
	v := checkpoint.NewVerifier([]ssh.PublicKey{w.signer.PublicKey()}, noted...)
	v.Source("the database")
	for _, c := range get[[]checkpoint.Signed](w.t)(w.store.Checkpoints(ctx, 0, 0)) {
		v.Checkpoint(c)
	}
	v.Source("the store")
	for name, err := range checkpoint.Dir(w.dir).List(ctx, checkpoint.Folder) {
		must(w.t, err)
		if checkpoint.NumberOf(name) > 0 {
			v.Checkpoint(get[checkpoint.Signed](w.t)(checkpoint.Read(ctx, checkpoint.Dir(w.dir), name)))
		} else if !strings.HasSuffix(name, checkpoint.SignatureSuffix) {
			v.Stray(name)
		}
	}
	for _, h := range get[[]audit.Head](w.t)(w.store.AuditHeads(ctx)) {
		for _, row := range get[[]audit.Row](w.t)(w.store.AuditRows(ctx, h.Member, 0, 0)) {
			v.Record(row)
		}
	}
	return v.Finish()
}

// resign signs the checkpoints of the database anew, over what the log holds now.
func (w *auditWorld) resign(signer ssh.Signer) {
	w.t.Helper()
	heads := get[[]audit.Head](w.t)(w.store.AuditHeads(w.t.Context()))
	prev := audit.NoPrev
	for _, s := range get[[]checkpoint.Signed](w.t)(w.store.Checkpoints(w.t.Context(), 0, 0)) {
		var c checkpoint.Checkpoint
		must(w.t, json.Unmarshal([]byte(s.Text), &c))
		c.Heads, c.Prev = heads, prev
		forged := get[checkpoint.Signed](w.t)(checkpoint.Sign(c, signer))
		w.do("UPDATE audit_checkpoints SET text = $1, signature = $2, public_key = $3 WHERE number = $4", forged.Text, forged.Signature, forged.PublicKey, s.Number)
		must(w.t, os.WriteFile(w.object(s.Number), []byte(forged.Text), 0o600))
		must(w.t, os.WriteFile(w.object(s.Number)+checkpoint.SignatureSuffix, []byte(forged.Signature), 0o600))
		prev = forged.Sum()
	}
}

// testAuditTampered: whoever has the database but not the key of checkpoints is found
// out, and at the place.
func testAuditTampered(t *testing.T, fresh Fresh) {
	tests := []struct {
		name   string
		tamper func(w *auditWorld)
		want   []string // what the findings hold, in order
	}{
		{"nothing", func(*auditWorld) {}, nil},
		{"one byte of a record", func(w *auditWorld) {
			w.do("UPDATE audit SET record = REPLACE(record, 'reason 3', 'reason X') WHERE member = 'm1' AND seq = 3")
		}, []string{`record 3 of member "m1" was changed: its hash is not that of its content`}},
		{"the case of one letter of a key", func(w *auditWorld) {
			w.do(`UPDATE audit SET record = REPLACE(record, '"reason"', '"Reason"') WHERE member = 'm1' AND seq = 3`)
		}, []string{`record 3 of member "m1" was changed: its text is not as it was written`}},
		{"a record that is no JSON any more", func(w *auditWorld) {
			w.do(`UPDATE audit SET record = REPLACE(record, '{', '') WHERE member = 'm1' AND seq = 3`)
		}, []string{`record 3 of member "m1" was changed: it cannot be read`}},
		{"the column that a record is found by", func(w *auditWorld) {
			w.do("UPDATE audit SET principal = 'nobody' WHERE member = 'm1' AND seq = 4")
		}, []string{`record 4 of member "m1" was changed: its column principal`}},
		{"the time that a record is found by", func(w *auditWorld) {
			w.do("UPDATE audit SET time = time - 86400000000 WHERE member = 'm2' AND seq = 2")
		}, []string{`record 2 of member "m2" was changed: its column time`}},
		{"a record removed", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm1' AND seq = 5")
		}, []string{`record 6 of member "m1" comes after record 4: record 5 is missing`}},
		{"the first records removed", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm2' AND seq <= 2")
		}, []string{`record 3 of member "m2" comes after record 0: records 1 to 2 are missing`}},
		{"two swapped, their texts", func(w *auditWorld) {
			w.swap("audit", "record", "member = 'm1' AND seq", 4, 5)
		}, []string{`record 4 of member "m1" holds record 5 of member "m1"`, `record 5 of member "m1" holds record 4 of member "m1"`}},
		{"two swapped, their places", func(w *auditWorld) {
			w.do("UPDATE audit SET seq = -1 WHERE member = 'm1' AND seq = 4")
			w.do("UPDATE audit SET seq = 4 WHERE member = 'm1' AND seq = 5")
			w.do("UPDATE audit SET seq = 5 WHERE member = 'm1' AND seq = -1")
		}, []string{`record 4 of member "m1" holds record 5 of member "m1"`, `record 5 of member "m1" holds record 4 of member "m1"`}},
		{"the tail cut", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm2' AND seq > 4")
		}, []string{`the chain of member "m2" ends with record 4, but checkpoint 2 in the database saw record 6: its end was cut off`}},
		{"a chain removed", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm2'")
		}, []string{`the chain of member "m2" is missing altogether: checkpoint 1 in the database saw its record 4`}},
		{"the log rewritten from the start", func(w *auditWorld) {
			w.rewrite("m1", 10)
		}, []string{`record 6 of member "m1" is not the one that checkpoint 1 in the database saw`, `record 9`, `record 10`}},
		{"rewritten, and the checkpoints of the database removed", func(w *auditWorld) {
			w.rewrite("m1", 10)
			w.do("DELETE FROM audit_checkpoints")
		}, []string{`record 6 of member "m1" is not the one that checkpoint 1 in the store saw`, `record 9`, `record 10`,
			`checkpoint 1 is in the store, but not in the database`, `checkpoint 2 is`, `checkpoint 3 is`}},
		{"rewritten, and the checkpoints signed with another key", func(w *auditWorld) {
			w.rewrite("m1", 10)
			w.resign(newSigner(w.t))
		}, []string{`checkpoint 1 in the database is not signed by a trusted key`, `checkpoint 2 in the database is not signed`, `checkpoint 3 in the database is not signed`,
			`checkpoint 1 in the store is not signed`, `checkpoint 2 in the store is not signed`, `checkpoint 3 in the store is not signed`}},
		{"all checkpoints removed everywhere", func(w *auditWorld) {
			w.do("DELETE FROM audit_checkpoints")
			must(w.t, os.RemoveAll(w.dir))
		}, []string{`there is no checkpoint at all`}},
		{"a checkpoint removed from the database", func(w *auditWorld) {
			w.do("DELETE FROM audit_checkpoints WHERE number = 2")
		}, []string{`checkpoint 2 in the database is missing`}},
		{"the last checkpoint removed from the database", func(w *auditWorld) {
			w.do("DELETE FROM audit_checkpoints WHERE number = 3")
		}, []string{`checkpoint 3 is in the store, but not in the database`}},
		{"a checkpoint altered in the database", func(w *auditWorld) {
			w.do(`UPDATE audit_checkpoints SET text = REPLACE(text, '"seq": 6', '"seq": 5') WHERE number = 2`)
		}, []string{`checkpoint 2 in the database is not signed by a trusted key`, `checkpoint 3 in the database does not continue checkpoint 2`,
			`checkpoint 2 in the database is not that in the store`}},
		{"two checkpoints swapped in the database", func(w *auditWorld) {
			for _, column := range []string{"text", "signature"} {
				w.swap("audit_checkpoints", column, "number", 1, 2)
			}
		}, []string{`checkpoint 1 in the database is checkpoint 2: it was moved`, `checkpoint 2 in the database is checkpoint 1: it was moved`}},
		{"a checkpoint removed from the store", func(w *auditWorld) { w.removeObject(2) },
			[]string{`checkpoint 2 in the store is missing`}},
		{"the last checkpoint removed from the store", func(w *auditWorld) { w.removeObject(3) },
			[]string{`checkpoint 3 is in the database, but not in the store`}},
		{"a signature removed from the store", func(w *auditWorld) {
			must(w.t, os.Remove(w.object(2)+checkpoint.SignatureSuffix))
		}, []string{`checkpoint 2 in the store has a signature that cannot be read`}},
		{"two checkpoints swapped in the store", func(w *auditWorld) {
			for _, suffix := range []string{"", checkpoint.SignatureSuffix} {
				a, b := get[[]byte](w.t)(os.ReadFile(w.object(1)+suffix)), get[[]byte](w.t)(os.ReadFile(w.object(2)+suffix))
				must(w.t, errors.Join(os.WriteFile(w.object(1)+suffix, b, 0o600), os.WriteFile(w.object(2)+suffix, a, 0o600)))
			}
		}, []string{`checkpoint 1 in the store is checkpoint 2: it was moved`, `checkpoint 2 in the store is checkpoint 1: it was moved`}},
		{"something else in the store", func(w *auditWorld) {
			must(w.t, os.WriteFile(w.object(2)+".bak", nil, 0o600))
		}, []string{`in the store is no checkpoint of the sequence`}},
	}
	w := newAuditWorld(t, fresh)
	restore := w.save()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.t = t
			restore()
			tt.tamper(w)
			wantFindings(t, w.verify().Findings, tt.want)
		})
	}
}

func wantFindings(t *testing.T, got, want []string) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			t.Errorf("not found: %s", want[i])
		case i >= len(want):
			t.Errorf("found besides: %s", got[i])
		case !strings.Contains(got[i], want[i]):
			t.Errorf("got %s\nwant %s", got[i], want[i])
		}
	}
}

// testAuditNoted: what was noted down finds what no checkpoint is left to show.
func testAuditNoted(t *testing.T, fresh Fresh) {
	w := newAuditWorld(t, fresh)
	note := w.verify().Note()
	wantFindings(t, w.verify(note).Findings, nil)
	w.do("DELETE FROM audit WHERE member = 'm1' AND seq > 9")
	w.do("DELETE FROM audit_checkpoints WHERE number = 3")
	w.removeObject(3)
	wantFindings(t, w.verify().Findings, nil) // by itself the log is whole
	wantFindings(t, w.verify(note).Findings, []string{
		`the chain of member "m1" ends with record 9, but note 1 saw record 10`,
		`checkpoint 3 in the database is missing: note 1 saw it`, `checkpoint 3 in the store is missing: note 1 saw it`,
	})
}

// testCheckpointsNotice: a member signs what it finds, and says what is wrong with it;
// later checkpoints cover what came later.
func testCheckpointsNotice(t *testing.T, fresh Fresh) {
	tests := []struct {
		name   string
		tamper func(w *auditWorld)
		want   string
	}{
		{"nothing", func(*auditWorld) {}, ""},
		{"the tail cut and grown again", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm1' AND seq > 7")
			last, _, err := w.store.LastAudit(w.t.Context(), "m1")
			must(w.t, err)
			must(w.t, w.store.AppendAudit(w.t.Context(), told(w.t, last, 5, "innocent ")))
		}, `record 10 of member "m1" is not the one that was there before`},
		{"the tail cut", func(w *auditWorld) {
			w.do("DELETE FROM audit WHERE member = 'm1' AND seq > 7")
		}, `record 8 of member "m1" is the last one, but there were 10`},
		{"a chain removed", func(w *auditWorld) { w.do("DELETE FROM audit WHERE member = 'm2'") },
			`chain of member "m2" is missing: checkpoint 3 saw 6 records`},
		{"a new record changed", func(w *auditWorld) {
			w.grow(3, 0)
			w.do("UPDATE audit SET record = REPLACE(record, 'reason 12', 'reason X') WHERE member = 'm1' AND seq = 12")
		}, `record 12 of member "m1" was changed`},
		{"the last checkpoint forged", func(w *auditWorld) {
			w.do(`UPDATE audit_checkpoints SET text = REPLACE(text, '"seq"', '"sEq"') WHERE number = 3`)
		}, `checkpoint 3 in the database is not signed by a trusted key`},
		{"checkpoints removed from the database", func(w *auditWorld) {
			w.do("DELETE FROM audit_checkpoints WHERE number > 1")
		}, `2 checkpoints up to 3 were in the recording store only`},
	}
	w := newAuditWorld(t, fresh)
	restore := w.save()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w.t, w.keeper = t, w.newKeeper("m1")
			restore()
			tt.tamper(w)
			w.grow(1, 0)
			w.checkpoint(checkpoint.WhyTime)
			signed, _, err := w.store.LastCheckpoint(t.Context())
			must(t, err)
			c := get[checkpoint.Checkpoint](t)(signed.Open([]ssh.PublicKey{w.signer.PublicKey()}))
			wantSame(t, "number", c.Number, int64(4))
			var want []string
			if tt.want != "" {
				want = []string{tt.want}
			}
			wantFindings(t, c.Problems, want)
			wantSame(t, "problems counted", w.keeper.Stats().Problems, len(want))
			w.grow(2, 1)
			w.checkpoint(checkpoint.WhyTime)
			signed, _, err = w.store.LastCheckpoint(t.Context())
			must(t, err)
			c = get[checkpoint.Checkpoint](t)(signed.Open([]ssh.PublicKey{w.signer.PublicKey()}))
			if c.Number != 5 || len(c.Problems) > 0 {
				t.Errorf("the next one: got %+v, want number 5 without problems", c)
			}
		})
	}
}

// testCheckpoints: the store takes checkpoints one after the other, whoever makes them.
func testCheckpoints(t *testing.T, fresh Fresh) {
	w := newAuditWorld(t, fresh)
	ctx := t.Context()
	last, found, err := w.store.LastCheckpoint(ctx)
	if err != nil || !found || last.Number != 3 || !last.Stored {
		t.Fatalf("last: got %+v, %v, %v", last, found, err)
	}
	for name, c := range map[string]checkpoint.Signed{
		"the same again": {Number: 3, Text: "x"}, "with a gap": {Number: 5, Text: "x"},
	} {
		wantErr(t, name, w.store.AddCheckpoint(ctx, c, last.Sum(), w.now), checkpoint.ErrConflict)
	}
	wantErr(t, "after another", w.store.AddCheckpoint(ctx, checkpoint.Signed{Number: 4}, "other", w.now), checkpoint.ErrConflict)
	must(t, w.keeper.Make(ctx, checkpoint.WhyTime))
	wantSame(t, "checkpoints without news", len(get[[]checkpoint.Signed](t)(w.store.Checkpoints(ctx, 0, 0))), 3)
	w.grow(1, 1)
	w.now = w.now.Add(-time.Hour) // a clock set back
	keepers := []*checkpoint.Keeper{w.keeper, w.newKeeper("m2")}
	atOnce(t, 8, func(i int) error { return keepers[i%2].Make(ctx, checkpoint.WhyStop) })
	wantFindings(t, w.verify().Findings, nil)
	unstored, waiting, err := w.store.UnstoredCheckpoints(ctx, 3)
	must(t, err)
	if len(unstored) != 3 || waiting != 8 || unstored[0].Number != 4 {
		t.Errorf("waiting: got %d of %d, from %v", len(unstored), waiting, unstored)
	}
	must(t, keepers[1].Lift(ctx))
	wantFindings(t, w.verify().Findings, nil)
}
