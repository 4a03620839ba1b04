package audit

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// texts of a record that are not what was written.
func TestParseRecord(t *testing.T) {
	r := Record{Member: "m", Seq: 1, Time: noon.UTC().Truncate(time.Microsecond), Event: EventNode, Reason: "<a> & ü", Details: map[string]string{"b": "2", "a": "1"}, Prev: NoPrev}
	r.Hash, _ = Sum(r)
	plain, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	escaped, _ := json.Marshal(r)
	text := string(plain)
	for name, test := range map[string]struct {
		text string
		ok   bool
	}{
		"as exported":        {text, true},
		"as stored":          {string(escaped), true},
		"with white space":   {strings.ReplaceAll(text, `,"`, ",\n  \""), true},
		"another key's case": {strings.Replace(text, `"event"`, `"Event"`, 1), false},
		"a key twice":        {strings.Replace(text, `{`, `{"event":"login",`, 1), false},
		"a key more":         {strings.Replace(text, `{`, `{"x":1,`, 1), false},
		"another order":      {strings.Replace(text, `"member":"m","seq":1`, `"seq":1,"member":"m"`, 1), false},
		"a needless escape":  {strings.Replace(text, `node`, `\u006eode`, 1), false},
		"something after":    {text + "{}", false},
		"another zone":       {strings.Replace(text, `Z","event"`, `+00:00","event"`, 1), false},
		"nothing":            {"", false},
	} {
		got, err := ParseRecord([]byte(test.text))
		if (err == nil) != test.ok {
			t.Errorf("%s: got %v", name, err)
		}
		if sum, _ := Sum(got); err == nil && sum != r.Hash {
			t.Errorf("%s: read as %+v", name, got)
		}
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(`{"member":"m","seq":1,"time":"2026-03-01T11:00:00Z","event":"node","prev":"","hash":""}`)
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRecord([]byte(text))
		if err != nil {
			return
		}
		again, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseRecord(again); err != nil {
			t.Errorf("%q: what is written of it is not taken: %v", text, err)
		}
	})
}
