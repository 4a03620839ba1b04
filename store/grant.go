package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"sallyport.dev/grant"
)

func scanRequest(r row) (req grant.Request, err error) {
	return req, r.Scan(encoded{&req})
}

func requestByID(t tx, id string) (grant.Request, error) {
	return one(t, about("request", id, grant.ErrNotFound), scanRequest,
		"SELECT body FROM requests WHERE id = $1"+t.forUpdate, id)
}

// requestValues are the columns of a request, but for the id.
func requestValues(r grant.Request) ([]any, error) {
	body, err := json.Marshal(r)
	review := 0
	if r.Review != nil && r.Review.At.IsZero() {
		review = 1
	}
	return []any{r.Frozen.Person.ID, r.Frozen.Flow.Name, string(r.State), review,
		micros(r.Frozen.Created), micros(r.Due()), string(body)}, err
}

// writeGrants changes requests. It bumps the revision before anything else, which locks
// its row; see the migration.
func (s *Store) writeGrants(ctx context.Context, doing string, change func(tx) error) error {
	return s.write(ctx, doing, func(t tx) error {
		if _, err := t.exec("UPDATE grant_revision SET value = value + 1"); err != nil {
			return err
		}
		return change(t)
	})
}

// GrantRevision implements grant.Store.
func (s *Store) GrantRevision(ctx context.Context) (int64, error) {
	n, err := s.read(ctx).count("SELECT value FROM grant_revision")
	return n, wrap("reading the revision of grants", err)
}

// CreateRequest implements grant.Store.
func (s *Store) CreateRequest(ctx context.Context, r grant.Request, events []grant.Event) error {
	return s.writeGrants(ctx, "storing request", func(t tx) error {
		values, err := requestValues(r)
		if err != nil {
			return err
		}
		_, err = t.exec(`INSERT INTO requests (id, person, flow, state, review, created, due, body)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`, append([]any{r.ID}, values...)...)
		if err != nil {
			return orExists(err, fmt.Errorf("request %q exists already", r.ID))
		}
		return insertEvents(t, r, events)
	})
}

// insertEvents numbers and stores the events of a change.
func insertEvents(t tx, r grant.Request, events []grant.Event) error {
	for _, e := range events {
		seq, err := t.count("UPDATE grant_revision SET events = events + 1 RETURNING events")
		if err != nil {
			return err
		}
		e.Seq, e.Request = seq, r.ID
		body, err := json.Marshal(e)
		if err != nil {
			return err
		}
		if _, err := t.exec("INSERT INTO request_events (seq, request, told, body) VALUES ($1, $2, 0, $3)", seq, r.ID, string(body)); err != nil {
			return err
		}
	}
	return nil
}

// Request implements grant.Store.
func (s *Store) Request(ctx context.Context, id string) (grant.Request, error) {
	r, err := requestByID(s.read(ctx), id)
	return r, wrap("reading request", err)
}

// Requests implements grant.Store.
func (s *Store) Requests(ctx context.Context, f grant.Filter) ([]grant.Request, error) {
	t := s.read(ctx)
	w := requestsWhere(f)
	if f.After != "" && f.Due.IsZero() {
		last, err := requestByID(t, f.After)
		if err != nil {
			return nil, wrap("listing requests", err)
		}
		w.add("(created, id) < (?, ?)", micros(last.Frozen.Created), last.ID)
	}
	all, err := list(t, scanRequest, requestsQuery(f, w), w.args...)
	return all, wrap("listing requests", err)
}

func requestsQuery(f grant.Filter, w where) string {
	order := "created DESC, id DESC"
	if !f.Due.IsZero() {
		order = "due, id"
	}
	return "SELECT body FROM requests" + w.String() + " ORDER BY " + order + limit(f.Limit)
}

// openStates are those of the index requests_unsettled, in its words: SQLite takes a partial index
// only for what says so literally, and nothing bound to a parameter does.
const openStates = "state IN ('Pending', 'Approved', 'Active')"

func requestsWhere(f grant.Filter) where {
	w := where{}
	w.equal("person", f.Person)
	w.equal("flow", f.Flow)
	states, open := make([]string, len(f.States)), len(f.States) > 0
	for i, s := range f.States {
		states[i] = string(s)
		open = open && !s.Over()
	}
	w.in("state", states)
	if open {
		w.add(openStates)
	}
	if f.Review {
		w.add("review = 1")
	}
	if f.Clocks {
		w.add("due > 0")
	}
	if !f.Due.IsZero() {
		w.add("due > 0 AND due <= ?", micros(f.Due))
		if f.After != "" {
			w.add("(due, id) > (?, ?)", micros(f.AfterDue), f.After)
		}
	}
	return w
}

// OpenGrants implements grant.Store.
func (s *Store) OpenGrants(ctx context.Context, person string) ([]grant.Request, error) {
	all, err := list(s.read(ctx), scanRequest,
		"SELECT body FROM requests WHERE person = $1 AND state IN ('Approved', 'Active') ORDER BY created, id", person)
	return all, wrap("reading grants", err)
}

// UpdateRequest implements grant.Store. What was frozen stays what it is, whatever
// change does to it.
func (s *Store) UpdateRequest(ctx context.Context, id string, change func(*grant.Request) ([]grant.Event, error)) (grant.Request, error) {
	var now grant.Request
	err := s.writeGrants(ctx, "changing request", func(t tx) (err error) {
		if now, err = requestByID(t, id); err != nil {
			return err
		}
		before := now
		events, err := change(&now)
		if err != nil {
			return err
		}
		now.ID, now.Hash, now.Frozen, now.Revision = before.ID, before.Hash, before.Frozen, before.Revision+1
		values, err := requestValues(now)
		if err != nil {
			return err
		}
		_, err = t.exec(`UPDATE requests SET person = $2, flow = $3, state = $4, review = $5, created = $6, due = $7, body = $8
			WHERE id = $1`, append([]any{id}, values...)...)
		if err != nil {
			return err
		}
		return insertEvents(t, now, events)
	})
	return now, err
}

func scanEvent(r row) (e grant.Event, err error) {
	return e, r.Scan(encoded{&e})
}

// Events implements grant.Store.
func (s *Store) Events(ctx context.Context, request string) ([]grant.Event, error) {
	all, err := list(s.read(ctx), scanEvent, "SELECT body FROM request_events WHERE request = $1 ORDER BY seq", request)
	return all, wrap("reading events", err)
}

// EventsAfter implements grant.Store.
func (s *Store) EventsAfter(ctx context.Context, seq int64, most int) ([]grant.Event, error) {
	all, err := list(s.read(ctx), scanEvent, "SELECT body FROM request_events WHERE seq > $1 ORDER BY seq"+limit(most), seq)
	return all, wrap("reading events", err)
}

// Untold implements grant.Store.
func (s *Store) Untold(ctx context.Context, most int) ([]grant.Event, error) {
	all, err := list(s.read(ctx), scanEvent, "SELECT body FROM request_events WHERE told = 0 ORDER BY seq"+limit(most))
	return all, wrap("reading events", err)
}

// Told implements grant.Store.
func (s *Store) Told(ctx context.Context, seqs []int64) error {
	return s.write(ctx, "noting what the audit log has", func(t tx) error {
		for _, seq := range seqs {
			if _, err := t.exec("UPDATE request_events SET told = 1 WHERE seq = $1", seq); err != nil {
				return err
			}
		}
		return nil
	})
}

type flowFiles struct {
	digest string
	files  map[string][]byte
}

func scanFlowFiles(r row) (f flowFiles, err error) {
	var texts map[string]string
	if err := r.Scan(&f.digest, encoded{&texts}); err != nil {
		return f, err
	}
	f.files = make(map[string][]byte, len(texts))
	for name, text := range texts {
		f.files[name] = []byte(text)
	}
	return f, nil
}

// Flows implements grant.Store.
func (s *Store) Flows(ctx context.Context) (files map[string][]byte, digest string, err error) {
	none := errors.New("none")
	f, err := one(s.read(ctx), none, scanFlowFiles,
		"SELECT digest, files FROM flow_files WHERE digest = (SELECT digest FROM flows_in_force)")
	if errors.Is(err, none) {
		return nil, "", nil
	}
	return f.files, f.digest, wrap("reading flows", err)
}

// FlowsDigest implements grant.Store.
func (s *Store) FlowsDigest(ctx context.Context) (string, error) {
	digest, err := one(s.read(ctx), errors.New("no row"), scanText, "SELECT digest FROM flows_in_force")
	return digest, wrap("reading flows", err)
}

// FlowsBy implements grant.Store.
func (s *Store) FlowsBy(ctx context.Context, digest string) (map[string][]byte, error) {
	f, err := one(s.read(ctx), about("flow files", digest, grant.ErrNotFound), scanFlowFiles,
		"SELECT digest, files FROM flow_files WHERE digest = $1", digest)
	return f.files, wrap("reading flows", err)
}

// PutFlows implements grant.Store.
func (s *Store) PutFlows(ctx context.Context, files map[string][]byte, digest, old, by string, at time.Time) (bool, error) {
	texts := make(map[string]string, len(files))
	for name, text := range files {
		texts[name] = string(text)
	}
	put := false
	err := s.writeGrants(ctx, "putting flows in force", func(t tx) error {
		put = false
		n, err := t.exec("UPDATE flows_in_force SET digest = $1 WHERE digest = $2", digest, old)
		if put = n > 0; err != nil || !put {
			return err
		}
		_, err = t.exec("INSERT INTO flow_files (digest, files, put_by, put_at) VALUES ($1, $2, $3, $4) ON CONFLICT (digest) DO NOTHING",
			digest, encode(texts), by, micros(at))
		return err
	})
	return put && err == nil, err
}
