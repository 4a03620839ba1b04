package agent

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

const (
	stateFile = "registration.json"
	lockFile  = "lock"
	keyBits   = 2048
	maxState  = 64 << 10
)

// ErrNotRegistered is returned where there is no registration.
var ErrNotRegistered = errors.New("this machine is not registered")

// registration is the node's identity, kept in the state directory with mode 0600.
type registration struct {
	InstanceID  string    `json:"instanceId"`
	Region      string    `json:"region"`
	Fingerprint string    `json:"fingerprint"` // UUID that the server knows the machine by
	Registered  time.Time `json:"registered"`
	Machine     machine   `json:"machine"`
	PrivateKey  string    `json:"privateKey"` // base64 of PKCS #8 DER
	// NextKey is a key that the server may or may not have taken over yet: it is
	// written before the server is told, so that no answer lost can lock us out.
	NextKey string `json:"nextKey,omitempty"`
}

// loadRegistration reads the registration of a state directory.
func loadRegistration(dir string) (registration, error) {
	var r registration
	path := filepath.Join(dir, stateFile)
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return r, ErrNotRegistered
	}
	if err != nil {
		return r, fmt.Errorf("reading registration: %w", err)
	}
	if info.Size() > maxState {
		return r, fmt.Errorf("reading registration: %s is larger than %d bytes", path, maxState)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return r, fmt.Errorf("reading registration: %w", err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("reading registration %s: %w", path, err)
	}
	if !validID(r.InstanceID) {
		return r, fmt.Errorf("reading registration %s: %q is not a node id", path, r.InstanceID)
	}
	return r, nil
}

// save replaces the registration in one step: whatever happens, the old one or the
// new one is there.
func (r registration) save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	if err := writeFile(dir, stateFile, append(b, '\n')); err != nil {
		return fmt.Errorf("saving registration: %w", err)
	}
	return nil
}

func writeFile(dir, name string, b []byte) error {
	f, err := os.CreateTemp(dir, "."+name+"-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, name)); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// makeStateDir makes the directory, or takes back rights to it that others have.
func makeStateDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("making state directory: %w", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		return fmt.Errorf("securing state directory: %w", err)
	}
	return nil
}

func newKey() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, keyBits) }

func encodeKey(k *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k)
	return base64.StdEncoding.EncodeToString(der), err
}

func decodeKey(s string) (*rsa.PrivateKey, error) {
	der, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return nil, fmt.Errorf("decoding private key: %w", err)
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("decoding private key: %w", err)
	}
	rk, ok := k.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("decoding private key: not an RSA key")
	}
	return rk, nil
}

// publicKey returns base64 of the PKIX DER, as RegisterManagedInstance wants it.
func publicKey(k *rsa.PrivateKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	return base64.StdEncoding.EncodeToString(der), err
}

// Status is what a state directory says of a node, without secrets.
type Status struct {
	InstanceID  string    `json:"instanceId"`
	Region      string    `json:"region"`
	Fingerprint string    `json:"fingerprint"`
	Registered  time.Time `json:"registered"`
	// SameMachine reports whether this is the machine that was registered.
	SameMachine bool `json:"sameMachine"`
	// Running reports whether an agent uses the state directory now.
	Running bool `json:"running"`
}

// ReadStatus reads the status of the node whose state is in dir; ErrNotRegistered if
// there is none.
func ReadStatus(dir string) (Status, error) {
	dir = orDefault(dir, DefaultStateDir)
	r, err := loadRegistration(dir)
	if err != nil {
		return Status{}, err
	}
	return Status{
		InstanceID: r.InstanceID, Region: r.Region, Fingerprint: r.Fingerprint, Registered: r.Registered,
		SameMachine: r.Machine.same(readMachine()), Running: locked(dir),
	}, nil
}
