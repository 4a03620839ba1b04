package flow

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones are part of what flows mean, whatever the machine has installed
)

// Hours is a window of the day, in minutes after midnight. Where To is not after From it
// ends on the next day.
type Hours struct{ From, To int }

// ParseHours reads a window such as 09:00-17:00 or 22:00-06:00.
func ParseHours(text string) (Hours, error) {
	wrong := fmt.Errorf("got %q, want hours such as 09:00-17:00", text)
	from, to, ok := strings.Cut(text, "-")
	if !ok {
		return Hours{}, wrong
	}
	a, errFrom := minutes(from)
	b, errTo := minutes(to)
	if errFrom != nil || errTo != nil || a == b || a == 24*60 {
		return Hours{}, wrong
	}
	return Hours{a, b}, nil
}

// minutes reads 09:00; 24:00 is midnight at the end of a day.
func minutes(text string) (int, error) {
	if text == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", text)
	if err != nil || len(text) != 5 {
		return 0, errors.New("no time of day")
	}
	return t.Hour()*60 + t.Minute(), nil
}

// Has reports whether a moment, in its own zone, is within the window, and begins the
// window on one of days (mon … sun; every day if there are none).
func (h Hours) Has(t time.Time, days []string) bool {
	now := t.Hour()*60 + t.Minute()
	if h.From < h.To {
		return now >= h.From && now < h.To && onDay(t.Weekday(), days)
	}
	if now >= h.From {
		return onDay(t.Weekday(), days)
	}
	return now < h.To && onDay((t.Weekday()+6)%7, days)
}

func onDay(d time.Weekday, days []string) bool {
	return len(days) == 0 || slices.Contains(days, weekdays[d])
}

// IsDay reports whether a name is that of a day, mon … sun.
func IsDay(name string) bool { return slices.Contains(weekdays[:], name) }

// Zone finds a zone by its IANA name; none is UTC. The server's own zone does not exist
// for flows: they mean the same on every member.
func Zone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("got %q, want a zone such as Europe/Berlin", name)
	}
	return zone, nil
}

// startOf reads when a rota starts: RFC 3339, or a day or minute in its zone.
func startOf(text string, zone *time.Location) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t.UTC(), nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("got %q, want 2026-01-05 or 2026-01-05T09:00:00Z", text)
}
