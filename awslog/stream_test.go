package awslog

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// textOf is the session text of events, each of whose lines ends.
func textOf(t *testing.T, streaming bool, events []event) string {
	var b strings.Builder
	for _, e := range events {
		if !streaming {
			b.WriteString(e.text)
			continue
		}
		var m message
		if err := json.Unmarshal([]byte(e.text), &m); err != nil {
			t.Fatalf("event %q: %v", e.text, err)
		}
		for _, line := range m.SessionData {
			b.WriteString(line + "\n")
		}
	}
	return b.String()
}

// feed writes a text in pieces that each took a while, and returns the events.
func feed(t *testing.T, text string, streaming bool, skip int64, piece int) []event {
	s := &stream{job: Job{Streaming: streaming}, skip: skip}
	for i := 0; len(text) > 0; i++ {
		n := min(piece, len(text))
		s.at(time.Duration(i) * 700 * time.Millisecond)
		if _, err := s.Write([]byte(text[:n])); err != nil {
			t.Fatal(err)
		}
		text = text[n:]
	}
	if err := s.seal(); err != nil {
		t.Fatal(err)
	}
	return s.batch
}

// FuzzStream: events hold the text, whatever pieces it comes in; and from the end of any
// event on, what is left of it.
func FuzzStream(f *testing.F) {
	f.Add("one\ntwo\n\nthree \"\\\n", true, 3)
	f.Add("äöü\n", false, 1)
	f.Fuzz(func(t *testing.T, text string, streaming bool, piece int) {
		if piece < 1 || len(text) > eventText/2 {
			return
		}
		text = strings.ToValidUTF8(text, "?") + "\n" // as recording.TextWriter has it
		all := feed(t, text, streaming, 0, piece)
		if got := textOf(t, streaming, all); got != text {
			t.Fatalf("got %q, want %q", got, text)
		}
		for _, e := range all {
			if rest := textOf(t, streaming, feed(t, text, streaming, e.end, piece+1)); rest != text[e.end:] {
				t.Fatalf("from %d on: got %q, want %q", e.end, rest, text[e.end:])
			}
		}
	})
}

// A recording that lacks its end for an hour is not read through a hundred times.
func TestLookAgain(t *testing.T) {
	ended := time.Now()
	looks, now := 0, ended
	for ; now.Sub(ended) < endWait; looks++ {
		next := lookAgain(ended, now)
		if wait, most := next.Sub(now), max(9*time.Second, now.Sub(ended)/4); wait > most {
			t.Fatalf("%s after the end it is left for %s, want at most %s", now.Sub(ended), wait, most)
		}
		now = next
	}
	if looks > 30 {
		t.Errorf("got %d looks within an hour, want at most 30", looks)
	}
}

func TestRetryAfter(t *testing.T) {
	for _, test := range []struct {
		tries    int
		min, max time.Duration
	}{
		{0, 1750 * time.Millisecond, 2250 * time.Millisecond},
		{1, 1750 * time.Millisecond, 2250 * time.Millisecond},
		{3, 7 * time.Second, 9 * time.Second},
		{9, 448 * time.Second, 576 * time.Second},
		{1000, 525 * time.Second, 675 * time.Second},
	} {
		t.Run(fmt.Sprint(test.tries), func(t *testing.T) {
			if got := retryAfter(test.tries); got < test.min || got > test.max {
				t.Errorf("got %v, want %v to %v", got, test.min, test.max)
			}
		})
	}
}
