package wire

import (
	"encoding/xml"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Time is a timestamp in API shapes: seconds since the epoch, with milliseconds, in
// JSON; ISO 8601 with whole seconds in UTC in XML and forms. The zero Time is
// absent: give JSON members the option omitzero; XML leaves it out by itself.
type Time struct{ time.Time }

// MarshalJSON implements json.Marshaler.
func (t Time) MarshalJSON() ([]byte, error) {
	if t.IsZero() {
		return []byte("null"), nil
	}
	return strconv.AppendFloat(nil, float64(t.UnixMilli())/1000, 'f', -1, 64), nil
}

// UnmarshalJSON implements json.Unmarshaler. It takes seconds since the epoch or an
// ISO 8601 string, as botocore does.
func (t *Time) UnmarshalJSON(b []byte) error {
	if string(b) == "null" {
		return nil
	}
	text := string(b)
	if unquoted, err := strconv.Unquote(text); err == nil {
		text = unquoted
	}
	return t.UnmarshalText([]byte(text))
}

// UnmarshalText implements encoding.TextUnmarshaler for both forms. Years outside
// 1 to 9999 are refused.
func (t *Time) UnmarshalText(b []byte) error {
	if at, err := time.Parse(time.RFC3339, string(b)); err == nil {
		t.Time = at
		return nil
	}
	seconds, err := strconv.ParseFloat(string(b), 64)
	if err != nil || math.IsNaN(seconds) || seconds < -62135596800 || seconds >= 253402300800 {
		return fmt.Errorf("timestamp %q is neither seconds since the epoch nor ISO 8601", b)
	}
	whole, fraction := math.Modf(seconds)
	t.Time = time.Unix(int64(whole), int64(math.Round(fraction*1e6))*1000).UTC()
	return nil
}

// MarshalXML implements xml.Marshaler.
func (t Time) MarshalXML(e *xml.Encoder, start xml.StartElement) error {
	if t.IsZero() {
		return nil
	}
	return e.EncodeElement(t.UTC().Format("2006-01-02T15:04:05Z"), start)
}
