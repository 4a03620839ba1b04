package store

import (
	"context"
	"time"

	"sallyport.dev/identity"
	"sallyport.dev/signin"
)

var _ signin.Store = (*Store)(nil)

const signInColumns = "id, user_id, kind, method, factor, factor_at, computer, created, used, expires, ip, agent, secret, spent, ended, because"

func scanSignIn(r row) (s signin.SignIn, err error) {
	return s, r.Scan(&s.ID, &s.User, &s.Kind, &s.Method, &s.Factor, stored{&s.FactorAt}, &s.Computer,
		stored{&s.Created}, stored{&s.Used}, stored{&s.Expires}, &s.IP, &s.Agent, &s.Secret, encoded{&s.Spent}, stored{&s.Ended}, &s.Because)
}

func signInValues(s signin.SignIn) []any {
	return []any{s.ID, s.User, string(s.Kind), s.Method, s.Factor, micros(s.FactorAt), s.Computer,
		micros(s.Created), micros(s.Used), micros(s.Expires), s.IP, s.Agent, s.Secret, encode(s.Spent), micros(s.Ended), s.Because}
}

func insertSignIn(t tx, s signin.SignIn) error {
	_, err := t.exec("INSERT INTO sign_ins ("+signInColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)`, signInValues(s)...)
	return orExists(err, about("sign-in", s.ID, identity.ErrExists))
}

// CreateSignIn implements signin.Store.
func (s *Store) CreateSignIn(ctx context.Context, in signin.SignIn) error {
	return s.write(ctx, "creating sign-in", func(t tx) error { return insertSignIn(t, in) })
}

func signInByID(t tx, id string) (signin.SignIn, error) {
	return one(t, about("sign-in", id, identity.ErrNotFound), scanSignIn,
		"SELECT "+signInColumns+" FROM sign_ins WHERE id = $1"+t.forUpdate, id)
}

// SignIn implements signin.Store.
func (s *Store) SignIn(ctx context.Context, id string) (signin.SignIn, error) {
	in, err := signInByID(s.read(ctx), id)
	return in, wrap("reading sign-in", err)
}

// SignInBySecret implements signin.Store.
func (s *Store) SignInBySecret(ctx context.Context, hash string) (signin.SignIn, error) {
	absent := about("sign-in", "of a secret", identity.ErrNotFound)
	if hash == "" {
		return signin.SignIn{}, wrap("finding sign-in", absent)
	}
	in, err := one(s.read(ctx), absent, scanSignIn,
		"SELECT "+signInColumns+" FROM sign_ins WHERE secret = $1", hash)
	return in, wrap("finding sign-in", err)
}

// SignIns implements signin.Store.
func (s *Store) SignIns(ctx context.Context, f signin.Filter) ([]signin.SignIn, error) {
	var w where
	w.equal("user_id", f.User)
	if f.Live {
		w.add("ended = 0 AND expires > ?", micros(f.Now))
	}
	if f.After != "" {
		w.add("(created, id) < (SELECT o.created, o.id FROM sign_ins o WHERE o.id = ?)", f.After)
	}
	all, err := list(s.read(ctx), scanSignIn,
		"SELECT "+signInColumns+" FROM sign_ins"+w.String()+" ORDER BY created DESC, id DESC"+limit(f.Limit), w.args...)
	return all, wrap("listing sign-ins", err)
}

// UpdateSignIn implements signin.Store.
func (s *Store) UpdateSignIn(ctx context.Context, id string, change func(*signin.SignIn) error) (signin.SignIn, error) {
	var in signin.SignIn
	err := s.write(ctx, "changing sign-in", func(t tx) (err error) {
		if in, err = signInByID(t, id); err != nil {
			return err
		}
		if err := change(&in); err != nil {
			return err
		}
		in.ID = id
		_, err = t.exec(`UPDATE sign_ins SET id = $1, user_id = $2, kind = $3, method = $4, factor = $5, factor_at = $6,
			computer = $7, created = $8, used = $9, expires = $10, ip = $11, agent = $12, secret = $13, spent = $14,
			ended = $15, because = $16 WHERE id = $1`, signInValues(in)...)
		return orExists(err, about("sign-in", id, identity.ErrExists))
	})
	return in, err
}

// EndSignIns implements signin.Store.
func (s *Store) EndSignIns(ctx context.Context, user, because string, at time.Time) (n int, err error) {
	err = s.write(ctx, "ending sign-ins", func(t tx) error {
		ended, err := t.exec("UPDATE sign_ins SET ended = $1, because = $2 WHERE user_id = $3 AND ended = 0", micros(at), because, user)
		n = int(ended)
		return err
	})
	return n, err
}

// DeleteSignIns implements signin.Store.
func (s *Store) DeleteSignIns(ctx context.Context, before time.Time) error {
	return s.write(ctx, "forgetting sign-ins", func(t tx) error {
		_, err := t.exec("DELETE FROM sign_ins WHERE expires < $1 OR (ended > 0 AND ended < $1)", micros(before))
		return err
	})
}

const pairingColumns = `id, user_code, client, kind, computer, redirect, challenge, ip, agent, created, expires,
	state, user_id, confirmed_by, method, factor, factor_at, sign_in`

func scanPairing(r row) (p signin.Pairing, err error) {
	return p, r.Scan(&p.ID, &p.UserCode, &p.Client, &p.Kind, &p.Computer, &p.Redirect, &p.Challenge, &p.IP, &p.Agent,
		stored{&p.Created}, stored{&p.Expires}, &p.State, &p.User, &p.By, &p.Method, &p.Factor, stored{&p.FactorAt}, &p.SignIn)
}

// CreatePairing implements signin.Store.
func (s *Store) CreatePairing(ctx context.Context, p signin.Pairing, limit int) error {
	return s.write(ctx, "creating pairing", func(t tx) error {
		n, err := t.count("SELECT COUNT(*) FROM sign_in_pairings WHERE expires > $1 AND state = $2",
			micros(p.Created), string(signin.PairingWaiting))
		if err == nil && n >= int64(limit) {
			err = about("pairing", p.Client, identity.ErrLimit)
		}
		if err != nil {
			return err
		}
		_, err = t.exec("INSERT INTO sign_in_pairings ("+pairingColumns+`)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`,
			p.ID, p.UserCode, p.Client, string(p.Kind), p.Computer, p.Redirect, p.Challenge, p.IP, p.Agent,
			micros(p.Created), micros(p.Expires), string(p.State), p.User, p.By, p.Method, p.Factor, micros(p.FactorAt), p.SignIn)
		return orExists(err, about("pairing", p.Client, identity.ErrExists))
	})
}

func pairing(t tx, column, value string) (signin.Pairing, error) {
	return one(t, about("pairing", "of a code", identity.ErrNotFound), scanPairing,
		"SELECT "+pairingColumns+" FROM sign_in_pairings WHERE "+column+" = $1 AND $1 <> ''"+t.forUpdate, value)
}

// Pairing implements signin.Store.
func (s *Store) Pairing(ctx context.Context, id string) (signin.Pairing, error) {
	p, err := pairing(s.read(ctx), "id", id)
	return p, wrap("reading pairing", err)
}

// PairingByUserCode implements signin.Store.
func (s *Store) PairingByUserCode(ctx context.Context, code string) (signin.Pairing, error) {
	p, err := pairing(s.read(ctx), "user_code", code)
	return p, wrap("finding pairing", err)
}

// savePairing writes what may change of a pairing.
func savePairing(t tx, p signin.Pairing) error {
	_, err := t.exec(`UPDATE sign_in_pairings SET state = $1, user_id = $2, confirmed_by = $3, method = $4, factor = $5,
		factor_at = $6, sign_in = $7 WHERE id = $8`,
		string(p.State), p.User, p.By, p.Method, p.Factor, micros(p.FactorAt), p.SignIn, p.ID)
	return err
}

// UpdatePairing implements signin.Store: its decision, that is; the wish stays as it is.
func (s *Store) UpdatePairing(ctx context.Context, id string, change func(*signin.Pairing) error) error {
	return s.write(ctx, "changing pairing", func(t tx) error {
		p, err := pairing(t, "id", id)
		if err != nil {
			return err
		}
		if err := change(&p); err != nil {
			return err
		}
		return savePairing(t, p)
	})
}

// Redeem implements signin.Store.
func (s *Store) Redeem(ctx context.Context, id string, redeem func(signin.Pairing) (signin.SignIn, error)) (signin.SignIn, error) {
	var in signin.SignIn
	err := s.write(ctx, "redeeming pairing", func(t tx) error {
		p, err := pairing(t, "id", id)
		if err != nil {
			return err
		}
		if in, err = redeem(p); err != nil {
			return err
		}
		p.State, p.SignIn = signin.PairingUsed, in.ID
		if err := savePairing(t, p); err != nil {
			return err
		}
		return insertSignIn(t, in)
	})
	return in, err
}

// DeletePairings implements signin.Store.
func (s *Store) DeletePairings(ctx context.Context, before time.Time) error {
	return s.write(ctx, "forgetting pairings", func(t tx) error {
		_, err := t.exec("DELETE FROM sign_in_pairings WHERE expires < $1", micros(before))
		return err
	})
}

const accountColumns = "issuer, subject, user_id, provider, name, linked, linked_by"

func scanAccount(r row) (a signin.Account, err error) {
	return a, r.Scan(&a.Issuer, &a.Subject, &a.User, &a.Provider, &a.Name, stored{&a.Linked}, &a.By)
}

// Account implements signin.Store.
func (s *Store) Account(ctx context.Context, issuer, subject string) (signin.Account, error) {
	a, err := one(s.read(ctx), about("account", subject, identity.ErrNotFound), scanAccount,
		"SELECT "+accountColumns+" FROM sign_in_accounts WHERE issuer = $1 AND subject = $2", issuer, subject)
	return a, wrap("reading account", err)
}

// Accounts implements signin.Store.
func (s *Store) Accounts(ctx context.Context, user string) ([]signin.Account, error) {
	all, err := list(s.read(ctx), scanAccount,
		"SELECT "+accountColumns+" FROM sign_in_accounts WHERE user_id = $1 ORDER BY linked, issuer, subject", user)
	return all, wrap("listing accounts", err)
}

func insertAccount(t tx, a signin.Account) error {
	_, err := t.exec("INSERT INTO sign_in_accounts ("+accountColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7)",
		a.Issuer, a.Subject, a.User, a.Provider, a.Name, micros(a.Linked), a.By)
	return orExists(err, about("account", a.Subject, identity.ErrExists))
}

// LinkAccount implements signin.Store.
func (s *Store) LinkAccount(ctx context.Context, a signin.Account) error {
	return s.writeIdentity(ctx, "linking account", func(t tx) error {
		n, err := t.count("SELECT COUNT(*) FROM users WHERE id = $1", a.User)
		if err == nil && n == 0 {
			err = about("user", a.User, identity.ErrNotFound)
		}
		if err != nil {
			return err
		}
		return insertAccount(t, a)
	})
}

// UnlinkAccount implements signin.Store.
func (s *Store) UnlinkAccount(ctx context.Context, issuer, subject string) error {
	return s.writeIdentity(ctx, "unlinking account", func(t tx) error {
		return t.must(about("account", subject, identity.ErrNotFound),
			"DELETE FROM sign_in_accounts WHERE issuer = $1 AND subject = $2", issuer, subject)
	})
}

// Enrol implements signin.Store.
func (s *Store) Enrol(ctx context.Context, u identity.User, a signin.Account) error {
	return s.writeIdentity(ctx, "making a person of an account", func(t tx) error {
		if err := insertUser(t, u); err != nil {
			return err
		}
		return insertAccount(t, a)
	})
}

// forgetSignIns removes what a user who is deleted was signed in by.
func forgetSignIns(t tx, user string) error {
	for _, table := range []string{"sign_in_accounts", "sign_ins", "sign_in_pairings"} {
		if _, err := t.exec("DELETE FROM "+table+" WHERE user_id = $1", user); err != nil {
			return err
		}
	}
	return nil
}
