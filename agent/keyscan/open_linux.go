package keyscan

import (
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// open opens a regular file for reading. Where its name is a link, the file must be the
// user's, or one that everybody may read. What it is is looked at before it is opened, and
// cannot change in between.
func open(path string, uid uint32) (*os.File, error) {
	fd, st, err := look(path, unix.O_NOFOLLOW)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(fd) }()
	if st.Mode&unix.S_IFMT == unix.S_IFLNK {
		unix.Close(fd)
		if fd, st, err = look(path, 0); err != nil {
			return nil, err
		}
		if st.Uid != uid && st.Mode&unix.S_IROTH == 0 {
			return nil, errOdd
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, errOdd
	}
	return os.OpenFile("/proc/self/fd/"+strconv.Itoa(fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
}

// look finds a file without opening it.
func look(path string, flags int) (fd int, st unix.Stat_t, err error) {
	if fd, err = unix.Open(path, unix.O_PATH|unix.O_CLOEXEC|flags, 0); err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, st, err
	}
	return fd, st, nil
}
