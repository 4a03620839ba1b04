package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// Dir are objects in a folder, each a file of its name. Its files are 0600, and appear
// whole or not at all.
type Dir string

// Under returns the objects of a folder that holds checkpoints: the one that Folder is
// in, as of a recording store, or what would be in Folder itself.
func Under(folder string) Objects {
	if _, err := os.Stat(filepath.Join(folder, filepath.FromSlash(Folder))); err == nil {
		return Dir(folder)
	}
	return bare{Dir(folder)}
}

// bare are the objects of Folder alone.
type bare struct{ Dir }

// Get implements Objects.
func (b bare) Get(ctx context.Context, name string) ([]byte, error) {
	return b.Dir.Get(ctx, strings.TrimPrefix(name, Folder))
}

// List implements Objects.
func (b bare) List(ctx context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for name, err := range b.Dir.List(ctx, strings.TrimPrefix(prefix, Folder)) {
			if !yield(Folder+name, err) {
				return
			}
		}
	}
}

// Put implements Objects.
func (d Dir) Put(_ context.Context, name string, data []byte) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q is not a name inside of a folder", name)
	}
	file := filepath.Join(string(d), filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(file), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(temp.Name()) // once renamed, it is not there
	_, err = temp.Write(data)
	if err := errors.Join(err, temp.Sync(), temp.Close()); err != nil {
		return err
	}
	return os.Rename(temp.Name(), file)
}

// Get implements Objects.
func (d Dir) Get(_ context.Context, name string) ([]byte, error) {
	if !filepath.IsLocal(name) {
		return nil, fmt.Errorf("%q is not a name inside of a folder", name)
	}
	f, err := os.Open(filepath.Join(string(d), filepath.FromSlash(name)))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxText+1))
	if err == nil && len(text) > MaxText {
		err = fmt.Errorf("%s %w", name, ErrSize)
	}
	return text, err
}

// List implements Objects.
func (d Dir) List(_ context.Context, prefix string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		folder, base := path.Split(prefix)
		entries, err := os.ReadDir(filepath.Join(string(d), filepath.FromSlash(folder)))
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if err != nil {
			yield("", err)
			return
		}
		for _, e := range entries {
			name := e.Name()
			if e.IsDir() || strings.HasPrefix(name, ".new-") || !strings.HasPrefix(name, base) {
				continue
			}
			if !yield(folder+name, nil) {
				return
			}
		}
	}
}
