package oncall

import (
	"errors"
	"fmt"
	"time"

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
	zone, err := flow.Zone(name)
	if err != nil {
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

// inHours reports whether anybody is on duty at that time of the wall's clock. Hours
// that go past midnight belong to the day on which they begin.
func inHours(r *flow.Rota, local time.Time) (bool, error) {
	hours := flow.Hours{From: 0, To: 24 * 60}
	if r.Hours != "" {
		var err error
		if hours, err = flow.ParseHours(r.Hours); err != nil {
			return false, fmt.Errorf("hours: %w", err)
		}
	}
	for _, d := range r.Days {
		if !flow.IsDay(d) {
			return false, fmt.Errorf("day %q: want mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	return hours.Has(local, r.Days), nil
}
