package flow

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// weekdays are the names of days, from Sunday on as time.Weekday counts them.
var weekdays = [...]string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

var errDuration = errors.New("want a duration such as 90s, 30m, 1h, 1h30m or 2d")

// ParseDuration reads a duration as flows write it: whole numbers with the units d, h, m
// and s, the larger first. It is never negative.
func ParseDuration(text string) (time.Duration, error) {
	units := []struct {
		name byte
		unit time.Duration
	}{{'d', 24 * time.Hour}, {'h', time.Hour}, {'m', time.Minute}, {'s', time.Second}}
	if text == "" || len(text) > 32 {
		return 0, errDuration
	}
	var total time.Duration
	for rest := text; rest != ""; {
		end := strings.IndexAny(rest, "dhms")
		if end <= 0 {
			return 0, errDuration
		}
		n, err := strconv.ParseUint(rest[:end], 10, 31)
		if err != nil {
			return 0, errDuration
		}
		for len(units) > 0 && units[0].name != rest[end] {
			units = units[1:]
		}
		if len(units) == 0 || time.Duration(n) > (math.MaxInt64-total)/units[0].unit {
			return 0, errDuration
		}
		total += time.Duration(n) * units[0].unit
		rest, units = rest[end+1:], units[1:]
	}
	return total, nil
}

// FormatDuration writes a duration as people do: 30m, 1h, 1h30m, 2d.
func FormatDuration(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	text := d.Truncate(time.Second).String()
	if text == "0s" {
		return text
	}
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
