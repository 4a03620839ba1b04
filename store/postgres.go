package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	// postgresConns bounds a member's connections: PostgreSQL allows 100 in all by
	// default.
	postgresConns = 16
	// postgresTries bounds how often a change that met another's is tried.
	postgresTries = 10
	// transactionLimit bounds a transaction whose caller may have left.
	transactionLimit = time.Minute
	// migrationLock is the advisory lock under which members migrate one by one.
	migrationLock int64 = 0x53414c4c59
)

// postgresDB is a PostgreSQL database that any number of members share.
type postgresDB struct {
	db       *sql.DB
	readOnly bool
}

func openPostgres(ctx context.Context, url string, opts Options) (database, error) {
	cfg, err := pgx.ParseConfig(url) // its errors leave out the password
	if err != nil {
		return nil, err
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "sallyport"
	}
	db := stdlib.OpenDB(*cfg)
	db.SetMaxOpenConns(postgresConns)
	db.SetMaxIdleConns(postgresConns)
	db.SetConnMaxIdleTime(5 * time.Minute)
	p := &postgresDB{db: db, readOnly: opts.ReadOnly}
	if err := p.prepare(ctx); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return p, nil
}

func (p *postgresDB) prepare(ctx context.Context) error {
	if p.readOnly {
		return checkSchema(ctx, p.db)
	}
	c, err := p.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	t := tx{ctx: ctx, on: c}
	if _, err := t.exec("SELECT pg_advisory_lock($1)", migrationLock); err != nil {
		return err
	}
	defer func() {
		t.ctx = context.WithoutCancel(ctx) // a connection in the pool must not keep the lock
		t.exec("SELECT pg_advisory_unlock($1)", migrationLock)
	}()
	if _, err := t.exec(`CREATE COLLATION IF NOT EXISTS "binary" FROM pg_catalog."C"`); err != nil {
		return fmt.Errorf("creating collation: %w", err)
	}
	if err := migrate(ctx, p.db, goose.DialectPostgres); err != nil {
		return err
	}
	return preparePostgresGrams(t)
}

func (p *postgresDB) pool() conn { return p.db }

func (p *postgresDB) close() error { return p.db.Close() }

func (p *postgresDB) write(ctx context.Context, change func(tx) error) error {
	if p.readOnly {
		return ErrReadOnly
	}
	for try := 1; ; try++ {
		err := p.transact(ctx, change)
		if err == nil || !clashed(err) || try == postgresTries {
			return err
		}
		if err := pause(ctx, try); err != nil {
			return err
		}
	}
}

func (p *postgresDB) waiting() int { return 0 }

// pause waits a random time that grows with the tries, so that two changes that met
// do not meet again.
func pause(ctx context.Context, try int) error {
	t := time.NewTimer(rand.N(time.Duration(try) * 5 * time.Millisecond))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// transact runs change in a transaction. Its statements end with ctx, but the transaction
// itself does not: a commit whose caller leaves meanwhile may have happened all the same,
// and an error is to mean that nothing was done.
func (p *postgresDB) transact(ctx context.Context, change func(tx) error) error {
	c, err := p.db.Conn(ctx)
	if err != nil {
		if errors.Is(err, sql.ErrConnDone) {
			return ErrClosed
		}
		return err
	}
	defer c.Close()
	whole, cancel := context.WithTimeout(context.WithoutCancel(ctx), transactionLimit)
	defer cancel()
	begun, err := c.BeginTx(whole, nil)
	if err != nil {
		return err
	}
	defer begun.Rollback() // does nothing after Commit
	if err := change(tx{ctx: ctx, on: begun, forUpdate: " FOR UPDATE"}); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return begun.Commit()
}

// SQLSTATE codes, of PostgreSQL's appendix A.
const (
	codeUniqueViolation      = "23505"
	codeSerializationFailure = "40001"
	codeDeadlock             = "40P01"
)

func hasCode(err error, codes ...string) bool {
	e := (*pgconn.PgError)(nil)
	if !errors.As(err, &e) {
		return false
	}
	for _, c := range codes {
		if e.Code == c {
			return true
		}
	}
	return false
}

// clashed reports whether a transaction failed only because of another one.
func clashed(err error) bool { return hasCode(err, codeSerializationFailure, codeDeadlock) }

func isPostgresDuplicate(err error) bool { return hasCode(err, codeUniqueViolation) }
