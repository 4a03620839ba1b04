package wire

import (
	"encoding/json"
	"encoding/xml"
	"testing"
	"time"
)

func TestTimeJSON(t *testing.T) {
	at := Time{time.Date(2026, 11, 20, 9, 22, 6, 123e6, time.UTC)}
	b, err := json.Marshal(at)
	if err != nil || string(b) != "1795166526.123" {
		t.Errorf("got %s, %v, want 1795166526.123", b, err)
	}
	for _, in := range []string{"1795166526.123", `"2026-11-20T09:22:06.123Z"`, `"2026-11-20T10:22:06.123+01:00"`, `"1795166526.123"`} {
		var got Time
		if err := json.Unmarshal([]byte(in), &got); err != nil || !got.Equal(at.Time) {
			t.Errorf("%s: got %v, %v, want %v", in, got, err, at)
		}
	}
	for _, in := range []string{`"yesterday"`, `"NaN"`, `1e300`, `-1e300`, `{}`} {
		var got Time
		if err := json.Unmarshal([]byte(in), &got); err == nil {
			t.Errorf("%s: got %v, want an error", in, got)
		}
	}
}

func TestTimeXML(t *testing.T) {
	type shape struct {
		At Time
	}
	b, err := xml.Marshal(shape{Time{time.Date(2026, 11, 20, 9, 22, 6, 0, time.UTC)}})
	if want := "<shape><At>2026-11-20T09:22:06Z</At></shape>"; err != nil || string(b) != want {
		t.Errorf("got %s, %v, want %s", b, err, want)
	}
	if b, err := xml.Marshal(shape{}); err != nil || string(b) != "<shape></shape>" {
		t.Errorf("zero: got %s, %v", b, err)
	}
}

func TestException(t *testing.T) {
	e := &Exception{Code: "TargetNotConnected", Message: "i-1 is not connected.", Status: 400}
	if e.Error() != "TargetNotConnected: i-1 is not connected." || e.Fault() != "Sender" {
		t.Errorf("got %q, %q", e.Error(), e.Fault())
	}
	if e := (&Exception{Code: "InternalServerError", Status: 500}); e.Error() != "InternalServerError" || e.Fault() != "Receiver" {
		t.Errorf("got %q, %q", e.Error(), e.Fault())
	}
}
