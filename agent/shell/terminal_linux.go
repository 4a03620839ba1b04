package shell

import "golang.org/x/sys/unix"

const (
	getTermios = unix.TCGETS
	setTermios = unix.TCSETS
)

// modeFlag is the place of a mode: the bits that mean it, and those to clear before.
type modeFlag struct {
	of         func(*unix.Termios) *uint32
	mask, bits uint32
}

func inputFlag(bit uint32) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint32 { return &t.Iflag }, bit, bit}
}

func outputFlag(bit uint32) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint32 { return &t.Oflag }, bit, bit}
}

func controlFlag(mask, bits uint32) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint32 { return &t.Cflag }, mask, bits}
}

func localFlag(bit uint32) modeFlag {
	return modeFlag{func(t *unix.Termios) *uint32 { return &t.Lflag }, bit, bit}
}

// controlCharacters are the opcodes of RFC 4254 §8 that set a character. Those without a
// counterpart on Linux (VDSUSP, VFLUSH, VSTATUS) are left out.
var controlCharacters = map[byte]int{
	1: unix.VINTR, 2: unix.VQUIT, 3: unix.VERASE, 4: unix.VKILL, 5: unix.VEOF, 6: unix.VEOL, 7: unix.VEOL2,
	8: unix.VSTART, 9: unix.VSTOP, 10: unix.VSUSP, 12: unix.VREPRINT, 13: unix.VWERASE, 14: unix.VLNEXT,
	16: unix.VSWTC, 18: unix.VDISCARD,
}

// modeFlags are the opcodes that switch something on and off.
var modeFlags = map[byte]modeFlag{
	30: inputFlag(unix.IGNPAR), 31: inputFlag(unix.PARMRK), 32: inputFlag(unix.INPCK), 33: inputFlag(unix.ISTRIP),
	34: inputFlag(unix.INLCR), 35: inputFlag(unix.IGNCR), 36: inputFlag(unix.ICRNL), 37: inputFlag(unix.IUCLC),
	38: inputFlag(unix.IXON), 39: inputFlag(unix.IXANY), 40: inputFlag(unix.IXOFF), 41: inputFlag(unix.IMAXBEL),
	42: inputFlag(unix.IUTF8), // RFC 8160

	50: localFlag(unix.ISIG), 51: localFlag(unix.ICANON), 52: localFlag(unix.XCASE), 53: localFlag(unix.ECHO),
	54: localFlag(unix.ECHOE), 55: localFlag(unix.ECHOK), 56: localFlag(unix.ECHONL), 57: localFlag(unix.NOFLSH),
	58: localFlag(unix.TOSTOP), 59: localFlag(unix.IEXTEN), 60: localFlag(unix.ECHOCTL), 61: localFlag(unix.ECHOKE),
	62: localFlag(unix.PENDIN),

	70: outputFlag(unix.OPOST), 71: outputFlag(unix.OLCUC), 72: outputFlag(unix.ONLCR), 73: outputFlag(unix.OCRNL),
	74: outputFlag(unix.ONOCR), 75: outputFlag(unix.ONLRET),

	90: controlFlag(unix.CSIZE, unix.CS7), 91: controlFlag(unix.CSIZE, unix.CS8),
	92: controlFlag(unix.PARENB, unix.PARENB), 93: controlFlag(unix.PARODD, unix.PARODD),
}
