package evidence

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"
)

// A copy of the recording store shows whether a recording is what the file says.
func TestRecordingCheck(t *testing.T) {
	chunk := []byte("sealed bytes")
	manifest := []byte(fmt.Sprintf(`{"chunks":[{"name":"000001.chunk","size":%d,"sha256":"%s"}]}`, len(chunk), hexSum(chunk)))
	r := Recording{Name: "2026/11/20/alice-1", Manifest: hexSum(manifest)}
	for _, c := range []struct {
		name, manifest, chunk string
		want                  string // "" for whole, "-" for not there
	}{
		{"whole", string(manifest), string(chunk), ""},
		{"not there", "", "", "-"},
		{"another manifest", strings.Replace(string(manifest), "1", "2", 1), string(chunk), "manifest.json does not have the digest noted"},
		{"a byte of a chunk", string(manifest), "sealed bytez", "000001.chunk does not have the digest noted"},
		{"a longer chunk", string(manifest), string(chunk) + "x", "000001.chunk does not have the digest noted"},
		{"a chunk is gone", string(manifest), "", "000001.chunk is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			store := fstest.MapFS{}
			for name, text := range map[string]string{"manifest.json": c.manifest, "000001.chunk": c.chunk} {
				if text != "" {
					store[r.Name+"/"+name] = &fstest.MapFile{Data: []byte(text)}
				}
			}
			err := r.Check(store)
			switch {
			case c.want == "-" && !errors.Is(err, fs.ErrNotExist), c.want == "" && err != nil:
				t.Errorf("got %v", err)
			case len(c.want) > 1 && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

// A name that leads out of the copy opens nothing.
func TestRecordingCheckStaysInside(t *testing.T) {
	for _, name := range []string{"../../etc", "/etc", "a/../../b"} {
		r := Recording{Name: name}
		if err := r.Check(fstest.MapFS{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
