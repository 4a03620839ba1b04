package archive

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
	"sync"
	"sync/atomic"
)

const (
	trashFolder   = ".trash"
	damagedFolder = ".damaged"
	journalObject = "journal"
	lateObject    = "late"
	lockName      = ".lock"
	probeName     = ".probe"
	temporary     = ".new"
)

// spool is the folder in which recordings wait for the store: a folder for each, with the
// objects that the store does not have yet, key.json, a journal and marks. Folders have mode
// 0700, files 0600. Names cannot lead out of it, through symbolic links neither.
type spool struct {
	dir   string
	root  *os.Root
	lock  *os.File
	bytes atomic.Int64 // of all files of recordings

	days sync.RWMutex // held for writing while a day's folder goes
}

func openSpool(dir string) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the spool of recordings: %w", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the spool of recordings: %w", err)
	}
	s := &spool{dir: dir, root: root}
	if err := s.take(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the spool of recordings %s: %w", dir, err), root.Close())
	}
	return s, nil
}

// LockSpool keeps a member from starting with a spool until unlock, or fails if one runs with
// it. The folder is made if need be.
func LockSpool(dir string) (unlock func() error, err error) {
	s, err := openSpool(dir)
	if err != nil {
		return nil, err
	}
	return s.close, nil
}

// take locks the folder against another process, and clears away what was thrown away.
func (s *spool) take() (err error) {
	if s.lock, err = s.root.OpenFile(lockName, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := lockFile(s.lock); err != nil {
		return errors.Join(fmt.Errorf("another process has it: %w", err), s.lock.Close())
	}
	if err := s.root.RemoveAll(trashFolder); err != nil {
		return errors.Join(err, s.lock.Close())
	}
	return nil
}

func (s *spool) close() error { return errors.Join(s.lock.Close(), s.root.Close()) }

// names lists the recordings in the spool, and counts their bytes.
func (s *spool) names() (names []string, err error) {
	s.bytes.Store(0)
	err = fs.WalkDir(s.root.FS(), ".", func(file string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && strings.HasPrefix(file, ".") && file != ".":
			return fs.SkipDir
		case d.IsDir() && CheckName(file) == nil:
			names = append(names, file)
		case d.Type().IsRegular():
			if info, err := d.Info(); err == nil {
				s.bytes.Add(info.Size())
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the spool of recordings: %w", err)
	}
	return names, nil
}

// create makes the folder of a recording. It never takes over another's.
func (s *spool) create(name string) error {
	s.days.RLock() // the day's folder must not go, as its last recording is stored
	defer s.days.RUnlock()
	err := s.root.MkdirAll(path.Dir(name), 0o700)
	if err == nil {
		err = s.root.Mkdir(name, 0o700)
	}
	if err != nil {
		return fmt.Errorf("making the recording's folder: %w", err)
	}
	return nil
}

// write writes an object whole: after a crash it is there or not.
func (s *spool) write(name, object string, b []byte) error {
	to := path.Join(name, object)
	f, err := s.root.OpenFile(to+temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("writing %s: %w", object, err)
	}
	_, err = f.Write(b)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.root.Rename(to+temporary, to)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing %s: %w", object, err), s.root.Remove(to+temporary))
	}
	s.bytes.Add(int64(len(b)))
	return nil
}

// append opens a file for writing at its end.
func (s *spool) append(name, object string) (*os.File, error) {
	return s.root.OpenFile(path.Join(name, object), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
}

// read returns n bytes of an object from an offset, or fewer at its end. The error is
// fs.ErrNotExist where it is not here.
func (s *spool) read(name, object string, offset, n int64) ([]byte, error) {
	f, err := s.root.Open(path.Join(name, object))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no file", object)
	}
	b := make([]byte, min(n, max(0, info.Size()-offset)))
	read, err := f.ReadAt(b, offset)
	if err != nil && err != io.EOF {
		return nil, err
	}
	return b[:read], nil
}

// sync makes objects outlive the machine's power, those that are there.
func (s *spool) sync(name string, objects ...string) error {
	for _, o := range objects {
		f, err := s.root.Open(path.Join(name, o))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", o, err)
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("writing %s: %w", o, err)
		}
	}
	return nil
}

// cut shortens an object.
func (s *spool) cut(name, object string, size int64) error {
	f, err := s.root.OpenFile(path.Join(name, object), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err == nil {
		err = f.Truncate(size)
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	s.bytes.Add(size - info.Size())
	return nil
}

// objects lists the files of a recording, with their sizes.
func (s *spool) objects(name string) (map[string]int64, error) {
	entries, err := fs.ReadDir(s.root.FS(), name)
	if err != nil {
		return nil, err
	}
	objects := map[string]int64{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil { // or it has gone to the store
			objects[e.Name()] = info.Size()
		}
	}
	return objects, nil
}

// hasChunkAfter reports whether one of a recording's objects is a chunk behind that of the
// number.
func hasChunkAfter(objects map[string]int64, n int) bool {
	for o := range objects {
		if chunkNumber(o) > n {
			return true
		}
	}
	return false
}

// remove removes an object that the store has.
func (s *spool) remove(name, object string) error {
	file := path.Join(name, object)
	info, err := s.root.Stat(file)
	if err == nil {
		err = s.root.Remove(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("removing %s from the spool: %w", object, err)
	}
	s.bytes.Add(-info.Size())
	return nil
}

// drop removes a recording that the store has, at once: a crash leaves all or nothing.
func (s *spool) drop(name string) error {
	trash, err := s.takeOut(name, trashFolder)
	if err != nil {
		return err
	}
	_ = s.root.RemoveAll(trash) // or the next start does it
	return nil
}

// putAside puts a recording where an administrator finds it.
func (s *spool) putAside(name string) error {
	_, err := s.takeOut(name, damagedFolder)
	return err
}

// takeOut moves a recording to another folder of the spool, and tells where it is there.
func (s *spool) takeOut(name, folder string) (to string, err error) {
	size := int64(0)
	objects, _ := s.objects(name)
	for _, n := range objects {
		size += n
	}
	if err := s.root.MkdirAll(folder, 0o700); err != nil {
		return "", fmt.Errorf("removing from the spool: %w", err)
	}
	to = path.Join(folder, path.Base(name)+"-"+rand.Text())
	if err := s.root.Rename(name, to); err != nil {
		return "", fmt.Errorf("removing from the spool: %w", err)
	}
	s.bytes.Add(-size)
	s.removeDays(path.Dir(name))
	return to, nil
}

// removeDays removes the folders of a day, a month and a year that are empty.
func (s *spool) removeDays(day string) {
	s.days.Lock()
	defer s.days.Unlock()
	for ; day != "." && s.root.Remove(day) == nil; day = path.Dir(day) {
	}
}

// keepDamaged puts what was cut off a damaged file where an administrator finds it.
func (s *spool) keepDamaged(name, object string, b []byte) error {
	if err := s.root.MkdirAll(damagedFolder, 0o700); err != nil {
		return err
	}
	return s.root.WriteFile(path.Join(damagedFolder, path.Base(name)+"-"+object), b, 0o600)
}

// ready tells what keeps the spool from being written: it writes a file, and removes it.
func (s *spool) ready() error {
	err := s.root.WriteFile(probeName, []byte("probe\n"), 0o600)
	if err == nil {
		err = s.root.Remove(probeName)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("writing to the spool of recordings: %w", err)
	}
	if _, statErr := os.Stat(s.dir); statErr != nil {
		return fmt.Errorf("writing to the spool of recordings: %w", statErr)
	}
	return nil
}
