package store

import (
	"context"
	"time"

	"sallyport.dev/notify"
)

var _ notify.Store = (*Store)(nil)

// leaseName is the only row of notify_lease.
const leaseName = "notify"

// HoldLease implements notify.Store.
func (s *Store) HoldLease(ctx context.Context, holder string, now, until time.Time) (held bool, position int64, err error) {
	err = s.write(ctx, "taking the lease of notifications", func(t tx) error {
		held, position = false, 0
		if _, err := t.exec(`INSERT INTO notify_lease (name, holder, until, position) VALUES ($1, '', 0, 0)
			ON CONFLICT DO NOTHING`, leaseName); err != nil {
			return err
		}
		n, err := t.exec(`UPDATE notify_lease SET holder = $1, until = $2
			WHERE name = $3 AND (holder = $4 OR until <= $5)`, holder, micros(until), leaseName, holder, micros(now))
		if err != nil || n == 0 {
			return err
		}
		held = true
		position, err = t.count("SELECT position FROM notify_lease WHERE name = $1", leaseName)
		return err
	})
	return held && err == nil, position, err
}

// DropLease implements notify.Store.
func (s *Store) DropLease(ctx context.Context, holder string) error {
	return s.write(ctx, "giving up the lease of notifications", func(t tx) error {
		_, err := t.exec("UPDATE notify_lease SET holder = '', until = 0 WHERE name = $1 AND holder = $2", leaseName, holder)
		return err
	})
}

// leased locks the lease's row and fails unless the holder has it.
func leased(t tx, holder string) error {
	return t.must(notify.ErrLease, "UPDATE notify_lease SET holder = holder WHERE name = $1 AND holder = $2", leaseName, holder)
}

const deliveryColumns = "id, seq, request, kind, lane, what, place, step, stage, tries, next, state, problem, made"

func scanDelivery(r row) (d notify.Delivery, err error) {
	return d, r.Scan(&d.ID, &d.Seq, &d.Request, &d.Kind, &d.Lane, &d.What, &d.To, &d.Step, &d.Stage, &d.Tries,
		stored{&d.Next}, &d.State, &d.Problem, stored{&d.Made})
}

// Queue implements notify.Store.
func (s *Store) Queue(ctx context.Context, holder string, position int64, ds []notify.Delivery) error {
	return s.write(ctx, "queueing notifications", func(t tx) error {
		if err := leased(t, holder); err != nil {
			return err
		}
		for _, d := range ds {
			_, err := t.exec("INSERT INTO notify_deliveries ("+deliveryColumns+`)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) ON CONFLICT DO NOTHING`,
				d.ID, d.Seq, d.Request, d.Kind, d.Lane, d.What, d.To, d.Step, d.Stage, d.Tries,
				micros(d.Next), string(d.State), d.Problem, micros(d.Made))
			if err != nil {
				return err
			}
		}
		_, err := t.exec("UPDATE notify_lease SET position = $1 WHERE name = $2 AND position < $3", position, leaseName, position)
		return err
	})
}

// Due implements notify.Store.
func (s *Store) Due(ctx context.Context, lane string, now time.Time, n int) ([]notify.Delivery, error) {
	all, err := list(s.read(ctx), scanDelivery, "SELECT "+deliveryColumns+` FROM notify_deliveries
		WHERE state = 'waiting' AND lane = $1 AND next <= $2 ORDER BY seq, id`+limit(n), lane, micros(now))
	return all, wrap("listing due notifications", err)
}

// Begin implements notify.Store.
func (s *Store) Begin(ctx context.Context, holder, id string, tries int, next time.Time) error {
	return s.write(ctx, "beginning a notification", func(t tx) error {
		if err := leased(t, holder); err != nil {
			return err
		}
		return t.must(notify.ErrLease, `UPDATE notify_deliveries SET tries = tries + 1, next = $1
			WHERE id = $2 AND state = 'waiting' AND tries = $3`, micros(next), id, tries)
	})
}

// Finish implements notify.Store.
func (s *Store) Finish(ctx context.Context, id string, state notify.DeliveryState, next time.Time, problem string) error {
	return s.write(ctx, "finishing a notification", func(t tx) error {
		_, err := t.exec("UPDATE notify_deliveries SET state = $1, next = $2, problem = $3 WHERE id = $4 AND state = 'waiting'",
			string(state), micros(next), problem, id)
		return err
	})
}

// Deliveries implements notify.Store.
func (s *Store) Deliveries(ctx context.Context, request string) ([]notify.Delivery, error) {
	all, err := list(s.read(ctx), scanDelivery, "SELECT "+deliveryColumns+
		" FROM notify_deliveries WHERE request = $1 ORDER BY seq, id", request)
	return all, wrap("listing notifications", err)
}

// Forget implements notify.Store.
func (s *Store) Forget(ctx context.Context, before time.Time) error {
	return s.write(ctx, "forgetting notifications", func(t tx) error {
		if _, err := t.exec("DELETE FROM notify_deliveries WHERE made < $1", micros(before)); err != nil {
			return err
		}
		if _, err := t.exec("DELETE FROM notify_references WHERE made < $1", micros(before)); err != nil {
			return err
		}
		_, err := t.exec("DELETE FROM chat_codes WHERE expires < $1", micros(before))
		return err
	})
}

const referenceColumns = "request, service, place, channel, message, revision, shown, made"

func scanReference(r row) (f notify.Reference, err error) {
	return f, r.Scan(&f.Request, &f.Service, &f.To, &f.Channel, &f.Message, &f.Revision, &f.Shown, stored{&f.Made})
}

// PutReference implements notify.Store.
func (s *Store) PutReference(ctx context.Context, f notify.Reference) error {
	return s.write(ctx, "keeping a message's reference", func(t tx) error {
		_, err := t.exec("INSERT INTO notify_references ("+referenceColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
			ON CONFLICT (request, service, place) DO UPDATE SET channel = excluded.channel, message = excluded.message,
				revision = excluded.revision, shown = excluded.shown`,
			f.Request, f.Service, f.To, f.Channel, f.Message, f.Revision, f.Shown, micros(f.Made))
		return err
	})
}

// References implements notify.Store.
func (s *Store) References(ctx context.Context, request string) ([]notify.Reference, error) {
	all, err := list(s.read(ctx), scanReference, "SELECT "+referenceColumns+
		" FROM notify_references WHERE request = $1 ORDER BY service, place", request)
	return all, wrap("listing messages' references", err)
}
