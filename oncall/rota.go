package oncall

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // zones must not depend on what the machine has

	"sallyport.dev/flow"
)

const day = 24 * time.Hour

// onRota returns whose turn it is. Shifts of whole days change at the same time of the
// clock on the wall, whatever daylight saving does in between; others last their time.
func onRota(r *flow.Rota, at time.Time) ([]string, error) {
	if r == nil || len(r.Users) == 0 || r.Shift <= 0 {
		return nil, errors.New("the rota lacks users or the length of a shift")
	}
	zone, err := loadZone(r.Zone)
	if err != nil {
		return nil, err
	}
	onDuty, err := inHours(r, at.In(zone))
	if err != nil || !onDuty || at.Before(r.Start) {
		return nil, err
	}
	turn := turns(r.Start.In(zone), r.Shift, at)
	return []string{r.Users[turn%len(r.Users)]}, nil
}

func loadZone(name string) (*time.Location, error) {
	if name == "" {
		return time.UTC, nil
	}
	zone, err := time.LoadLocation(name)
	if err != nil || name == "Local" {
		return nil, fmt.Errorf("zone %q is not known; want a name such as Europe/Berlin", name)
	}
	return zone, nil
}

// turns counts the shifts that are over.
func turns(start time.Time, shift time.Duration, at time.Time) int {
	if shift%day != 0 {
		return int(at.Sub(start) / shift)
	}
	days := int(shift / day)
	n := max(0, int(at.Sub(start)/shift)-1)
	for !start.AddDate(0, 0, (n+1)*days).After(at) {
		n++
	}
	return n
}

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

// inHours reports whether anybody is on duty at that time of the wall's clock. Hours
// that go past midnight belong to the day on which they begin.
func inHours(r *flow.Rota, local time.Time) (bool, error) {
	from, to, err := hours(r.Hours)
	if err != nil {
		return false, err
	}
	for _, d := range r.Days {
		if !slices.Contains(weekdays, d) {
			return false, fmt.Errorf("day %q: want mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	onDay := func(d time.Weekday) bool { return len(r.Days) == 0 || slices.Contains(r.Days, weekdays[d]) }
	minute := local.Hour()*60 + local.Minute()
	if from < to {
		return onDay(local.Weekday()) && minute >= from && minute < to, nil
	}
	if minute >= from {
		return onDay(local.Weekday()), nil
	}
	return minute < to && onDay((local.Weekday()+6)%7), nil
}

// hours reads 09:00-17:00 as minutes of the day.
func hours(text string) (from, to int, err error) {
	if text == "" {
		return 0, 24 * 60, nil
	}
	a, b, found := strings.Cut(text, "-")
	from, errA := clock(a)
	to, errB := clock(b)
	if !found || errA != nil || errB != nil || from == to || from == 24*60 {
		return 0, 0, fmt.Errorf("hours %q: want such as 09:00-17:00", text)
	}
	return from, to, nil
}

func clock(s string) (int, error) {
	if s = strings.TrimSpace(s); s == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", s)
	return t.Hour()*60 + t.Minute(), err
}
