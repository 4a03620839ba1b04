package index

import (
	"testing"
	"time"
	"unsafe"

	"sallyport.dev/recording"
)

// Attack: sessions that show a character at a time have the index hold many times what its
// bound says, since each takes more than its data.
func TestSmallPiecesAreBounded(t *testing.T) {
	f := newFollower(&Keeper{}, recording.Header{})
	for i := range maxQueued / 32 {
		f.Follow(time.Duration(i)*time.Millisecond, recording.KindOutput, []byte("x"))
	}
	if got, most := len(f.pieces)*int(unsafe.Sizeof(queued{})), maxQueued; got > most || !f.lost {
		t.Errorf("%d bytes wait, want at most %d", got, most)
	}
}
