package cli

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

// talk is a SOCKS client that has said all it will.
type talk struct {
	io.Reader
	answer bytes.Buffer
}

func (t *talk) Write(p []byte) (int, error) { return t.answer.Write(p) }

func TestSOCKSRequest(t *testing.T) {
	const hello = "\x05\x01\x00"
	for name, test := range map[string]struct {
		said   string
		want   target
		answer string
	}{
		"name":        {hello + "\x05\x01\x00\x03\x0bdb.internal\x15\x38", target{host: "db.internal", port: "5432"}, "\x05\x00"},
		"IPv4":        {hello + "\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50", target{host: "10.0.0.1", port: "80"}, "\x05\x00"},
		"IPv6":        {hello + "\x05\x01\x00\x04" + strings.Repeat("\x00", 15) + "\x01\x00\x50", target{host: "::1", port: "80"}, "\x05\x00"},
		"node itself": {hello + "\x05\x01\x00\x03\x09localhost\x00\x50", target{port: "80"}, "\x05\x00"},
		"of several":  {"\x05\x02\x02\x00" + "\x05\x01\x00\x03\x02db\x00\x50", target{host: "db", port: "80"}, "\x05\x00"},
	} {
		c := &talk{Reader: strings.NewReader(test.said)}
		got, err := socksRequest(c)
		if err != nil || got != test.want || c.answer.String() != test.answer {
			t.Errorf("%s: got %+v, %v, answer %q; want %+v, answer %q", name, got, err, c.answer.String(), test.want, test.answer)
		}
	}
}

func TestSOCKSRequestRefuses(t *testing.T) {
	const hello = "\x05\x01\x00"
	for name, test := range map[string]struct {
		said  string
		reply byte // 0: none, the talk is over
	}{
		"web page":       {"GET / HTTP/1.1\r\n\r\n", 0},
		"version 4":      {"\x04\x01\x00\x50\x0a\x00\x00\x01\x00", 0},
		"password":       {"\x05\x01\x02", 0},
		"no method":      {"\x05\x00", 0},
		"short":          {hello + "\x05\x01", 0},
		"short name":     {hello + "\x05\x01\x00\x03\xffdb", 0},
		"bind":           {hello + "\x05\x02\x00\x01\x0a\x00\x00\x01\x00\x50", socksUnknownCommand},
		"UDP":            {hello + "\x05\x03\x00\x01\x0a\x00\x00\x01\x00\x50", socksUnknownCommand},
		"kind":           {hello + "\x05\x01\x00\x09\x0a\x00\x00\x01\x00\x50", socksUnknownAddressing},
		"port 0":         {hello + "\x05\x01\x00\x03\x02db\x00\x00", socksFailure},
		"empty name":     {hello + "\x05\x01\x00\x03\x00\x00\x50", socksFailure},
		"escape in name": {hello + "\x05\x01\x00\x03\x05d\x1b[2J\x00\x50", socksFailure},
		"option as name": {hello + "\x05\x01\x00\x03\x03-oX\x00\x50", socksFailure},
	} {
		got, err := socksRequest(&talk{Reader: strings.NewReader(test.said)})
		var refused *socksError
		if err == nil || errors.As(err, &refused) != (test.reply != 0) || refused != nil && refused.reply != test.reply {
			t.Errorf("%s: got %+v, %v, want reply %d", name, got, err, test.reply)
		}
	}
}

func FuzzSOCKSRequest(f *testing.F) {
	f.Add([]byte("\x05\x01\x00\x05\x01\x00\x03\x02db\x00\x50"))
	f.Fuzz(func(t *testing.T, said []byte) {
		to, err := socksRequest(&talk{Reader: bytes.NewReader(said)})
		if err == nil && to.host != "" && !remoteHost.MatchString(to.host) {
			t.Errorf("got %+v", to)
		}
	})
}
