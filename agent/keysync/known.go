package keysync

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"sallyport.dev/internal/authorizedkeys"
)

// known is what the server last said, kept in the state directory.
type known struct {
	Groups map[string]knownGroup `json:"groups"`
}

type knownGroup struct {
	Told time.Time            `json:"told"`
	Keys []authorizedkeys.Key `json:"keys"`
}

// saveEvery is how often the time at which the server last said the same is written.
const saveEvery = time.Minute

// set notes the keys of a group and reports whether that is to be saved.
func (n *known) set(group string, keys []authorizedkeys.Key, at time.Time) bool {
	if n.Groups == nil {
		n.Groups = map[string]knownGroup{}
	}
	old, told := n.Groups[group]
	same := told && slices.Equal(old.Keys, keys)
	if same && at.Sub(old.Told) < saveEvery && !at.Before(old.Told) {
		return false
	}
	n.Groups[group] = knownGroup{at, keys}
	return true
}

func (k *keeper) path() string {
	return filepath.Join(k.options.StateDir, "keys-"+k.config.Login+".json")
}

// load reads what an earlier run knew. Without it the file on the node stays as it is
// until the server has spoken.
func (k *keeper) load() {
	b, err := readTrusted(k.path(), maxFile)
	if err == nil {
		err = json.Unmarshal(b, &k.known)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.options.Logger.Warn("reading the copy of SSH keys", "login", k.config.Login, "error", err)
	}
}

// save replaces the copy in one step.
func (k *keeper) save() error {
	b, err := json.Marshal(k.known)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(k.options.StateDir, ".keys-*") // made with mode 0600
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), k.path())
}

func readAtMost(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("it has more than %d bytes", limit)
	}
	return b, err
}
