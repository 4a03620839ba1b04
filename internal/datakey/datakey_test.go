package datakey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"testing"
)

func testKey(t testing.TB) (*Key, []byte) {
	t.Helper()
	raw := make([]byte, Size)
	for i := range raw {
		raw[i] = byte(i)
	}
	k, err := New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return k, raw
}

// What travels is what AWS's programs read: nonce, ciphertext, tag.
func TestForm(t *testing.T) {
	k, raw := testKey(t)
	for _, fromAgent := range []bool{true, false} {
		sealed := k.Seal(fromAgent, []byte("uptime\n"))
		half := raw[:32]
		if !fromAgent {
			half = raw[32:]
		}
		block, err := aes.NewCipher(half)
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		clear, err := gcm.Open(nil, sealed[:12], sealed[12:], nil)
		if err != nil || string(clear) != "uptime\n" {
			t.Errorf("from the agent %v: got %q, %v", fromAgent, clear, err)
		}
		nonce := bytes.Repeat([]byte{9}, 12)
		clear, err = k.Open(fromAgent, append(nonce[:12:12], gcm.Seal(nil, nonce, []byte("x"), nil)...))
		if err != nil || string(clear) != "x" {
			t.Errorf("from the agent %v: got %q, %v", fromAgent, clear, err)
		}
		if _, err := k.Open(!fromAgent, sealed); !errors.Is(err, ErrOpen) {
			t.Errorf("a payload sent back: got %v, want %v", err, ErrOpen)
		}
	}
}

func TestWrongLengths(t *testing.T) {
	for _, n := range []int{0, 32, 63, 65} {
		if _, err := New(make([]byte, n)); err == nil {
			t.Errorf("%d bytes: got no error", n)
		}
	}
}

func FuzzOpen(f *testing.F) {
	k, _ := testKey(f)
	f.Add(k.Seal(true, []byte("x")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, payload []byte) {
		if clear, err := k.Open(true, payload); err == nil && len(clear) != len(payload)-Overhead {
			t.Errorf("got %d bytes of %d", len(clear), len(payload))
		}
		if back, err := k.Open(false, k.Seal(false, payload)); err != nil || !bytes.Equal(back, payload) {
			t.Errorf("got %q, %v, want %q", back, err, payload)
		}
	})
}
