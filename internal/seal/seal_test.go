package seal

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

func newKey(t testing.TB) *Key {
	t.Helper()
	k, err := New(Generate())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSealAndOpen(t *testing.T) {
	k := newKey(t)
	for _, plain := range []string{"", "x", strings.Repeat("secret ", 1000)} {
		sealed := k.Seal("access-key", []byte(plain), []byte("AKIA1"))
		if len(sealed) != len(plain)+Overhead {
			t.Errorf("sealed %d bytes: got length %d, want %d", len(plain), len(sealed), len(plain)+Overhead)
		}
		got, err := k.Open("access-key", sealed, []byte("AKIA1"))
		if err != nil || string(got) != plain {
			t.Errorf("open: got %q, %v, want %q", got, err, plain)
		}
	}
}

func TestSealIsNotDeterministic(t *testing.T) {
	k := newKey(t)
	if bytes.Equal(k.Seal("p", []byte("same"), nil), k.Seal("p", []byte("same"), nil)) {
		t.Error("sealing the same plaintext twice gave the same bytes")
	}
}

func TestOpenRefuses(t *testing.T) {
	k := newKey(t)
	sealed := k.Seal("channel-token", []byte("session-1"), []byte("client"))
	tests := []struct {
		name             string
		key              *Key
		purpose, context string
		sealed           []byte
	}{
		{"another purpose", k, "session-token", "client", sealed},
		{"another context", k, "channel-token", "agent", sealed},
		{"no context", k, "channel-token", "", sealed},
		{"another master key", newKey(t), "channel-token", "client", sealed},
		{"nothing", k, "channel-token", "client", nil},
		{"one byte", k, "channel-token", "client", sealed[:1]},
		{"nonce only", k, "channel-token", "client", sealed[:25]},
		{"cut by one byte", k, "channel-token", "client", sealed[:len(sealed)-1]},
		{"one byte more", k, "channel-token", "client", append(bytes.Clone(sealed), 0)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.key.Open(tt.purpose, tt.sealed, []byte(tt.context))
			if !errors.Is(err, ErrOpen) || got != nil {
				t.Errorf("got %q, %v, want ErrOpen", got, err)
			}
		})
	}
}

func TestOpenRefusesEveryFlippedBit(t *testing.T) {
	k := newKey(t)
	sealed := k.Seal("p", []byte("do not touch"), nil)
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := k.Open("p", bad, nil); !errors.Is(err, ErrOpen) {
			t.Fatalf("bit %d flipped: got %v, want ErrOpen", i, err)
		}
	}
}

func TestNewRefusesOtherLengths(t *testing.T) {
	for _, n := range []int{0, 16, 31, 33} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("%d bytes: got no error", n)
		}
	}
}

func TestKeyDoesNotPrint(t *testing.T) {
	raw := Generate()
	k, err := New(raw)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, k); got != "seal.Key(secret)" {
			t.Errorf("%s: got %q", format, got)
		}
	}
}

func TestLoadOrCreateKeepsItsKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	first, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode of key file: got %04o, want 0600", got)
	}
	again, err := LoadOrCreate(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Open("p", first.Seal("p", []byte("x"), nil), nil); err != nil {
		t.Errorf("opening with the reloaded key: %v", err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("files left behind: got %v, %v, want the key alone", entries, err)
	}
}

func TestLoadOrCreateAtOnceGivesOneKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "master.key")
	keys := make([]*Key, 20)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			k, err := LoadOrCreate(path)
			if err != nil {
				t.Error(err)
			}
			keys[i] = k
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for i, k := range keys {
		if k.master != keys[0].master {
			t.Fatalf("goroutine %d got another key", i)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	good := strings.Repeat("ab", KeySize) + "\n"
	tests := []struct {
		name, content string
		mode          os.FileMode
		want          string
	}{
		{"readable by the group", good, 0o640, "has mode 0640, so others can reach it: it must be 0600"},
		{"readable by all", good, 0o604, "has mode 0604"},
		{"writable by all", good, 0o602, "has mode 0602"},
		{"empty", "", 0o600, "must hold 64 hexadecimal digits"},
		{"too short", "abcd", 0o600, "must hold 64 hexadecimal digits"},
		{"too long", good + good, 0o600, "must hold 64 hexadecimal digits"},
		{"not hexadecimal", strings.Repeat("zz", KeySize), 0o600, "must hold 64 hexadecimal digits"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "master.key")
			if err := os.WriteFile(path, []byte(tt.content), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			_, err := LoadOrCreate(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
			if err != nil && tt.content != "" && strings.Contains(err.Error(), strings.TrimSpace(tt.content)) {
				t.Errorf("the error shows the file's content: %v", err)
			}
			if got, _ := os.ReadFile(path); string(got) != tt.content {
				t.Error("the refused file was changed")
			}
		})
	}
}

func TestLoadRefusesADirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "master.key")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadOrCreate(dir); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("got %v, want a refusal", err)
	}
}

func FuzzOpen(f *testing.F) {
	k, err := New(make([]byte, KeySize))
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte{})
	f.Add(k.Seal("p", []byte("seed"), nil)[:40])
	f.Fuzz(func(t *testing.T, sealed []byte) {
		if _, err := k.Open("fuzz", sealed, nil); err == nil {
			t.Fatalf("opened a forged value %x", sealed)
		}
	})
}

func BenchmarkOpen(b *testing.B) {
	k := newKey(b)
	sealed := k.Seal("session-token", make([]byte, 300), nil)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := k.Open("session-token", sealed, nil); err != nil {
			b.Fatal(err)
		}
	}
}
