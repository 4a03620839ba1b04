package transfer

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pkg/sftp"
)

func sum(b string) string {
	d := sha256.Sum256([]byte(b))
	return hex.EncodeToString(d[:])
}

// follow runs a real client against a real server with an SFTP between them.
func follow(t *testing.T, do func(c *sftp.Client)) []Event {
	t.Helper()
	var events []Event
	s := NewSFTP(func(e Event) { events = append(events, e) })
	clientEnd, a := net.Pipe()
	b, serverEnd := net.Pipe()
	server, err := sftp.NewServer(serverEnd)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 3)
	go func() { server.Serve(); serverEnd.Close(); ended <- nil }()
	go func() { ended <- pass(b, a, s.Client); b.Close() }()
	go func() { ended <- pass(a, b, s.Server); a.Close() }()
	c, err := sftp.NewClientPipe(clientEnd, clientEnd, sftp.UseConcurrentWrites(true))
	if err != nil {
		t.Fatal(err)
	}
	do(c)
	c.Close()
	clientEnd.Close()
	for range 3 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	s.Close()
	return events
}

func pass(to io.Writer, from io.Reader, take func([]byte) error) error {
	b := make([]byte, 1000) // an odd size, so that packets are cut anywhere
	for {
		n, err := from.Read(b)
		if n > 0 {
			if err := take(b[:n]); err != nil {
				return err
			}
			if _, err := to.Write(b[:n]); err != nil {
				return nil
			}
		}
		if err != nil {
			return nil
		}
	}
}

func TestSFTPOfRealEnds(t *testing.T) {
	dir := t.TempDir()
	big := strings.Repeat("0123456789abcdef", 40_000)
	if err := os.WriteFile(filepath.Join(dir, "down"), []byte(big), 0o600); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	events := follow(t, func(c *sftp.Client) {
		up, err := c.Create(at("up"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := up.ReadFrom(strings.NewReader(big)); err != nil {
			t.Fatal(err)
		}
		up.Close()
		down, err := c.Open(at("down"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := down.WriteTo(io.Discard); err != nil {
			t.Fatal(err)
		}
		down.Close()
		c.Open(at("nothing"))
		c.Mkdir(at("folder"))
		c.PosixRename(at("up"), at("folder/moved"))
		c.Chmod(at("down"), 0o644)
		c.Symlink("down", at("link"))
		c.Remove(at("down"))
		c.ReadDir(dir)
	})
	want := []Event{
		{Operation: Upload, Path: at("up"), Bytes: int64(len(big)), SHA256: sum(big)},
		{Operation: Download, Path: at("down"), Bytes: int64(len(big)), SHA256: sum(big)},
		{Operation: Download, Path: at("nothing"), Error: "no such file"},
		{Operation: Mkdir, Path: at("folder")},
		{Operation: Rename, Path: at("up"), Target: at("folder/moved")},
		{Operation: Setattr, Path: at("down"), Note: "permissions"},
		{Operation: Symlink, Path: at("link"), Target: "down"},
		{Operation: Remove, Path: at("down")},
	}
	if diff := cmp.Diff(want, events); diff != "" {
		t.Error(diff)
	}
}

// packet builds an SFTP packet of numbers, strings and lone bytes.
func packet(kind byte, fields ...any) []byte {
	var b []byte
	for _, f := range fields {
		switch v := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(v))
		case int64:
			b = binary.BigEndian.AppendUint64(b, uint64(v))
		case string:
			b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
			b = append(b, v...)
		}
	}
	head := binary.BigEndian.AppendUint32(nil, uint32(len(b)+1))
	return append(append(head, kind), b...)
}

const fxpStat = 17

type step struct {
	server bool
	packet []byte
}

func client(kind byte, fields ...any) step { return step{false, packet(kind, fields...)} }
func server(kind byte, fields ...any) step { return step{true, packet(kind, fields...)} }

var hello = []step{client(fxpInit, 3), server(fxpVersion, 3)}

func opened(flags int) []step {
	return append(hello[:2:2], client(fxpOpen, 1, "f", flags, 0), server(fxpHandle, 1, "h"))
}

func play(steps []step) (events []Event, err error) {
	s := NewSFTP(func(e Event) { events = append(events, e) })
	for _, st := range steps {
		if st.server {
			err = s.Server(st.packet)
		} else {
			err = s.Client(st.packet)
		}
		if err != nil {
			break
		}
	}
	s.Close()
	return events, err
}

// The hash is that of the file's bytes in their order, or there is none and a reason.
func TestSFTPOrder(t *testing.T) {
	write := func(id int, offset int64, data string) step { return client(fxpWrite, id, "h", offset, data) }
	done := []step{client(fxpClose, 99, "h"), server(fxpStatus, 99, 0, "", "")}
	for _, c := range []struct {
		name  string
		steps []step
		want  Event
	}{
		{"in order", []step{write(2, 0, "ab"), write(3, 2, "cd")}, Event{Bytes: 4, SHA256: sum("abcd")}},
		{"out of order", []step{write(2, 2, "cd"), write(3, 4, "ef"), write(4, 0, "ab")}, Event{Bytes: 6, SHA256: sum("abcdef")}},
		{"empty", nil, Event{SHA256: sum("")}},
		{"taken up again", []step{write(2, 100, "ab"), write(3, 102, "cd")}, Event{Bytes: 4, Offset: 100, SHA256: sum("abcd")}},
		{"written over", []step{write(2, 0, "good"), write(3, 0, "evil")}, Event{Bytes: 8, Note: "some bytes were transferred more than once"}},
		{"with a hole", []step{write(2, 0, "ab"), write(3, 9, "cd")}, Event{Bytes: 4, Note: "some bytes between were not transferred"}},
		{"cut afterwards", []step{write(2, 0, "ab"), client(fxpFsetstat, 3, "h", attrSize, int64(1))}, Event{Bytes: 2, Note: "the file's size was set"}},
		{"cut to what was written", []step{write(2, 0, "ab"), client(fxpFsetstat, 3, "h", attrSize, int64(2))}, Event{Bytes: 2, SHA256: sum("ab")}},
		{"refused", []step{write(2, 0, "ab"), server(fxpStatus, 2, 4, "", "")}, Event{Bytes: 2, SHA256: sum("ab"), Error: "failure"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps := append(opened(fxfWrite), c.steps...)
			events, err := play(append(steps, done...))
			if err != nil {
				t.Fatal(err)
			}
			c.want.Operation, c.want.Path = Upload, "f"
			if diff := cmp.Diff([]Event{c.want}, events); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// What is set by the handle of a file is told as what is set by its name.
func TestSFTPAttributesByHandle(t *testing.T) {
	set := func(fields ...any) []step {
		return []step{client(fxpFsetstat, append([]any{2, "h"}, fields...)...), server(fxpStatus, 2, 0, "", "")}
	}
	for _, c := range []struct {
		name  string
		flags int
		steps []step
		want  []Event
	}{
		{"rights", fxfRead, set(attrPermissions, 0o4755), []Event{{Operation: Setattr, Path: "f", Note: "permissions"}}},
		{"owner and times", fxfWrite, set(attrOwner|attrTimes, 0, 0, 1, 1), []Event{{Operation: Setattr, Path: "f", Note: "owner, times"}}},
		{"size of what was not written", fxfWrite, set(attrSize, int64(5)), []Event{{Operation: Setattr, Path: "f", Note: "size"}}},
		{"an empty upload", fxfWrite, set(attrSize, int64(0)), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, err := play(append(opened(c.flags), c.steps...))
			if err != nil {
				t.Fatal(err)
			}
			events = slices.DeleteFunc(events, func(e Event) bool { return e.Operation == Upload })
			if diff := cmp.Diff(c.want, events, cmpopts.EquateEmpty()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Listings are not told, however they end.
func TestSFTPFolders(t *testing.T) {
	events, err := play(append(hello[:2:2],
		client(fxpOpendir, 1, "d"), server(fxpHandle, 1, "h"), client(fxpClose, 2, "h"), server(fxpStatus, 2, 0, "", ""),
		client(fxpOpendir, 3, "none"), server(fxpStatus, 3, 2, "", ""),
		client(fxpOpendir, 4, "d"), server(fxpHandle, 4, "h"),
	))
	if err != nil || len(events) != 0 {
		t.Errorf("got %+v, %v, want no events", events, err)
	}
}

// Ends that could make the gateway believe something else than each other cannot go on.
func TestSFTPAttacks(t *testing.T) {
	for _, c := range []struct {
		name  string
		steps []step
	}{
		{"request before the hello", []step{client(fxpOpen, 1, "f", fxfRead, 0)}},
		{"another version", []step{client(fxpInit, 6), server(fxpVersion, 6)}},
		{"a number used twice", append(opened(fxfRead), client(fxpRead, 5, "h", int64(0), 9), client(fxpRead, 5, "h", int64(9), 9))},
		{"data that nobody asked for", append(opened(fxfRead), server(fxpData, 7, "secret"))},
		{"more data than asked for", append(opened(fxfRead), client(fxpRead, 5, "h", int64(0), 2), server(fxpData, 5, "secret"))},
		{"data after the end", append(opened(fxfRead), client(fxpRead, 5, "h", int64(0), 9), client(fxpClose, 6, "h"), server(fxpStatus, 6, 0, "", ""), server(fxpData, 5, "x"))},
		{"a handle given out twice", append(opened(fxfRead), client(fxpOpen, 2, "g", fxfRead, 0), server(fxpHandle, 2, "h"))},
		{"a write to a handle that is guessed", append(hello[:2:2], client(fxpOpen, 1, "f", fxfWrite, 0), client(fxpWrite, 2, "h", int64(0), "unseen"))},
		{"a write after the end", append(opened(fxfWrite), client(fxpClose, 2, "h"), client(fxpWrite, 3, "h", int64(0), "unseen"))},
		{"rights set by a handle that is guessed", append(hello[:2:2], client(fxpOpen, 1, "f", fxfRead, 0), client(fxpFsetstat, 2, "h", attrPermissions, 0o4755))},
		{"a copy to a handle that is guessed", append(opened(fxfRead), client(fxpOpen, 2, "g", fxfWrite, 0), client(fxpExtended, 3, "copy-data", "h", int64(0), int64(9), "i", int64(0)))},
		{"a handle that nobody asked for", append(hello[:2:2], server(fxpHandle, 1, "h"))},
		{"a question with the number of a removal", append(hello[:2:2], client(fxpStat, 1, "none"), client(fxpRemove, 1, "f"))},
		{"a handle for a listing", append(hello[:2:2], client(fxpStat, 1, "f"), server(fxpHandle, 1, "h"))},
		{"data for an opening", append(hello[:2:2], client(fxpOpen, 1, "f", fxfRead, 0), server(fxpData, 1, "secret"))},
		{"names for a reading", append(opened(fxfRead), client(fxpRead, 5, "h", int64(0), 9), server(104, 5, 1, "secret"))},
		{"data for a reading of nothing", append(hello[:2:2], client(fxpRead, 5, "h", int64(0), 9), server(fxpData, 5, "secret"))},
		{"an answer that nobody asked for", append(opened(fxfRead), server(fxpStatus, 7, 0, "", ""))},
		{"a huge packet", append(hello, step{false, []byte{0xff, 0xff, 0xff, 0xff, fxpWrite}})},
		{"a cut packet", append(hello, client(fxpOpen, 1))},
		{"an endless handle", append(hello, client(fxpOpen, 1, "f", fxfRead, 0), server(fxpHandle, 1, strings.Repeat("h", 257)))},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := play(c.steps); !errors.Is(err, ErrSFTP) {
				t.Errorf("got %v, want %v", err, ErrSFTP)
			}
		})
	}
}

// What is remembered is bounded: requests without answers, open files, early bytes.
func TestSFTPBounds(t *testing.T) {
	t.Run("unanswered requests", func(t *testing.T) {
		steps := hello[:2:2]
		for i := range maxRequests + 1 {
			steps = append(steps, client(fxpRemove, i, "f"))
		}
		if _, err := play(steps); !errors.Is(err, ErrSFTP) {
			t.Errorf("got %v, want %v", err, ErrSFTP)
		}
	})
	t.Run("open files", func(t *testing.T) {
		steps := hello[:2:2]
		for i := range maxHandles + 1 {
			steps = append(steps, client(fxpOpen, i, "f", fxfRead, 0), server(fxpHandle, i, string(rune('a'+i%26))+strings.Repeat("x", i/26)))
		}
		if _, err := play(steps); !errors.Is(err, ErrSFTP) {
			t.Errorf("got %v, want %v", err, ErrSFTP)
		}
	})
	t.Run("early bytes", func(t *testing.T) {
		block := strings.Repeat("x", 64<<10)
		steps := append(opened(fxfWrite), client(fxpWrite, 2, "h", int64(0), "x"))
		for i := range 2 * maxEarly / len(block) {
			steps = append(steps, client(fxpWrite, 3+i, "h", int64(1<<30+i*len(block)), block))
		}
		events, err := play(steps)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := events[0].Note, "the bytes came too far out of order"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

func FuzzSFTP(f *testing.F) {
	for _, steps := range [][]step{hello, opened(fxfRead), opened(fxfWrite)} {
		var b []byte
		for _, s := range steps {
			b = append(b, s.packet...)
		}
		f.Add(b, uint8(7))
	}
	f.Fuzz(func(t *testing.T, b []byte, cut uint8) {
		s := NewSFTP(func(e Event) {
			if len(e.Path) > maxPath+16 || e.Bytes < 0 {
				t.Errorf("event out of bounds: %+v", e)
			}
		})
		for i := 0; len(b) > 0; i++ {
			n := min(len(b), int(cut)%64+1)
			if i%3 == 2 {
				s.Server(b[:n])
			} else if s.Client(b[:n]) != nil {
				break
			}
			b = b[n:]
		}
		s.Close()
		if s.early.left != maxEarly {
			t.Errorf("early bytes left: got %d, want %d", s.early.left, maxEarly)
		}
	})
}
