package archive

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/s2"
)

const fuzzName = "2026/11/20/alice-1"

func newTestSealer(t testing.TB) *sealer {
	t.Helper()
	key := make([]byte, keySize)
	rand.Read(key)
	s, err := newSealer(fuzzName, key)
	must(t, err)
	return s
}

// Frames hold what was sealed, and nothing opens that was not.
func FuzzFrames(f *testing.F) {
	s := newTestSealer(f)
	var b scratch
	whole := bytes.Clone(s.seal(&b, kindChunk, head{number: 1}, []byte("hello\n")))
	whole = append(whole, s.seal(&b, kindChunk, head{number: 2, offset: 6, last: true}, bytes.Repeat([]byte("x"), 1000))...)
	f.Add(whole)
	f.Add(whole[:40])
	f.Add(bytes.Repeat([]byte{0xff}, 60))
	f.Fuzz(func(t *testing.T, in []byte) {
		good, _ := frames(in, func(h head, frame []byte) error {
			plain, err := s.open(kindChunk, h, frame)
			if err == nil && !bytes.Contains(whole, frame) {
				t.Errorf("opened %q, which was not sealed", plain)
			}
			if len(plain) > maxFrame {
				t.Errorf("got %d bytes of one frame", len(plain))
			}
			return nil
		})
		if good > int64(len(in)) {
			t.Errorf("%d of %d bytes are good", good, len(in))
		}
	})
}

// Manifests are what they say, or refused.
func FuzzManifest(f *testing.F) {
	digest := strings.Repeat("0a", 32)
	m := Manifest{Format: Format, Name: fuzzName, Size: 10, SHA256: digest,
		Chunks: []Chunk{{Name: "000001.chunk", Size: 100, SHA256: digest, Frames: 1, PlainSize: 10}}}
	f.Add(m.encode())
	f.Add([]byte(`{"format":"sallyport-recording-1","name":"` + fuzzName + `","chunks":[]}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := ParseManifest(in, fuzzName)
		if err != nil {
			return
		}
		if m.Name != fuzzName || len(m.Chunks) == 0 || m.Size < 1 || m.Chunks[0].PlainOffset != 0 || m.Sum != sum(in) {
			t.Errorf("got %+v", m)
		}
		again, err := ParseManifest(m.encode(), fuzzName)
		if err != nil {
			t.Errorf("what was read cannot be written: %v", err)
		}
		again.Sum = m.Sum
		if diff := cmp.Diff(m, again); diff != "" {
			t.Errorf("(-first +again)\n%s", diff)
		}
	})
}

// Keys are for the recording that they name, or refused.
func FuzzKey(f *testing.F) {
	f.Add(WrappedKey{Name: fuzzName, KeyID: "file:1", Wrapped: []byte("wrapped")}.Encode())
	f.Add([]byte(`{"format":"sallyport-recording-key-1"}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		if k, err := ParseKey(in, fuzzName); err == nil && (k.Name != fuzzName || len(k.Wrapped) == 0) {
			t.Errorf("got %+v", k)
		}
	})
}

// Other members' requests get bytes of recordings, or errors.
func FuzzAnswer(f *testing.F) {
	s := newSystem(f)
	a := s.open()
	r := create(f, a, "alice-1")
	show(f, r, 0, 2)
	for _, q := range []ask{
		{Op: "list", Name: r.Name}, {Op: "read", Name: r.Name, Object: keyObject, N: 10},
		{Op: "read", Name: r.Name, Object: "../../../x", N: 10}, {Op: "read", Name: "../x", Object: keyObject, From: -1, N: 1 << 62},
		{Op: "read", Name: r.Name, Object: journalObject, N: 10}, {Op: "list", Name: r.Name, From: 1 << 62},
	} {
		b, err := json.Marshal(q)
		must(f, err)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := a.Answer(t.Context(), in)
		if err == nil && len(out) > 2*peerPiece {
			t.Errorf("got an answer of %d bytes", len(out))
		}
	})
}

// A frame that would decompress to more than it says takes no memory for it.
func TestDecompressionBomb(t *testing.T) {
	s := newTestSealer(t)
	bomb := s2.Encode(nil, make([]byte, 512<<20))
	h := head{number: 1, plain: 100, sealed: len(bomb) + s.aead.Overhead()}
	frame := h.append(nil)
	frame = s.aead.Seal(frame, nil, bomb, s.context(kindChunk, frame))
	_, err := frames(frame, func(h head, frame []byte) error {
		_, err := s.open(kindChunk, h, frame)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "decompress") {
		t.Errorf("got %v, want an error", err)
	}
	got := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			frames(frame, func(h head, frame []byte) error { s.open(kindChunk, h, frame); return nil })
		}
	})
	if got.AllocedBytesPerOp() > 4<<20 {
		t.Errorf("it takes %d bytes", got.AllocedBytesPerOp())
	}
}
