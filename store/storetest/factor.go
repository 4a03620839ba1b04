package storetest

import (
	"errors"
	"testing"
	"time"

	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/store"
)

func testPasswords(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	u := user("u")
	must(t, s.CreateUser(ctx, u))
	_, err := s.Password(ctx, u.ID)
	wantErr(t, "no password", err, identity.ErrNotFound)
	wantErr(t, "of nobody", s.PutPassword(ctx, factor.Password{UserID: "AIDANOBODY", Hash: "x", Set: at(1)}), identity.ErrNotFound)
	p := factor.Password{UserID: u.ID, Hash: "one", Set: at(1), Initial: true, Expires: at(2)}
	must(t, s.PutPassword(ctx, p))
	wantSame(t, "initial", get[factor.Password](t)(s.Password(ctx, u.ID)), p)
	p = factor.Password{UserID: u.ID, Hash: "two", Set: at(3)}
	must(t, s.PutPassword(ctx, p))
	wantSame(t, "another", get[factor.Password](t)(s.Password(ctx, u.ID)), p)
	must(t, s.DeletePassword(ctx, u.ID))
	wantErr(t, "deleted twice", s.DeletePassword(ctx, u.ID), identity.ErrNotFound)
	must(t, s.PutPassword(ctx, p))
	must(t, s.DeleteUser(ctx, "u"))
	_, err = s.Password(ctx, u.ID)
	wantErr(t, "with its user", err, identity.ErrNotFound)
}

func device(id, user, name string) factor.Device {
	return factor.Device{ID: id, UserID: user, Kind: factor.TOTP, Name: name, Path: "/", Sealed: []byte{1, 2}, Created: at(1)}
}

func testFactors(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	u, v := user("u"), user("v")
	must(t, s.CreateUser(ctx, u))
	must(t, s.CreateUser(ctx, v))
	d := device("fa-1", u.ID, "Phone")
	must(t, s.CreateDevice(ctx, d, 2))
	wantErr(t, "the same name", s.CreateDevice(ctx, device("fa-2", v.ID, "phone"), 2), identity.ErrExists)
	must(t, s.CreateDevice(ctx, factor.Device{ID: "fa-3", UserID: u.ID, Kind: factor.WebAuthn, Name: "phone", Path: "/", Credential: []byte("{}"), Created: at(2), Enabled: at(2)}, 2))
	wantErr(t, "one too many", s.CreateDevice(ctx, device("fa-4", u.ID, "other"), 2), identity.ErrLimit)
	wantErr(t, "of nobody", s.CreateDevice(ctx, device("fa-4", "AIDANOBODY", "other"), 2), identity.ErrNotFound)
	must(t, s.CreateDevice(ctx, device("fa-5", "", "free"), 1))
	wantErr(t, "too many free ones", s.CreateDevice(ctx, device("fa-6", "", "freer"), 1), identity.ErrLimit)
	wantSame(t, "one", get[factor.Device](t)(s.Device(ctx, "fa-1")), d)
	wantSame(t, "by key", get[factor.Device](t)(s.DeviceByKey(ctx, d.Key())), d)
	id := func(d factor.Device) string { return d.ID }
	wantSame(t, "of u", names(get[[]factor.Device](t)(s.Devices(ctx, u.ID)), id), "fa-1 fa-3")
	wantSame(t, "all", names(get[[]factor.Device](t)(s.AllDevices(ctx)), id), "fa-5 fa-1 fa-3")

	wantErr(t, "used before it is enabled", s.UseDevice(ctx, "fa-1", 5, nil, at(3)), identity.ErrConflict)
	wantErr(t, "enabled for another", s.EnableDevice(ctx, "fa-1", v.ID, 5, at(3), 2), identity.ErrConflict)
	must(t, s.EnableDevice(ctx, "fa-1", u.ID, 5, at(3), 2))
	wantErr(t, "enabled twice", s.EnableDevice(ctx, "fa-1", u.ID, 6, at(3), 2), identity.ErrConflict)
	wantErr(t, "a free one, for who has enough", s.EnableDevice(ctx, "fa-5", u.ID, 5, at(3), 2), identity.ErrLimit)
	must(t, s.EnableDevice(ctx, "fa-5", v.ID, 5, at(3), 2))
	wantErr(t, "the same step", s.UseDevice(ctx, "fa-1", 5, nil, at(4)), identity.ErrConflict)
	wantErr(t, "an earlier step", s.UseDevice(ctx, "fa-1", 4, nil, at(4)), identity.ErrConflict)
	must(t, s.UseDevice(ctx, "fa-1", 6, nil, at(4)))
	must(t, s.UseDevice(ctx, "fa-3", 0, []byte("{1}"), at(4))) // keys that do not count
	must(t, s.UseDevice(ctx, "fa-3", 0, []byte("{2}"), at(5)))
	wantSame(t, "credential", string(get[factor.Device](t)(s.Device(ctx, "fa-3")).Credential), "{2}")

	must(t, s.ReleaseDevice(ctx, "fa-1"))
	wantErr(t, "a released one", s.UseDevice(ctx, "fa-1", 9, nil, at(4)), identity.ErrConflict)
	must(t, s.EnableDevice(ctx, "fa-1", v.ID, 9, at(5), 2))
	must(t, s.DeleteDevice(ctx, "fa-1"))
	wantErr(t, "deleted twice", s.DeleteDevice(ctx, "fa-1"), identity.ErrNotFound)
	must(t, s.DeleteUser(ctx, "v"))
	wantSame(t, "without v", names(get[[]factor.Device](t)(s.AllDevices(ctx)), id), "fa-3")
}

// testFactorRaces: a code is taken once, and attempts do not exceed their limit, among two
// members.
func testFactorRaces(t *testing.T, fresh Fresh) {
	url := fresh(t)
	members := []*store.Store{Open(t, url), Open(t, url)}
	ctx := t.Context()
	u := user("u")
	must(t, members[0].CreateUser(ctx, u))
	must(t, members[0].CreateDevice(ctx, device("fa-1", u.ID, "phone"), 8))
	must(t, members[0].EnableDevice(ctx, "fa-1", u.ID, 5, at(3), 8))
	counts := atOnce(t, 30, func(i int) error {
		return members[i%2].UseDevice(ctx, "fa-1", 6, nil, at(4))
	}, identity.ErrConflict)
	wantSame(t, "taken", counts[nil], 1)
	full := errors.New("limit reached")
	limits := []factor.Limit{{Key: "a", Burst: 7, Every: time.Minute}, {Key: "b", Burst: 100, Every: time.Minute}}
	counts = atOnce(t, 40, func(i int) error {
		wait, err := members[i%2].Attempt(ctx, limits, at(5))
		if err == nil && wait > 0 {
			err = full
		}
		return err
	}, full)
	wantSame(t, "attempts", counts[nil], 7)
}

func testAttempts(t *testing.T, fresh Fresh) {
	s, ctx := open(t, fresh), t.Context()
	u := user("u")
	must(t, s.CreateUser(ctx, u))
	now := at(0)
	limits := []factor.Limit{{Key: "k", Burst: 2, Every: time.Minute}, {Key: "other", Burst: 5, Every: time.Second}}
	attempt := func(limits ...factor.Limit) time.Duration {
		t.Helper()
		return get[time.Duration](t)(s.Attempt(ctx, limits, now))
	}
	wantSame(t, "first", attempt(limits...), time.Duration(0))
	wantSame(t, "second", attempt(limits...), time.Duration(0))
	wantSame(t, "third", attempt(limits...), time.Minute)
	wantSame(t, "the other key, which did not count the third", attempt(limits[1], limits[1], limits[1]), time.Duration(0))
	now = now.Add(time.Minute)
	wantSame(t, "a minute later", attempt(limits[0]), time.Duration(0))
	wantSame(t, "and again", attempt(limits[0]), time.Minute)
	must(t, s.Forgive(ctx, limits[:1], now))
	wantSame(t, "forgiven", attempt(limits[0]), time.Duration(0))
	must(t, s.Forgive(ctx, []factor.Limit{{Key: "unknown", Burst: 1, Every: time.Hour}}, now))
	wantSame(t, "forgiven what never was", attempt(factor.Limit{Key: "unknown", Burst: 1, Every: time.Hour}), time.Duration(0))

	wantSame(t, "unfamiliar", get[bool](t)(s.Familiar(ctx, u.ID, "192.0.2.1", now)), false)
	for i, address := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"} {
		must(t, s.MakeFamiliar(ctx, u.ID, address, now.Add(time.Duration(i+1)*time.Hour), 2))
	}
	wantSame(t, "the oldest", get[bool](t)(s.Familiar(ctx, u.ID, "192.0.2.1", now)), false)
	wantSame(t, "a newer one", get[bool](t)(s.Familiar(ctx, u.ID, "192.0.2.2", now)), true)
	wantSame(t, "hours later", get[bool](t)(s.Familiar(ctx, u.ID, "192.0.2.2", now.Add(3*time.Hour))), false)
	wantSame(t, "of somebody else", get[bool](t)(s.Familiar(ctx, "AIDAOTHER", "192.0.2.2", now)), false)
}
