//go:build unix

package keysync

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// The folder of a file may belong to a user who would like the agent, which is root, to
// write somewhere else. So everything below happens relative to a folder that is open,
// no name in it is followed if it is a link, and rights are changed on what is open and
// was made here.

const (
	openFolder = unix.O_RDONLY | unix.O_DIRECTORY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	backup     = ".before-sallyport"
	// othersWrite are the rights that sshd's StrictModes forbids.
	othersWrite = 0o022
)

// place makes the file hold text, and reports whether it did not. One that is not ours
// is kept beside it once. Where text is not complete, a file that is there stays.
func place(path string, a Account, text []byte, complete bool) (changed bool, err error) {
	d, name, err := folderOf(path, a)
	if err != nil {
		return false, err
	}
	defer d.Close()
	old, ours, err := d.read(name)
	switch {
	case err != nil:
		return false, err
	case old != nil && !complete:
		return false, nil
	case ours && bytes.Equal(old, text):
		return false, nil
	}
	if old != nil && !bytes.HasPrefix(old, []byte(header)) {
		// A link keeps the old file under a second name; one that is there stays.
		if err := unix.Linkat(d.fd(), name, d.fd(), name+backup, 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return false, fmt.Errorf("keeping %s: %w", filepath.Join(d.Name(), name), err)
		}
	}
	if err := d.replace(name, text); err != nil {
		return false, fmt.Errorf("writing %s: %w", filepath.Join(d.Name(), name), err)
	}
	return true, nil
}

// folder is an open folder and whose files are in it.
type folder struct {
	*os.File
	uid, gid int
	mode     uint32 // of files
}

func (d folder) fd() int { return int(d.Fd()) }

// folderOf opens the folder of a file: that of path, or, if it is empty, .ssh in the
// account's home, which is made if need be.
func folderOf(path string, a Account) (folder, string, error) {
	if path != "" {
		f, err := openTrusted(filepath.Dir(path))
		if err != nil {
			return folder{}, "", err
		}
		d, err := a.folder(f)
		return d, filepath.Base(path), err
	}
	home, err := openTrusted(a.Home)
	if err != nil {
		return folder{}, "", err
	}
	defer home.Close()
	if _, err := a.checkFolder(home); err != nil {
		return folder{}, "", err
	}
	f, err := a.dotSSH(home)
	if err != nil {
		return folder{}, "", err
	}
	d, err := a.folder(f)
	return d, "authorized_keys", err
}

// folder takes over an open folder whose owner and rights sshd would accept.
func (a Account) folder(f *os.File) (folder, error) {
	owner, err := a.checkFolder(f)
	if err != nil {
		f.Close()
		return folder{}, err
	}
	if owner == a.UID {
		return folder{f, a.UID, a.GID, 0o600}, nil
	}
	return folder{f, owner, -1, 0o644}, nil // root's: the user may read it
}

func (a Account) checkFolder(f *os.File) (owner int, err error) {
	st, err := stat(f)
	if err != nil {
		return 0, err
	}
	switch owner = int(st.Uid); {
	case owner != a.UID && owner != 0:
		return owner, fmt.Errorf("%s belongs to uid %d, neither to the user (uid %d) nor to root", f.Name(), owner, a.UID)
	case st.Mode&othersWrite != 0:
		return owner, fmt.Errorf("%s can be written by others (mode %04o): sshd would not accept keys in it", f.Name(), st.Mode&0o7777)
	}
	return owner, nil
}

// dotSSH opens .ssh in an open home, making it if need be.
func (a Account) dotSSH(home *os.File) (*os.File, error) {
	path := filepath.Join(home.Name(), ".ssh")
	made := unix.Mkdirat(int(home.Fd()), ".ssh", 0o700)
	if made != nil && !errors.Is(made, unix.EEXIST) {
		return nil, fmt.Errorf("making %s: %w", path, made)
	}
	fd, err := unix.Openat(int(home.Fd()), ".ssh", openFolder, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s, which must be a folder and no link: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), path)
	if err := a.own(f, made == nil); err != nil {
		f.Close()
		return nil, fmt.Errorf("securing %s: %w", path, err)
	}
	return f, nil
}

// own gives a new folder to the user, and takes rights to the user's own from others.
func (a Account) own(f *os.File, made bool) error {
	st, err := stat(f)
	if err != nil {
		return err
	}
	// Whoever swapped the folder that was just made gets nothing: only an empty one
	// of the agent's own changes hands.
	if made && int(st.Uid) == os.Geteuid() && a.UID != os.Geteuid() && empty(f) {
		if err := unix.Fchown(int(f.Fd()), a.UID, a.GID); err != nil {
			return err
		}
	}
	if int(st.Uid) == a.UID && st.Mode&0o077 != 0 {
		return unix.Fchmod(int(f.Fd()), 0o700)
	}
	return nil
}

func empty(folder *os.File) bool {
	_, err := folder.Readdirnames(1)
	return errors.Is(err, io.EOF)
}

// openTrusted opens a folder that nobody but root can have put in this place.
func openTrusted(path string) (*os.File, error) {
	path, err := resolveTrusted(path)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, openFolder, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

// maxLinks is how many links a path may lead through, as in Linux.
const maxLinks = 40

// resolveTrusted follows a path through folders and links that only root can have made.
func resolveTrusted(path string) (string, error) {
	at, rest := "/", strings.Split(path, "/")
	for links := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		if name == "" || name == "." {
			continue
		}
		if name == ".." {
			at = filepath.Dir(at)
			continue
		}
		target, err := step(at, name)
		if err != nil {
			return "", err
		}
		if target == "" {
			at = filepath.Join(at, name)
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("%s leads through more than %d links", path, maxLinks)
		}
		if filepath.IsAbs(target) {
			at = "/"
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return at, nil
}

// step looks at a name in a folder, which must be trusted, and returns where it leads
// if it is a link.
func step(folder, name string) (target string, err error) {
	var st unix.Stat_t
	if err := unix.Lstat(folder, &st); err != nil {
		return "", fmt.Errorf("looking at %s: %w", folder, err)
	}
	if err := trusted(folder, &st); err != nil {
		return "", err
	}
	path := filepath.Join(folder, name)
	if err := unix.Lstat(path, &st); err != nil {
		return "", fmt.Errorf("looking at %s: %w", path, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		return "", nil
	}
	if owner := int(st.Uid); owner != 0 && owner != os.Geteuid() {
		return "", fmt.Errorf("the link %s belongs to uid %d, not to root", path, owner)
	}
	return os.Readlink(path)
}

// trusted accepts what belongs to root or to the agent's own user and what others
// cannot change; in a folder with the sticky bit they cannot replace what is not theirs.
func trusted(path string, st *unix.Stat_t) error {
	switch owner := int(st.Uid); {
	case owner != 0 && owner != os.Geteuid():
		return fmt.Errorf("%s belongs to uid %d, not to root", path, owner)
	case st.Mode&othersWrite != 0 && st.Mode&unix.S_ISVTX == 0:
		return fmt.Errorf("%s can be written by others (mode %04o)", path, st.Mode&0o7777)
	}
	return nil
}

func trustedFile(f *os.File) error {
	st, err := stat(f)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fmt.Errorf("%s is not a regular file", f.Name())
	}
	return trusted(f.Name(), st)
}

func stat(f *os.File) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, fmt.Errorf("looking at %s: %w", f.Name(), err)
	}
	return &st, nil
}

// read returns the content of a file in the folder, nil if there is none, and whether
// its owner and rights are as they should be. A link, or anything else that is not a
// file, counts as a file that is not ours and is read as empty; it may be a pipe, which
// is not waited for.
func (d folder) read(name string) (text []byte, ours bool, err error) {
	fd, err := unix.Openat(d.fd(), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT):
		return nil, false, nil
	case errors.Is(err, unix.ELOOP):
		return []byte{}, false, nil
	case err != nil:
		return nil, false, fmt.Errorf("opening %s: %w", filepath.Join(d.Name(), name), err)
	}
	f := os.NewFile(uintptr(fd), filepath.Join(d.Name(), name))
	defer f.Close()
	st, err := stat(f)
	if err != nil {
		return nil, false, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > maxFile {
		return []byte{}, false, nil
	}
	ours = int(st.Uid) == d.uid && uint32(st.Mode)&0o7777 == d.mode && st.Nlink == 1
	text, err = readAtMost(f, maxFile)
	if text == nil {
		text = []byte{}
	}
	return text, ours, err
}

// replace puts a new file in the place of name, in one step.
func (d folder) replace(name string, text []byte) error {
	temporary := "." + name + "." + strconv.FormatUint(rand.Uint64(), 36)
	fd, err := unix.Openat(d.fd(), temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temporary)
	err = errors.Join(d.fill(f, text), f.Close())
	if err == nil {
		err = unix.Renameat(d.fd(), temporary, d.fd(), name)
	}
	if err != nil {
		return errors.Join(err, unix.Unlinkat(d.fd(), temporary, 0))
	}
	return d.Sync()
}

func (d folder) fill(f *os.File, text []byte) error {
	if d.uid != os.Geteuid() {
		if err := unix.Fchown(int(f.Fd()), d.uid, d.gid); err != nil {
			return err
		}
	}
	if err := unix.Fchmod(int(f.Fd()), d.mode); err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		return err
	}
	return f.Sync()
}
