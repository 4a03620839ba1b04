package ca

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestIssuedCertificateVerifiesAgainstRoot(t *testing.T) {
	now := time.Now()
	a, err := Create(t.TempDir(), "test", now)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue([]string{"gw.example", "127.0.0.1"}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gw.example", "127.0.0.1"} {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: a.Pool()}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: "evil.example", Roots: a.Pool()}); err == nil {
		t.Error("a name that was not asked for verifies")
	}
}

func TestKeyIsPrivateAndStable(t *testing.T) {
	dir := t.TempDir()
	a, err := LoadOrCreate(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	b, err := LoadOrCreate(dir, "test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() != b.Fingerprint() {
		t.Error("loading again made another root")
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("ca.key has mode %o, want 600", got)
	}
	if _, err := Create(dir, "test", time.Now()); err == nil {
		t.Error("Create replaced an authority")
	}
}

func TestRenewal(t *testing.T) {
	start := time.Now()
	now := start
	a, err := Create(t.TempDir(), "test", now)
	if err != nil {
		t.Fatal(err)
	}
	config := a.ServerConfig([]string{"localhost"}, func() time.Time { return now })
	first, err := config.GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := config.GetCertificate(&tls.ClientHelloInfo{}); again != first {
		t.Error("a fresh certificate was replaced")
	}
	now = start.Add(leafLifetime - renewBefore + time.Hour)
	if renewed, _ := config.GetCertificate(&tls.ClientHelloInfo{}); renewed == first {
		t.Error("a certificate about to end was kept")
	}
}

// A root swapped for another, with the key left alone, must not be used.
func TestMismatchedKeyIsRefused(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	if _, err := Create(one, "one", time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(two, "two", time.Now()); err != nil {
		t.Fatal(err)
	}
	b, _ := os.ReadFile(filepath.Join(two, "ca.crt"))
	if err := os.WriteFile(filepath.Join(one, "ca.crt"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(one); err == nil {
		t.Error("Load took a certificate that is not the key's")
	}
}
