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
	const most = 1 << 20 // that there is room for
	k := &Keeper{}
	k.queued.Store(maxQueued - most)
	f := newFollower(k, recording.Header{})
	for i := range most / 32 {
		f.Follow(time.Duration(i)*time.Millisecond, recording.KindOutput, []byte("x"))
	}
	if got := len(f.pieces) * int(unsafe.Sizeof(queued{})); got > most || !f.lost {
		t.Errorf("%d bytes wait, want at most %d", got, most)
	}
}
