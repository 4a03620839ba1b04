package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"sallyport.dev/index"
	"sallyport.dev/session"
)

var _ index.Store = (*Store)(nil)

const (
	// transcriptRoom is how many blocks a transcript may have; a block's id is its
	// transcript's number times this, plus its place. Migration 18 says so too.
	transcriptRoom = 1 << 20
	// createTries bounds how often a number is sought while others take them.
	createTries = 10
)

// CreateTranscript implements index.Store.
func (s *Store) CreateTranscript(ctx context.Context, session, member string, state index.State, now time.Time) (number int64, err error) {
	for range createTries {
		err = s.write(ctx, "creating transcript", func(t tx) error {
			number, err = createTranscript(t, session, member, state, now)
			return err
		})
		if !isDuplicate(err) {
			break // else another member took the number, or the session
		}
	}
	return number, err
}

func createTranscript(t tx, session, member string, state index.State, now time.Time) (int64, error) {
	known, err := t.count("SELECT COUNT(*) FROM transcripts WHERE session = $1", session)
	if err != nil || known > 0 {
		return 0, err
	}
	last, err := t.count("SELECT COALESCE(MAX(number), 0) FROM transcripts")
	if err != nil {
		return 0, err
	}
	_, err = t.exec("INSERT INTO transcripts (number, session, state, member, touched, blocks) VALUES ($1, $2, $3, $4, $5, 0)",
		last+1, session, string(state), member, micros(now))
	return last + 1, err
}

// AddBlocks implements index.Store.
func (s *Store) AddBlocks(ctx context.Context, member string, all []index.Addition, now time.Time) (gone []int64, err error) {
	grams := make([]string, len(all)) // made outside the transaction, which others wait for
	var set gramSet
	for i, a := range all {
		grams[i] = s.encodeGrams(set.of(index.Fold(a.Text)))
	}
	err = s.write(ctx, "adding to transcripts", func(t tx) error {
		ids := make([]int64, len(all)) // 0 for what is not kept
		gone = nil
		for i, a := range all {
			id, err := takeBlockID(t, member, a.Number, now)
			if errors.Is(err, index.ErrGone) {
				gone = append(gone, a.Number)
			} else if err != nil {
				return err
			}
			ids[i] = id
		}
		return addBlocks(t, ids, all, grams)
	})
	return gone, err
}

// takeBlockID counts a block of a transcript that member writes and returns its id.
func takeBlockID(t tx, member string, number int64, now time.Time) (int64, error) {
	blocks, err := one(t, index.ErrGone, scanInt, `UPDATE transcripts SET blocks = blocks + 1, touched = $3
		WHERE number = $1 AND member = $2 AND state IN ('live', 'partial') AND blocks < $4 RETURNING blocks`, number, member, micros(now), transcriptRoom)
	if err != nil {
		return 0, err
	}
	return number*transcriptRoom + blocks - 1, nil
}

// addBlocks adds the blocks that have an id. Trigrams come one behind the other: FTS5 gathers
// those of a transaction, but writes down what it has before each statement that SQLite may
// have to undo by itself, as the one above, and merging what was written is what costs.
func addBlocks(t tx, ids []int64, all []index.Addition, grams []string) error {
	for i, a := range all {
		if ids[i] == 0 {
			continue
		}
		if _, err := t.exec("INSERT INTO transcript_blocks (id, times, text) VALUES ($1, $2, $3)", ids[i], hex.EncodeToString(a.Times), a.Text); err != nil {
			return err
		}
	}
	for i, id := range ids {
		if id == 0 {
			continue
		}
		if _, err := t.exec("INSERT INTO transcript_trigrams (rowid, grams) VALUES ($1, $2)", id, grams[i]); err != nil {
			return err
		}
	}
	return nil
}

// EndTranscript implements index.Store.
func (s *Store) EndTranscript(ctx context.Context, number int64, member string, state index.State, now time.Time) error {
	return s.write(ctx, "ending transcript", func(t tx) error {
		return t.must(index.ErrGone, `UPDATE transcripts SET state = $3, touched = $4
			WHERE number = $1 AND member = $2 AND state <> 'gone'`, number, member, string(state), micros(now))
	})
}

// DeleteTranscript implements index.Store.
func (s *Store) DeleteTranscript(ctx context.Context, session string, now time.Time) error {
	return s.write(ctx, "deleting transcript", func(t tx) error {
		numbers, err := list(t, scanInt, "UPDATE transcripts SET state = 'gone', touched = $2 WHERE session = $1 RETURNING number", session, micros(now))
		if err != nil || len(numbers) == 0 {
			return err
		}
		return emptyTranscript(t, numbers[0])
	})
}

func emptyTranscript(t tx, number int64) error {
	for _, sql := range []string{
		"DELETE FROM transcript_trigrams WHERE rowid >= $1 AND rowid < $2",
		"DELETE FROM transcript_blocks WHERE id >= $1 AND id < $2",
	} {
		if _, err := t.exec(sql, number*transcriptRoom, (number+1)*transcriptRoom); err != nil {
			return err
		}
	}
	_, err := t.exec("UPDATE transcripts SET blocks = 0 WHERE number = $1", number)
	return err
}

// ClearTranscripts deletes what is kept of all sessions to search them by, and gives its space
// back. It returns of how many sessions something was kept. Nobody else should be writing.
func (s *Store) ClearTranscripts(ctx context.Context) (sessions int64, err error) {
	sessions, err = s.read(ctx).count("SELECT COUNT(*) FROM transcripts WHERE blocks > 0")
	if err == nil {
		err = s.db.clearTranscripts(ctx)
	}
	return sessions, wrap("emptying the index of transcripts", err)
}

func scanWork(r row) (w index.Work, err error) {
	return w, r.Scan(&w.Number, &w.Session, &w.Recording, stored{&w.Ended})
}

// ClaimTranscripts implements index.Store.
func (s *Store) ClaimTranscripts(ctx context.Context, member string, before, now time.Time, limit int) (claimed []index.Work, err error) {
	err = s.write(ctx, "claiming transcripts", func(t tx) error {
		claimed = nil
		due, err := list(t, scanWork, fmt.Sprintf(`SELECT t.number, t.session, s.recording, s.ended FROM transcripts t JOIN sessions s ON s.id = t.session
			WHERE t.state IN ('live', 'partial') AND t.touched < $1 AND NOT (s.%s) AND s.ended < $1 ORDER BY t.touched LIMIT %d`, activeState, limit), micros(before))
		if err != nil {
			return err
		}
		for _, w := range due {
			n, err := t.exec(`UPDATE transcripts SET state = 'partial', member = $2, touched = $3
				WHERE number = $1 AND state IN ('live', 'partial') AND touched < $4`, w.Number, member, micros(now), micros(before))
			if err != nil {
				return err
			}
			if n == 0 {
				continue // another member was first
			}
			if err := emptyTranscript(t, w.Number); err != nil {
				return err
			}
			claimed = append(claimed, w)
		}
		return nil
	})
	return claimed, err
}

// MissingTranscripts implements index.Store.
func (s *Store) MissingTranscripts(ctx context.Context, limit int) ([]index.Work, error) {
	all, err := list(s.read(ctx), scanWork, fmt.Sprintf(`SELECT 0, id, recording, ended FROM sessions WHERE recording <> '' AND NOT (%s)
		AND NOT EXISTS (SELECT 1 FROM transcripts t WHERE t.session = sessions.id) ORDER BY started DESC, id DESC LIMIT %d`, activeState, limit))
	return all, wrap("listing sessions without transcripts", err)
}

// FindSessions implements index.Store.
func (s *Store) FindSessions(ctx context.Context, c index.Clauses, f session.Filter) (found []session.Session, err error) {
	err = s.search(ctx, func(t tx) error {
		found, err = s.findSessions(t, c, f)
		return err
	})
	return found, wrap("searching sessions", err)
}

func (s *Store) findSessions(t tx, c index.Clauses, f session.Filter) ([]session.Session, error) {
	w := sessionsWhere(f)
	if f.After != "" {
		last, err := sessionByID(t, f.After)
		if err != nil {
			return nil, err
		}
		w.add("(started, id) < (?, ?)", micros(last.Started), last.ID)
	}
	grams, args := s.grams(c)
	if grams == "" {
		w.add("id IN (SELECT session FROM transcripts WHERE blocks > 0)")
	} else {
		w.add(fmt.Sprintf("id IN (SELECT session FROM transcripts WHERE number IN (SELECT rowid / %d FROM transcript_trigrams WHERE %s))", transcriptRoom, grams), args...)
	}
	return list(t, scanSession,
		"SELECT "+sessionColumns+" FROM sessions"+w.String()+" ORDER BY started DESC, id DESC"+limit(f.Limit), w.args...)
}

// search runs a query that is to use the index of transcripts. PostgreSQL's planner takes
// reading all of them for cheap, because the texts are not where the rows are.
func (s *Store) search(ctx context.Context, query func(tx) error) error {
	p, ok := s.db.(*postgresDB)
	if !ok {
		return query(s.read(ctx))
	}
	begun, err := p.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return err
	}
	defer begun.Rollback() // there is nothing to commit
	t := tx{ctx: ctx, on: begun, failed: &s.failed}
	if _, err := t.exec("SET LOCAL enable_seqscan = off"); err != nil {
		return err
	}
	return query(t)
}

// shortBlocks is how many blocks a transcript has at most that is read with others.
const shortBlocks = 4

// FindShort implements index.Store.
func (s *Store) FindShort(ctx context.Context, sessions []string) (map[string][]index.Block, error) {
	if len(sessions) == 0 {
		return nil, nil
	}
	w := where{}
	w.in("session", sessions)
	w.add("blocks <= ?", shortBlocks)
	found := make(map[string][]index.Block, len(sessions))
	err := s.search(ctx, func(t tx) error {
		short, err := list(t, scanWork, "SELECT number, session, '', 0 FROM transcripts"+w.String(), w.args...)
		if err != nil || len(short) == 0 {
			return err
		}
		names := map[int64]string{}
		for _, v := range short {
			names[v.Number] = v.Session
		}
		ids := shortIDs(short)
		all, err := list(t, scanShort, "SELECT id, times, text FROM transcript_blocks"+ids.String()+" ORDER BY id", ids.args...)
		for _, b := range all {
			session := names[b.id/transcriptRoom]
			found[session] = append(found[session], b.Block)
		}
		return err
	})
	return found, wrap("searching sessions", err)
}

// shortIDs are the ids that blocks of short transcripts may have. Databases find each by
// itself, where they might read the whole table for ranges.
func shortIDs(short []index.Work) (w where) {
	var ids []any
	for _, v := range short {
		for i := range int64(shortBlocks) {
			ids = append(ids, v.Number*transcriptRoom+i)
		}
	}
	w.add("id IN (?"+strings.Repeat(", ?", len(ids)-1)+")", ids...)
	return w
}

type shortBlock struct {
	id int64
	index.Block
}

func scanShort(r row) (b shortBlock, err error) {
	var times string
	if err := r.Scan(&b.id, &times, &b.Text); err != nil {
		return b, err
	}
	b.Times, err = hex.DecodeString(times)
	return b, err
}

// fewBlocks are read sooner than it is found out which of them may match.
const fewBlocks = 8

var errNoBlocks = errors.New("no transcript of many blocks")

// FindBlocks implements index.Store.
func (s *Store) FindBlocks(ctx context.Context, session string, c index.Clauses, after int64, most int) ([]index.Found, error) {
	t := s.read(ctx)
	few, err := list(t, scanFound, fmt.Sprintf(`SELECT b.id %% %d, b.times, b.text FROM transcripts t JOIN transcript_blocks b
		ON b.id >= t.number * %[1]d + $2 AND b.id < (t.number + 1) * %[1]d
		WHERE t.session = $1 AND t.blocks <= %d ORDER BY b.id`, transcriptRoom, fewBlocks)+limit(most), session, after)
	if err != nil || len(few) > 0 {
		return few, wrap("searching session", err)
	}
	number, err := one(t, errNoBlocks, scanInt, "SELECT number FROM transcripts WHERE session = $1 AND blocks > $2", session, fewBlocks)
	if errors.Is(err, errNoBlocks) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("searching session", err)
	}
	first, end := number*transcriptRoom+after, (number+1)*transcriptRoom
	w := where{}
	w.add("id >= ? AND id < ?", first, end)
	if grams, args := s.grams(c); grams != "" {
		w.add("id IN (SELECT rowid FROM transcript_trigrams WHERE "+grams+" AND rowid >= ? AND rowid < ?)", append(args, first, end)...)
	}
	all, err := list(t, scanFound, fmt.Sprintf("SELECT id %% %d, times, text FROM transcript_blocks", transcriptRoom)+w.String()+" ORDER BY id"+limit(most), w.args...)
	return all, wrap("searching session", err)
}

func scanFound(r row) (f index.Found, err error) {
	var times string
	if err := r.Scan(&f.Number, &times, &f.Text); err != nil {
		return f, err
	}
	f.Times, err = hex.DecodeString(times)
	return f, err
}
