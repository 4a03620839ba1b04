package evidence

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
)

// maxManifest bounds the manifest of a recording, in bytes.
const maxManifest = 64 << 20

// errDigest is of an object that is not what it was.
var errDigest = errors.New("does not have the digest noted")

// Check compares a recording with its digests in a copy of the recording store: its
// manifest, and by that each of its chunks. They are sealed, and no key is needed. The
// error is fs.ErrNotExist where the copy does not have it.
func (r *Recording) Check(store fs.FS) error {
	text, err := readObject(store, path.Join(r.Name, "manifest.json"), maxManifest)
	if err != nil {
		return err
	}
	if sum := sha256.Sum256(text); hex.EncodeToString(sum[:]) != r.Manifest {
		return fmt.Errorf("recording %s: manifest.json %w", r.Name, errDigest)
	}
	var manifest struct {
		Chunks []struct {
			Name, SHA256 string
			Size         int64
		}
	}
	if err := json.Unmarshal(text, &manifest); err != nil {
		return fmt.Errorf("recording %s: manifest.json: %w", r.Name, err)
	}
	for _, c := range manifest.Chunks {
		if err := checkChunk(store, path.Join(r.Name, c.Name), c.SHA256, c.Size); err != nil {
			return fmt.Errorf("recording %s: %s %w", r.Name, c.Name, err)
		}
	}
	return nil
}

func readObject(store fs.FS, name string, limit int64) ([]byte, error) {
	f, err := store.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, limit+1)); err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(b.Len()) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return b.Bytes(), nil
}

func checkChunk(store fs.FS, name, sum string, size int64) error {
	f, err := store.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return errors.New("is missing")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha256.New()
	n, err := io.Copy(digest, io.LimitReader(f, size+1))
	if err != nil {
		return err
	}
	if n != size || hex.EncodeToString(digest.Sum(nil)) != sum {
		return errDigest
	}
	return nil
}
