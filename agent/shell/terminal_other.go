//go:build unix && !linux

package shell

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TIOCGETA
	setTermios = unix.TIOCSETA
)

// modeFlag is the place of a mode: the bits that mean it, and those to clear before.
type modeFlag struct {
	of         func(*unix.Termios) *uint64
	mask, bits uint64
}

func inputFlag(bit uint64) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint64 { return &t.Iflag }, bit, bit}
}

func outputFlag(bit uint64) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint64 { return &t.Oflag }, bit, bit}
}

func localFlag(bit uint64) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint64 { return &t.Lflag }, bit, bit}
}

// controlCharacters are the opcodes of RFC 4254 §8 that set a character.
var controlCharacters = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
	18: unix.VDISCARD,
}

// modeFlags are the opcodes that switch something on and off.
var modeFlags = map[byte]modeFlag{
	30: inputFlag(unix.IGNPAR), 31: inputFlag(unix.PARMRK), 32: inputFlag(unix.INPCK), 33: inputFlag(unix.ISTRIP),
	34: inputFlag(unix.INLCR), 35: inputFlag(unix.IGNCR), 36: inputFlag(unix.ICRNL),
	38: inputFlag(unix.IXON), 39: inputFlag(unix.IXANY), 40: inputFlag(unix.IXOFF), 41: inputFlag(unix.IMAXBEL),

	50: localFlag(unix.ISIG), 51: localFlag(unix.ICANON), 53: localFlag(unix.ECHO), 54: localFlag(unix.ECHOE),
	55: localFlag(unix.ECHOK), 56: localFlag(unix.ECHONL), 57: localFlag(unix.NOFLSH), 58: localFlag(unix.TOSTOP),
	59: localFlag(unix.IEXTEN), 60: localFlag(unix.ECHOCTL), 61: localFlag(unix.ECHOKE),

	70: outputFlag(unix.OPOST), 72: outputFlag(unix.ONLCR),
}
