package kms_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/internal/seal"
	"sallyport.dev/kms"
	"sallyport.dev/store"
)

// bench is a keeper on a real store, with a clock that tests turn.
type bench struct {
	*kms.Keeper
	t     testing.TB
	store *store.Store
	now   time.Time
}

func newBench(t testing.TB) *bench {
	t.Helper()
	st, err := store.Open(t.Context(), "sqlite:"+filepath.Join(t.TempDir(), "state.db"), store.Options{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	b := &bench{t: t, store: st, now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	b.Keeper = b.keeper(7)
	return b
}

// keeper is a keeper with the master key of which every byte is n.
func (b *bench) keeper(n byte) *kms.Keeper {
	master, err := seal.New(bytes.Repeat([]byte{n}, seal.KeySize))
	b.must(err)
	return kms.New(kms.Config{Store: b.store, Sealer: master, Now: func() time.Time { return b.now }})
}

func (b *bench) must(err error) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) create() kms.Key {
	b.t.Helper()
	k, err := b.Create(context.Background(), "test")
	b.must(err)
	return k
}

// reread is a key as it is now.
func (b *bench) reread(k kms.Key) kms.Key {
	b.t.Helper()
	k, err := b.Key(context.Background(), k.ID)
	b.must(err)
	return k
}

func (b *bench) encrypt(k kms.Key, c kms.Context) []byte {
	b.t.Helper()
	blob, err := b.Encrypt(context.Background(), b.reread(k), []byte("secret"), c)
	b.must(err)
	return blob
}

func (b *bench) decrypt(k kms.Key, blob []byte, c kms.Context) error {
	head, err := kms.ParseBlob(blob)
	if err != nil {
		return err
	}
	text, err := b.Decrypt(context.Background(), k, head, c)
	if err == nil && string(text) != "secret" {
		return fmt.Errorf("decrypted to %q", text)
	}
	return err
}

func wantErr(t testing.TB, what string, got, want error) {
	t.Helper()
	if !errors.Is(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// A ciphertext opens with its own context and key alone, whoever changed what of it.
func TestCiphertexts(t *testing.T) {
	b := newBench(t)
	k, other := b.create(), b.create()
	c := kms.Context{"aws:ssm:SessionId": "alice-1", "aws:ssm:TargetId": "i-1"}
	blob := b.encrypt(k, c)
	wantErr(t, "as it was made", b.decrypt(k, blob, maps.Clone(c)), nil)
	for name, wrong := range map[string]kms.Context{
		"no context":      nil,
		"another session": {"aws:ssm:SessionId": "alice-2", "aws:ssm:TargetId": "i-1"},
		"less":            {"aws:ssm:SessionId": "alice-1"},
		"more":            {"aws:ssm:SessionId": "alice-1", "aws:ssm:TargetId": "i-1", "x": "y"},
		"values swapped":  {"aws:ssm:SessionId": "i-1", "aws:ssm:TargetId": "alice-1"},
		"moved across":    {"aws:ssm:SessionIdalice": "-1", "aws:ssm:TargetId": "i-1"},
		"another case":    {"aws:ssm:sessionid": "alice-1", "aws:ssm:TargetId": "i-1"},
	} {
		wantErr(t, name, b.decrypt(k, blob, wrong), kms.ErrCiphertext)
	}
	wantErr(t, "another key", b.decrypt(other, blob, c), kms.ErrWrongKey)
	for i := range blob {
		altered := bytes.Clone(blob)
		altered[i] ^= 1
		if err := b.decrypt(k, altered, c); !errors.Is(err, kms.ErrCiphertext) && !errors.Is(err, kms.ErrWrongKey) {
			t.Errorf("byte %d altered: got %v", i, err)
		}
		if err := b.decrypt(k, blob[:i], c); !errors.Is(err, kms.ErrCiphertext) {
			t.Errorf("cut to %d bytes: got %v", i, err)
		}
	}
	relabelled := bytes.Clone(blob)
	copy(relabelled[4:20], b.encrypt(other, c)[4:20])
	wantErr(t, "said to be another key's", b.decrypt(other, relabelled, c), kms.ErrCiphertext)
	if bytes.Equal(blob, b.encrypt(k, c)) || bytes.Contains(blob, []byte("secret")) {
		t.Error("the same text gives the same ciphertext, or shows in it")
	}
}

// Keys and values that run into one another are different contexts.
func TestContextsAreCanonical(t *testing.T) {
	b := newBench(t)
	k := b.create()
	contexts := []kms.Context{nil, {"a": ""}, {"a": "b"}, {"ab": ""}, {"a": "bc", "d": ""}, {"a": "b", "cd": ""}, {"a": "b", "c": "d"}, {"a": "b\x00\x00\x00\x01c"}}
	for i, c := range contexts {
		blob := b.encrypt(k, c)
		for j, d := range contexts {
			if opened := b.decrypt(k, blob, d) == nil; opened != (i == j) {
				t.Errorf("%v with %v: opened is %v", c, d, opened)
			}
		}
	}
}

func TestContextRules(t *testing.T) {
	for name, c := range map[string]kms.Context{
		"empty key":      {"": "x"},
		"case only":      {"Key": "x", "kEY": "x"},
		"too large":      {"k": strings.Repeat("x", 8192)},
		"together large": {"a": strings.Repeat("x", 5000), "b": strings.Repeat("x", 5000)},
	} {
		if c.Check() == nil {
			t.Errorf("%s: got no error", name)
		}
	}
	if err := (kms.Context{"k": strings.Repeat("x", 8191)}).Check(); err != nil {
		t.Error(err)
	}
}

func TestSizes(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	blob, err := b.Encrypt(ctx, k, make([]byte, kms.MaxPlaintext), nil)
	if err != nil || len(blob) > kms.MaxBlob {
		t.Errorf("the largest text: got %d bytes, %v", len(blob), err)
	}
	if _, err := b.Encrypt(ctx, k, make([]byte, kms.MaxPlaintext+1), nil); err == nil {
		t.Error("one byte more: got no error")
	}
	wantErr(t, "a large blob", b.decrypt(k, make([]byte, kms.MaxBlob+1), nil), kms.ErrCiphertext)
}

// New material encrypts; what the old has encrypted still decrypts.
func TestRotation(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	blobs := [][]byte{b.encrypt(k, nil)}
	for range kms.MaxOnDemand {
		b.must(b.Rotate(ctx, k.ID))
		blobs = append(blobs, b.encrypt(k, nil))
	}
	wantErr(t, "once too often", b.Rotate(ctx, k.ID), kms.ErrLimit)
	for i, blob := range blobs {
		wantErr(t, fmt.Sprint("version ", i+1), b.decrypt(b.reread(k), blob, nil), nil)
		if got := int(blob[23]); got != i+1 {
			t.Errorf("got version %d, want %d", got, i+1)
		}
	}
	// Nobody can have an old ciphertext opened with newer material, or the reverse.
	forged := bytes.Clone(blobs[0])
	forged[23] = 2
	wantErr(t, "another version", b.decrypt(b.reread(k), forged, nil), kms.ErrCiphertext)
}

func TestRotationByItself(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	b.must(b.SetRotation(ctx, k.ID, 90))
	var noted []string
	tend := func() {
		t.Helper()
		b.must(b.Tend(ctx, func(_ context.Context, action string, k kms.Key) error {
			noted = append(noted, action+" "+k.ID)
			return nil
		}))
	}
	b.now = b.now.AddDate(0, 0, 90).Add(-time.Second)
	tend()
	b.now = b.now.Add(time.Second)
	tend()
	tend()
	if diff := cmp.Diff([]string{kms.ActionRotate + " " + k.ID}, noted); diff != "" {
		t.Errorf("what was due (-want +got):\n%s", diff)
	}
	if k := b.reread(k); k.Version != 2 || !k.NextRotation().Equal(b.now.AddDate(0, 0, 90)) {
		t.Errorf("got %+v", k)
	}
}

// What is not Enabled neither encrypts nor decrypts.
func TestStates(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	blob := b.encrypt(k, nil)
	refuses := func(what string, want error) {
		t.Helper()
		now := b.reread(k)
		_, err := b.Encrypt(ctx, now, nil, nil)
		wantErr(t, what+", to encrypt", err, want)
		_, _, err = b.DataKey(ctx, now, 64, nil)
		wantErr(t, what+", for data keys", err, want)
		wantErr(t, what+", to decrypt", b.decrypt(now, blob, nil), want)
		wantErr(t, what+", to rotate", b.Rotate(ctx, k.ID), want)
	}
	b.must(b.SetEnabled(ctx, k.ID, false))
	refuses("disabled", kms.ErrDisabled)
	wantErr(t, "deletion that nobody wanted", b.CancelDeletion(ctx, k.ID), kms.ErrState)
	deleted, err := b.ScheduleDeletion(ctx, k.ID, 7)
	b.must(err)
	if !deleted.Deletion.Equal(b.now.AddDate(0, 0, 7)) {
		t.Errorf("got deletion at %v", deleted.Deletion)
	}
	refuses("pending deletion", kms.ErrState)
	wantErr(t, "enabling it", b.SetEnabled(ctx, k.ID, true), kms.ErrState)
	_, err = b.ScheduleDeletion(ctx, k.ID, 30)
	wantErr(t, "drawing it out", err, kms.ErrState)
	wantErr(t, "naming it", b.CreateAlias(ctx, "alias/x", k.ID), kms.ErrState)
	b.must(b.CancelDeletion(ctx, k.ID))
	refuses("kept", kms.ErrDisabled)
	b.must(b.SetEnabled(ctx, k.ID, true))
	wantErr(t, "enabled", b.decrypt(b.reread(k), blob, nil), nil)
}

// When its time has come a key is gone, whether or not anybody has removed it yet; and
// what cannot be recorded is not removed.
func TestDeletion(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	blob := b.encrypt(k, nil)
	stale := b.reread(k) // as one who read it before would have it
	stale.State, stale.Deletion = kms.PendingDeletion, b.now.AddDate(0, 0, 7)
	_, err := b.ScheduleDeletion(ctx, k.ID, 7)
	b.must(err)
	b.now = b.now.AddDate(0, 0, 7)
	_, err = b.Key(ctx, k.ID)
	wantErr(t, "the key", err, kms.ErrNotFound)
	wantErr(t, "keeping it", b.CancelDeletion(ctx, k.ID), kms.ErrNotFound)
	unaudited := errors.New("audit log is away")
	wantErr(t, "unrecorded", b.Tend(ctx, func(context.Context, string, kms.Key) error { return unaudited }), unaudited)
	if _, err := b.store.KMSMaterial(ctx, k.ID, 1); err != nil {
		t.Errorf("its material went without a record: %v", err)
	}
	b.must(b.Tend(ctx, func(context.Context, string, kms.Key) error { return nil }))
	_, err = b.store.KMSMaterial(ctx, k.ID, 1)
	wantErr(t, "its material", err, kms.ErrNotFound)
	stale.State = kms.Enabled
	wantErr(t, "for who read it before", b.decrypt(stale, blob, nil), kms.ErrCiphertext)
}

func TestAliases(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k := b.create()
	b.must(b.CreateAlias(ctx, "alias/shells", k.ID))
	found, err := b.Key(ctx, "alias/shells")
	if err != nil || found.ID != k.ID {
		t.Errorf("got %+v, %v", found, err)
	}
	for name, want := range map[string]bool{
		"alias/shells": true, "alias/a/b_c-D": true, "alias/": false, "shells": false, "alias/aws/ssm": false,
		"alias/a b": false, "alias/" + strings.Repeat("x", 251): false, "alias/ä": false,
	} {
		if got := kms.IsAliasName(name); got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
	for _, name := range []string{"", "x", "alias/none", k.ID + "0", strings.ToUpper(k.ID), "../" + k.ID} {
		if _, err := b.Key(ctx, name); !errors.Is(err, kms.ErrNotFound) {
			t.Errorf("%q: got %v, want %v", name, err, kms.ErrNotFound)
		}
	}
}

// Without the master key the store's contents open nothing; moved material neither.
func TestStolenStore(t *testing.T) {
	b, ctx := newBench(t), context.Background()
	k, other := b.create(), b.create()
	blob, err := kms.ParseBlob(b.encrypt(k, nil))
	b.must(err)
	if _, err := b.keeper(8).Decrypt(ctx, k, blob, nil); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("with another master key: got %v, want %v", err, seal.ErrOpen)
	}
	m, err := b.store.KMSMaterial(ctx, other.ID, 1)
	b.must(err)
	b.must(b.store.UpdateKMSKey(ctx, k.ID, func(k *kms.Key) (*kms.Material, error) {
		k.Version = 2
		return &kms.Material{KeyID: k.ID, Version: 2, Sealed: m.Sealed}, nil
	}))
	if _, err := b.Encrypt(ctx, b.reread(k), []byte("x"), nil); !errors.Is(err, seal.ErrOpen) {
		t.Errorf("with another key's material: got %v, want %v", err, seal.ErrOpen)
	}
}

func FuzzParseBlob(f *testing.F) {
	b := newBench(f)
	k := b.create()
	f.Add(b.encrypt(k, nil), "session")
	f.Add([]byte("SpK\x01"), "")
	f.Add([]byte{}, "x")
	good := b.encrypt(k, kms.Context{"s": "session"})
	f.Fuzz(func(t *testing.T, raw []byte, session string) {
		blob, err := kms.ParseBlob(raw)
		if err != nil {
			return
		}
		if !kms.IsKeyID(blob.KeyID) {
			t.Errorf("%q is no key's id", blob.KeyID)
		}
		_, err = b.Decrypt(context.Background(), k, blob, kms.Context{"s": session})
		if err == nil && !(bytes.Equal(raw, good) && session == "session") {
			t.Errorf("%x opens with %q", raw, session)
		}
	})
}
