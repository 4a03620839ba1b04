package factor_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"sallyport.dev/factor"
	"sallyport.dev/identity"
	"sallyport.dev/internal/arn"
	"sallyport.dev/internal/seal"
	"sallyport.dev/store"
)

// rig is a Keeper on a real store, with a clock that tests turn.
type rig struct {
	t      *testing.T
	keeper *factor.Keeper
	store  *store.Store
	sealer identity.Sealer
	logs   *bytes.Buffer
	now    time.Time
}

const home, away = "192.0.2.1", "198.51.100.7"

// cheap makes passwords cost next to nothing.
func cheap() factor.Cost { return factor.Cost{Memory: 8, Passes: 1, Threads: 1} }

func newRig(t *testing.T, changes ...func(*factor.Config)) *rig {
	t.Helper()
	r := &rig{t: t, logs: &bytes.Buffer{}, now: time.Date(2026, 11, 20, 12, 0, 5, 0, time.UTC)}
	logger := slog.New(slog.NewTextHandler(r.logs, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	if r.store, err = store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "state.db"), store.Options{Logger: logger}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.must(r.store.Close()) })
	key, err := seal.New(bytes.Repeat([]byte{7}, seal.KeySize))
	r.must(err)
	r.sealer = key
	c := factor.Config{
		Store: r.store, People: r.store, Sealer: key, Realm: arn.Realm{Account: "111111111111", Region: "us-east-1"},
		Logger: logger, Now: func() time.Time { return r.now }, URL: "https://sallyport.example", Cost: cheap(),
	}
	for _, change := range changes {
		change(&c)
	}
	r.keeper, err = factor.New(c)
	r.must(err)
	return r
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) user(name string) identity.User {
	r.t.Helper()
	u := identity.User{Name: name, ID: identity.NewUserID(), Path: "/", Created: r.now}
	r.must(r.store.CreateUser(r.t.Context(), u))
	return u
}

const password = "correct horse battery"

// local makes a user with a password of their own.
func (r *rig) local(name string) identity.User {
	r.t.Helper()
	u := r.user(name)
	r.must(r.keeper.SetPassword(r.t.Context(), u, password, false))
	return u
}

func (r *rig) signIn(name, password, from string) error {
	_, _, err := r.keeper.CheckPassword(r.t.Context(), name, password, from)
	return err
}

func (r *rig) code(seed factor.Seed) string {
	r.t.Helper()
	code, err := totp.GenerateCode(seed.Secret, r.now)
	r.must(err)
	return code
}

// enrolled makes a device of one-time codes that counts; the clock is past its code.
func (r *rig) enrolled(u identity.User) factor.Seed {
	r.t.Helper()
	seed, err := r.keeper.AddTOTP(r.t.Context(), u, u.Name)
	r.must(err)
	r.must(r.keeper.EnableTOTP(r.t.Context(), seed.Device, u, home, r.code(seed)))
	r.now = r.now.Add(time.Minute)
	return seed
}

func wantErr(t *testing.T, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func waits(err error) bool {
	wait := (*factor.WaitError)(nil)
	return errors.As(err, &wait)
}

func TestPassword(t *testing.T) {
	r := newRig(t)
	alice := r.local("alice")
	bob := r.user("bob")
	r.must(r.keeper.SetPassword(t.Context(), bob, "given by an administrator", true))
	got, initial, err := r.keeper.CheckPassword(t.Context(), "Alice", password, home)
	if err != nil || initial || got.ID != alice.ID {
		t.Errorf("right: got %v, %v, %v", got.Name, initial, err)
	}
	if _, initial, err := r.keeper.CheckPassword(t.Context(), "bob", "given by an administrator", home); err != nil || !initial {
		t.Errorf("initial: got %v, %v", initial, err)
	}
	r.now = r.now.Add(25 * time.Hour)
	wantErr(t, "initial, a day later", r.signIn("bob", "given by an administrator", home), factor.ErrWrong)
	wantErr(t, "wrong", r.signIn("alice", password+"x", home), factor.ErrWrong)
	wantErr(t, "empty", r.signIn("alice", "", home), factor.ErrWrong)
	wantErr(t, "nobody", r.signIn("nobody", password, home), factor.ErrWrong)
	wantErr(t, "endless", r.signIn("alice", strings.Repeat("x", 1<<20), home), factor.ErrWrong)
	r.must(r.store.UpdateUser(t.Context(), "alice", func(u *identity.User) error { u.Disabled = true; return nil }))
	wantErr(t, "disabled", r.signIn("alice", password, home), factor.ErrWrong)
	if strings.Contains(r.logs.String(), password) {
		t.Error("the log holds a password")
	}
}

func TestCheckNew(t *testing.T) {
	r := newRig(t)
	for _, test := range []struct{ password, want string }{
		{"short", "12 or more"},
		{"aaaaaaaaaaaaaaaa", "same few"},
		{"administrator1", "user's name"},
		{"twelve \xff bytes", "not text"},
		{strings.Repeat("long ", 300), "at most 1024"},
		{"пароль-пароль", ""},
		{password, ""},
	} {
		err := r.keeper.CheckNew("Administrator1", test.password)
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%.20q: got %v, want %q", test.password, err, test.want)
		}
	}
}

func TestChangePassword(t *testing.T) {
	r := newRig(t)
	alice := r.local("alice")
	const other = "another one entirely"
	wantErr(t, "wrong old one", r.keeper.ChangePassword(t.Context(), alice, "x", other, home), factor.ErrWrong)
	if err := r.keeper.ChangePassword(t.Context(), alice, password, password, home); err == nil {
		t.Error("the same again: got no error")
	}
	r.must(r.keeper.ChangePassword(t.Context(), alice, password, other, home))
	wantErr(t, "the old one", r.signIn("alice", password, home), factor.ErrWrong)
	r.must(r.signIn("alice", other, home))
}

// A hash keeps its own cost: a Keeper with another still takes it.
func TestPasswordCost(t *testing.T) {
	r := newRig(t, func(c *factor.Config) { c.Cost = factor.Cost{Memory: 16, Passes: 2, Threads: 2} })
	r.local("alice")
	p, err := r.store.Password(t.Context(), r.local("bob").ID)
	r.must(err)
	if !strings.HasPrefix(p.Hash, "$argon2id$v=19$m=16,t=2,p=2$") {
		t.Errorf("got hash %s", p.Hash)
	}
	p.Hash = strings.Replace(p.Hash, "m=16", "m=4000000", 1)
	r.must(r.store.PutPassword(t.Context(), p))
	if err := r.signIn("bob", password, home); err == nil || errors.Is(err, factor.ErrWrong) {
		t.Errorf("a hash that would take 4 GB: got %v", err)
	}
}

// Guessing from one address stops after a few attempts, and does not stop the person
// elsewhere.
func TestBruteForceOfOne(t *testing.T) {
	r := newRig(t)
	r.local("alice")
	tries := 0
	for ; tries < 100 && !waits(r.signIn("alice", "wrong", away)); tries++ {
	}
	if tries != 5 {
		t.Errorf("got %d guesses, want 5", tries)
	}
	if err := r.signIn("alice", password, away); !waits(err) {
		t.Errorf("the right one, too soon: got %v", err)
	}
	r.must(r.signIn("alice", password, home))
	r.now = r.now.Add(2 * time.Minute)
	r.must(r.signIn("alice", password, away))
}

// Guessing from everywhere stops after some attempts; the person still gets in from where
// they have been before.
func TestBruteForceFromEverywhere(t *testing.T) {
	r := newRig(t)
	alice := r.local("alice")
	r.must(r.keeper.Welcome(t.Context(), alice.ID, home))
	tries := 0
	for ; tries < 500; tries++ {
		if waits(r.signIn("alice", "wrong", "203.0.113."+string(rune('0'+tries%10))+string(rune('0'+tries/10%10)))) {
			break
		}
	}
	if tries > 25 {
		t.Errorf("got %d guesses", tries)
	}
	if err := r.signIn("alice", password, away); !waits(err) {
		t.Errorf("from a new address meanwhile: got %v", err)
	}
	r.must(r.signIn("alice", password, home))
	r.now = r.now.Add(2 * time.Minute)
	r.must(r.signIn("alice", password, away))
}

// One password tried on many names stops as well; of IPv6 a whole /64 is one address.
func TestSpraying(t *testing.T) {
	r := newRig(t)
	tries := 0
	for ; tries < 500; tries++ {
		from := "2001:db8:0:1::" + string(rune('a'+tries%6))
		if waits(r.signIn("user"+string(rune('a'+tries%26))+string(rune('a'+tries/26)), "Winter2026!!", from)) {
			break
		}
	}
	if tries != 30 {
		t.Errorf("got %d names, want 30", tries)
	}
}

// Whether a name exists is told neither by words nor by when attempts run out.
func TestNoEnumeration(t *testing.T) {
	r := newRig(t)
	r.local("alice")
	r.user("nopassword")
	type outcome struct{ texts []string }
	of := func(name, from string) (o outcome) {
		for range 8 {
			o.texts = append(o.texts, r.signIn(name, "wrong", from).Error())
		}
		return o
	}
	want := of("alice", "192.0.2.10")
	for i, name := range []string{"nopassword", "nobody"} {
		got := of(name, "192.0.2.1"+string(rune('1'+i)))
		if strings.Join(got.texts, "\n") != strings.Join(want.texts, "\n") {
			t.Errorf("%s: got %q, want %q", name, got.texts, want.texts)
		}
	}
}

// A wrong name takes about as long as a wrong password.
func TestNoEnumerationByTime(t *testing.T) {
	r := newRig(t, func(c *factor.Config) { c.Cost = factor.Cost{Memory: 16 << 10, Passes: 1, Threads: 1} })
	r.local("alice")
	fastest := func(name string) time.Duration {
		best := time.Hour
		for i := range 5 {
			begin := time.Now()
			_ = r.signIn(name, "wrong", "192.0.2."+string(rune('1'+i)))
			best = min(best, time.Since(begin))
		}
		return best
	}
	known, unknown := fastest("alice"), fastest("nobody")
	if unknown < known/3 || known < unknown/3 {
		t.Errorf("known name %v, unknown name %v", known, unknown)
	}
}

// However many sign in at once, memory holds few hashes.
func TestBoundedHashing(t *testing.T) {
	r := newRig(t, func(c *factor.Config) { c.Cost = factor.Cost{Memory: 8 << 10, Passes: 2, Threads: 1} })
	r.local("alice")
	var busy, other int
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 150 {
		all.Go(func() {
			_, _, err := r.keeper.CheckPassword(context.Background(), "alice", password, "10.0."+string(rune('0'+i%10))+"."+string(rune('0'+i/10%10)))
			mu.Lock()
			defer mu.Unlock()
			if errors.Is(err, factor.ErrBusy) || waits(err) {
				busy++
			} else if err != nil {
				other++
				t.Error(err)
			}
		})
	}
	all.Wait()
	if busy == 0 || other > 0 {
		t.Errorf("got %d refused as busy, %d other errors", busy, other)
	}
}

func TestTOTP(t *testing.T) {
	r := newRig(t)
	alice := r.user("alice")
	seed := r.enrolled(alice)
	if !strings.HasPrefix(seed.URL, "otpauth://totp/Sallyport%20111111111111:alice?secret="+seed.Secret) {
		t.Errorf("got URL %s", seed.URL)
	}
	if want := "arn:aws:iam::111111111111:mfa/alice"; seed.Serial(arn.Realm{Account: "111111111111"}, "alice") != want {
		t.Errorf("got serial %s, want %s", seed.Serial(arn.Realm{Account: "111111111111"}, "alice"), want)
	}
	check := func(code string) error {
		_, err := r.keeper.CheckTOTP(t.Context(), alice, "", code, home)
		return err
	}
	code := r.code(seed)
	r.must(check(code))
	wantErr(t, "a code twice", check(code), factor.ErrUsed)
	r.now = r.now.Add(-30 * time.Second)
	before := r.code(seed)
	r.now = r.now.Add(30 * time.Second)
	wantErr(t, "a code from before one that was taken", check(before), factor.ErrUsed)
	r.now = r.now.Add(30 * time.Second)
	code = r.code(seed)
	r.now = r.now.Add(30 * time.Second)
	r.must(check(code)) // a clock that is a step behind
	r.now = r.now.Add(60 * time.Second)
	code = r.code(seed)
	r.now = r.now.Add(-30 * time.Second)
	r.must(check(code)) // and one that is a step ahead
	r.now = r.now.Add(10 * time.Minute)
	code = r.code(seed)
	r.now = r.now.Add(60 * time.Second)
	wantErr(t, "two steps behind", check(code), factor.ErrWrong)
	for _, code := range []string{"", "abcdef", "000", "1234567"} {
		wantErr(t, code, check(code), factor.ErrWrong)
		r.now = r.now.Add(10 * time.Minute)
	}
	all, err := r.store.AllDevices(t.Context())
	r.must(err)
	if len(all) != 1 || bytes.Contains(all[0].Sealed, []byte(seed.Secret)) {
		t.Error("the store holds the seed as it is")
	}
}

// A device counts for nobody before a code of it was seen, nor for anybody else after.
func TestTOTPOfOthers(t *testing.T) {
	r := newRig(t)
	alice, bob := r.user("alice"), r.user("bob")
	seed, err := r.keeper.AddTOTP(t.Context(), alice, "alice")
	r.must(err)
	_, err = r.keeper.CheckTOTP(t.Context(), alice, seed.ID, r.code(seed), home)
	wantErr(t, "before it is enabled", err, factor.ErrWrong)
	wantErr(t, "enabled for somebody else", r.keeper.EnableTOTP(t.Context(), seed.Device, bob, home, r.code(seed)), identity.ErrConflict)
	r.must(r.keeper.EnableTOTP(t.Context(), seed.Device, alice, home, r.code(seed)))
	r.now = r.now.Add(time.Minute)
	_, err = r.keeper.CheckTOTP(t.Context(), bob, seed.ID, r.code(seed), home)
	wantErr(t, "for somebody else", err, factor.ErrWrong)
	if _, err := r.keeper.AddTOTP(t.Context(), bob, "ALICE"); !errors.Is(err, identity.ErrExists) {
		t.Errorf("another device of the same name: got %v", err)
	}
}

// A code shown to two members at once is taken by one.
func TestCodeRace(t *testing.T) {
	r := newRig(t)
	alice := r.user("alice")
	seed := r.enrolled(alice)
	code := r.code(seed)
	results := make(chan error, 8)
	for i := range 8 {
		go func() {
			_, err := r.keeper.CheckTOTP(context.Background(), alice, "", code, "192.0.2."+string(rune('1'+i)))
			results <- err
		}()
	}
	taken := 0
	for range 8 {
		if <-results == nil {
			taken++
		}
	}
	if taken != 1 {
		t.Errorf("taken %d times", taken)
	}
}

// Codes cannot be guessed: few attempts, and none from elsewhere that would add to them
// for long.
func TestGuessingCodes(t *testing.T) {
	r := newRig(t)
	alice := r.user("alice")
	seed := r.enrolled(alice)
	wrong := 0
	for day := r.now; r.now.Before(day.Add(24 * time.Hour)); r.now = r.now.Add(45 * time.Second) {
		if _, err := r.keeper.CheckTOTP(t.Context(), alice, "", "000000", away); errors.Is(err, factor.ErrWrong) {
			wrong++
		}
	}
	if wrong > 800 { // of a million, of which three are right at any time
		t.Errorf("got %d guesses in a day", wrong)
	}
	r.must(r.keeper.Welcome(t.Context(), alice.ID, home))
	if _, err := r.keeper.CheckTOTP(t.Context(), alice, "", r.code(seed), home); err != nil {
		t.Errorf("the person, from where they always are: got %v", err)
	}
}

// What was begun and never finished keeps nobody from a name, and no room, for long.
func TestAbandonedDevices(t *testing.T) {
	r := newRig(t)
	alice, bob := r.user("alice"), r.user("bob")
	for i := range factor.MaxDevices {
		_, err := r.keeper.AddTOTP(t.Context(), bob, "alice"+strings.Repeat("x", i))
		r.must(err)
	}
	_, err := r.keeper.AddTOTP(t.Context(), bob, "one-more")
	wantErr(t, "too many", err, identity.ErrLimit)
	_, err = r.keeper.AddTOTP(t.Context(), alice, "alice")
	wantErr(t, "a name that was just taken", err, identity.ErrExists)
	r.now = r.now.Add(61 * time.Minute)
	seed, err := r.keeper.AddTOTP(t.Context(), alice, "alice")
	r.must(err)
	r.must(r.keeper.EnableTOTP(t.Context(), seed.Device, alice, home, r.code(seed)))
	_, err = r.keeper.AddTOTP(t.Context(), bob, "one-more")
	r.must(err)
	r.now = r.now.Add(61 * time.Minute)
	_, err = r.keeper.AddTOTP(t.Context(), bob, "alice")
	wantErr(t, "a name that is in use", err, identity.ErrExists)
}
