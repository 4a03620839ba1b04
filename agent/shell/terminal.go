package shell

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

// Terminal is what a session's terminal is to be like.
type Terminal struct {
	Term  string // kind, for TERM; xterm-256color if empty or not a name
	Size  Size   // 80 × 24 if zero
	Modes []byte // as RFC 4254 §8 encodes them; what is unknown is passed over
}

const defaultTerm = "xterm-256color"

// termForm keeps paths, which libraries would read descriptions from, out of TERM.
var termForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+-]{0,63}$`)

func (t Terminal) name() string {
	if !termForm.MatchString(t.Term) {
		return defaultTerm
	}
	return t.Term
}

// prepareTTY sizes the terminal, sets its modes and gives it to the user, whose programs
// may open it again by name.
func prepareTTY(master, slave *os.File, u User, t Terminal) error {
	size := t.Size
	if size.Cols == 0 || size.Rows == 0 {
		size = defaultSize
	}
	if err := setSize(master, size); err != nil {
		return fmt.Errorf("sizing the terminal: %w", err)
	}
	if len(t.Modes) > 0 {
		if err := setModes(slave, t.Modes); err != nil {
			return fmt.Errorf("setting the terminal's modes: %w", err)
		}
	}
	if !u.Switch {
		return nil
	}
	return ownTTY(slave, u)
}

// ownTTY makes the terminal the user's. Others may write to it through programs of the
// group tty only (write, wall); without that group not at all.
func ownTTY(slave *os.File, u User) error {
	gid, mode := int(u.GID), os.FileMode(0o600)
	if g, err := user.LookupGroup("tty"); err == nil {
		if n, err := strconv.Atoi(g.Gid); err == nil {
			gid, mode = n, 0o620
		}
	}
	if err := os.Chown(slave.Name(), int(u.UID), gid); err != nil {
		return fmt.Errorf("handing over the terminal: %w", err)
	}
	if err := os.Chmod(slave.Name(), mode); err != nil {
		return fmt.Errorf("handing over the terminal: %w", err)
	}
	return nil
}

// Opcodes of RFC 4254 §8 with a meaning of their own.
const (
	modeEnd       = 0
	firstReserved = 160 // and beyond: their arguments are of unknown length
)

// setModes applies modes as an SSH client sends them: an opcode and an unsigned 32-bit
// number each, to opcode 0, the end, or one of unknown length.
func setModes(tty *os.File, modes []byte) error {
	fd := int(tty.Fd())
	t, err := unix.IoctlGetTermios(fd, getTermios)
	if err != nil {
		return err
	}
	applyModes(t, modes)
	return unix.IoctlSetTermios(fd, setTermios, t)
}

func applyModes(t *unix.Termios, modes []byte) {
	for len(modes) >= 5 && modes[0] != modeEnd && modes[0] < firstReserved {
		applyMode(t, modes[0], binary.BigEndian.Uint32(modes[1:]))
		modes = modes[5:]
	}
}

// noCharacter switches a control character off (RFC 4254 §8: 255).
const noCharacter = 255

func applyMode(t *unix.Termios, op byte, v uint32) {
	if i, ok := controlCharacters[op]; ok {
		if v == noCharacter {
			v = 0 // _POSIX_VDISABLE on Linux
		}
		t.Cc[i] = byte(v)
		return
	}
	m, ok := modeFlags[op]
	if !ok {
		return
	}
	flags := m.of(t)
	*flags &^= m.mask
	if v != 0 {
		*flags |= m.bits
	}
}
