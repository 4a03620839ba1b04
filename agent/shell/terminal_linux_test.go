package shell

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestModes(t *testing.T) {
	var term unix.Termios
	applyModes(&term, []byte{
		1, 0, 0, 0, 7, // VINTR
		2, 0, 0, 0, 255, // VQUIT: none
		53, 0, 0, 0, 1, // ECHO
		91, 0, 0, 0, 1, // CS8
		99, 0, 0, 0, 1, // unknown
		128, 0, 0, 0x96, 0, // TTY_OP_ISPEED: not of a terminal like this
		0,
		51, 0, 0, 0, 1, // behind the end
	})
	if term.Cc[unix.VINTR] != 7 || term.Cc[unix.VQUIT] != 0 {
		t.Errorf("got characters %v, want interrupt 7 and no quit", term.Cc)
	}
	if term.Lflag != unix.ECHO || term.Cflag != unix.CS8 || term.Iflag != 0 || term.Oflag != 0 {
		t.Errorf("got %+v, want ECHO and CS8", term)
	}
}

// FuzzModes reads what anybody may send: it comes to an end, and leaves alone what no
// mode means.
func FuzzModes(f *testing.F) {
	f.Add([]byte{53, 0, 0, 0, 0, 0})
	f.Add([]byte{53, 0, 0})
	f.Add([]byte{200, 1, 2, 3, 4, 5, 6, 7})
	f.Fuzz(func(t *testing.T, modes []byte) {
		var term unix.Termios
		applyModes(&term, modes)
		if term.Ispeed != 0 || term.Line != 0 {
			t.Errorf("got %+v", term)
		}
	})
}
