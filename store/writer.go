package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
)

const (
	// queueLength is how many changes may wait; more wait in their callers.
	queueLength = 1024
	// batchLength is how many changes share a transaction at most.
	batchLength = 256
)

// writer is the only one that writes to SQLite. It commits in groups: the changes
// that arrived while the last transaction was being made durable share the next
// one, so that many callers wait for one flush of the disk instead of queueing for
// one each. Each change has a savepoint, so one that fails is undone alone.
type writer struct {
	ctx   context.Context // of the statements; never cancelled, see transact
	db    *sql.DB         // one connection
	conn  *sql.Conn       // it, kept between transactions; run's alone, as is stmts
	stmts *prepared       // on conn
	queue chan *job
	ended chan struct{} // closed when run has returned

	mu     sync.RWMutex // held for reading while sending to queue
	closed bool
}

// job is a change that waits to be made.
type job struct {
	change func(tx) error
	state  atomic.Int32
	err    error // set before done is closed
	done   chan struct{}
}

// States of a job: whoever moves it from waiting owns what happens next.
const (
	jobWaiting int32 = iota
	jobStarted
	jobAbandoned // its caller's context ended first
)

func startWriter(ctx context.Context, db *sql.DB) *writer {
	w := &writer{
		ctx:   context.WithoutCancel(ctx),
		db:    db,
		queue: make(chan *job, queueLength),
		ended: make(chan struct{}),
	}
	go w.run()
	return w
}

// write has change made and waits until it is durable or has failed. When the
// context ends first, the change is either not made (and its error returned) or has
// begun, and then its outcome is waited for: a caller always knows what happened.
func (w *writer) write(ctx context.Context, change func(tx) error) error {
	j := &job{change: change, done: make(chan struct{})}
	if err := w.submit(ctx, j); err != nil {
		return err
	}
	select {
	case <-j.done:
	case <-ctx.Done():
		if j.state.CompareAndSwap(jobWaiting, jobAbandoned) {
			return context.Cause(ctx)
		}
		<-j.done
	}
	if p := (*panicked)(nil); errors.As(j.err, &p) {
		panic(p.value) // where it can be told from others' panics
	}
	return j.err
}

func (w *writer) submit(ctx context.Context, j *job) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if w.closed {
		return ErrClosed
	}
	if ctx.Err() != nil { // select would choose at random
		return context.Cause(ctx)
	}
	select {
	case w.queue <- j:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// close makes what has been accepted and waits for it. It may be called again.
func (w *writer) close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.queue)
	}
	w.mu.Unlock()
	<-w.ended
}

func (w *writer) run() {
	defer close(w.ended)
	defer w.release()
	for first := range w.queue {
		w.make(w.gather(first))
	}
}

// gather returns the jobs that are waiting now, without those given up.
func (w *writer) gather(first *job) []*job {
	var batch []*job
	for next := first; next != nil; next = w.next(len(batch)) {
		if next.state.CompareAndSwap(jobWaiting, jobStarted) {
			batch = append(batch, next)
		}
	}
	return batch
}

func (w *writer) next(gathered int) *job {
	if gathered == batchLength {
		return nil
	}
	select {
	case j := <-w.queue: // nil when closed and drained
		return j
	default:
		return nil
	}
}

// make makes the changes of a batch and tells their callers. Where the transaction
// that they share fails (the disk is full, say), each is tried again by itself.
func (w *writer) make(batch []*job) {
	if len(batch) == 0 {
		return
	}
	err := w.transact(batch)
	if err != nil && len(batch) > 1 && !errors.Is(err, errBegin) {
		for _, j := range batch {
			j.err = w.transact([]*job{j})
		}
		err = nil
	}
	for _, j := range batch {
		if err != nil {
			j.err = err
		}
		close(j.done)
	}
}

// errBegin marks a transaction that could not begin, so that trying the changes one
// by one would only wait for the lock once more for each.
var errBegin = errors.New("beginning transaction")

// transact makes changes in one transaction. It returns the error that the whole of
// it failed with; those of single changes are in their jobs.
//
// Statements do not see the callers' contexts: interrupting one makes SQLite roll
// back the whole transaction, others' changes included.
func (w *writer) transact(batch []*job) (err error) {
	t, err := w.begin()
	if err != nil {
		return fmt.Errorf("%w: %w", errBegin, err)
	}
	defer func() {
		if err != nil {
			t.exec("ROLLBACK") // fails where SQLite has rolled back already
		}
	}()
	if len(batch) == 1 {
		err = guard(batch[0].change, t)
	} else {
		err = eachInSavepoint(t, batch)
	}
	if err != nil {
		return err
	}
	_, err = t.exec("COMMIT")
	return err
}

// begin opens a transaction. It keeps the connection for the next one, unless it is
// no good for any.
func (w *writer) begin() (tx, error) {
	if w.conn == nil {
		c, err := w.db.Conn(w.ctx)
		if err != nil {
			return tx{}, err
		}
		w.conn, w.stmts = c, &prepared{on: c}
	}
	t := tx{ctx: w.ctx, on: w.stmts}
	_, err := t.exec("BEGIN IMMEDIATE")
	if err != nil {
		w.hangUp()
	}
	return t, err
}

// release gives the connection back to the pool, which closes it last of all.
func (w *writer) release() {
	if w.conn != nil {
		w.conn.Close()
		w.conn, w.stmts = nil, nil
	}
}

// hangUp closes the connection and with it the statements.
func (w *writer) hangUp() {
	w.conn.Raw(func(any) error { return driver.ErrBadConn }) // database/sql's way of closing one
	w.release()
}

func eachInSavepoint(t tx, batch []*job) error {
	for _, j := range batch {
		if err := inSavepoint(t, j); err != nil {
			return err
		}
	}
	return nil
}

// inSavepoint makes a change that can be undone alone. It returns an error if the
// transaction as a whole cannot go on.
func inSavepoint(t tx, j *job) error {
	if _, err := t.exec("SAVEPOINT change"); err != nil {
		return err
	}
	j.err = guard(j.change, t)
	if endsTransaction(j.err) {
		return j.err
	}
	if j.err != nil {
		if _, err := t.exec("ROLLBACK TO change"); err != nil {
			return err
		}
	}
	_, err := t.exec("RELEASE change")
	return err
}

// panicked carries a panic of a change to the goroutine that asked for the change.
type panicked struct{ value any }

func (p *panicked) Error() string { return fmt.Sprint("panic: ", p.value) }

func guard(change func(tx) error, t tx) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &panicked{value}
		}
	}()
	return change(t)
}
