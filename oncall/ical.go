package oncall

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	ics "github.com/arran4/golang-ical"
	"github.com/teambition/rrule-go"

	"sallyport.dev/flow"
)

// Bounds of calendars. The parser and the rules of recurrence are others' code, so that
// what is given to them is looked at first.
const (
	maxCalendar  = 4 << 20 // bytes
	maxEvents    = 20000
	maxDepth     = 8      // of components
	maxInstances = 100000 // of one event, up to now
	maxDates     = 5000   // of exceptions of one event
	// maxWork is how many bytes are copied for parameters: some seconds.
	maxWork int64 = 1 << 32
)

func (s *Sources) checkCalendar(sched *flow.Schedule) error {
	at, file := sched.Settings["url"], sched.Settings["file"]
	if (at == "") == (file == "") {
		return errors.New("ical: give one of the settings url and file")
	}
	if u, err := url.Parse(at); at != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil) {
		return errors.New("ical: setting url must be https://HOST/…")
	}
	if file != "" {
		if s.config.Calendars == nil || s.config.Calendars.Dir == "" {
			return errors.New(`ical: setting file needs a folder for calendars, dir in the block on_call "ical" of the server's configuration`)
		}
		if !filepath.IsLocal(file) || filepath.Base(file) != file {
			return fmt.Errorf("ical: file %q must be a name in the folder for calendars", file)
		}
	}
	if _, err := loadZone(sched.Settings["zone"]); err != nil {
		return fmt.Errorf("ical: %w", err)
	}
	_, err := newNaming(sched)
	return err
}

// calendar reads a calendar and returns who is named by the events of that time.
func (s *Sources) calendar(ctx context.Context, sched *flow.Schedule, at time.Time) ([]someone, error) {
	text, err := s.read(ctx, sched)
	if err != nil {
		return nil, err
	}
	who, err := newNaming(sched)
	if err != nil {
		return nil, err
	}
	zone, err := loadZone(sched.Settings["zone"])
	if err != nil {
		return nil, err
	}
	events, err := eventsAt(ctx, text, zone, at)
	if err != nil {
		return nil, err
	}
	var found []someone
	for _, e := range events {
		found = append(found, who.named(e)...)
	}
	return found, nil
}

func (s *Sources) read(ctx context.Context, sched *flow.Schedule) ([]byte, error) {
	if file := sched.Settings["file"]; file != "" {
		return readFile(s.config.Calendars.Dir, file)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, sched.Settings["url"], nil)
	if err != nil {
		return nil, errors.New("its URL is not valid")
	}
	req.Header.Set("Accept", "text/calendar")
	return fetch(s.calendarClient(), req, maxCalendar)
}

// readFile reads a file of a folder, out of which no link leads.
func readFile(dir, name string) ([]byte, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the folder for calendars: %w", err)
	}
	defer root.Close()
	f, err := root.Open(name)
	if err != nil {
		return nil, fmt.Errorf("opening %q: %w", name, errors.Unwrap(err))
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%q is no regular file", name)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxCalendar+1))
	if err == nil && len(text) > maxCalendar {
		err = fmt.Errorf("%q has more than %d bytes", name, maxCalendar)
	}
	return text, err
}

// naming says how events name people.
type naming struct {
	summary, attendees bool
	pattern            *regexp.Regexp // of the summary; its first group is the name
}

func newNaming(sched *flow.Schedule) (n naming, err error) {
	switch by := sched.Settings["person"]; by {
	case "":
		n.summary, n.attendees = true, true
	case "summary":
		n.summary = true
	case "attendee":
		n.attendees = true
	default:
		return n, fmt.Errorf("ical: setting person is %q: want summary or attendee", by)
	}
	pattern := sched.Settings["pattern"]
	if pattern == "" {
		return n, nil
	}
	n.pattern, err = regexp.Compile(pattern)
	if err != nil || n.pattern.NumSubexp() < 1 {
		return n, errors.New("ical: setting pattern must be a regular expression with one group, which is the name: On call: (.*)")
	}
	return n, nil
}

// named are the people of an event: its attendees, but for those who declined, or else
// who its summary names.
func (n naming) named(e *ics.VEvent) (found []someone) {
	if n.attendees {
		for _, a := range e.Attendees() {
			if a.ParticipationStatus() != ics.ParticipationStatusDeclined {
				found = append(found, someone{email: strings.TrimPrefix(strings.ToLower(a.Value), "mailto:")})
			}
		}
	}
	summary := strings.TrimSpace(ics.FromText(value(e, ics.ComponentPropertySummary)))
	if len(found) > 0 || !n.summary || summary == "" {
		return found
	}
	if n.pattern != nil {
		m := n.pattern.FindStringSubmatch(summary)
		if m == nil {
			return nil // another kind of event
		}
		summary = strings.TrimSpace(m[1])
	}
	return []someone{{name: summary}}
}

func value(e *ics.VEvent, p ics.ComponentProperty) string {
	if found := e.GetProperty(p); found != nil {
		return found.Value
	}
	return ""
}

// eventsAt returns the events that are under way at a time.
func eventsAt(ctx context.Context, text []byte, floating *time.Location, at time.Time) ([]*ics.VEvent, error) {
	if err := checkText(text); err != nil {
		return nil, err
	}
	cal, err := ics.ParseCalendar(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("reading the calendar: %w", err)
	}
	r := reader{floating: floating, at: at, moved: map[string][]time.Time{}}
	events := cal.Events()
	if len(events) > maxEvents {
		return nil, fmt.Errorf("the calendar has more than %d events", maxEvents)
	}
	for _, e := range events {
		if err := r.noteMoved(e); err != nil {
			return nil, named(e, err)
		}
	}
	var now []*ics.VEvent
	for _, e := range events {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		under, err := r.underWay(e)
		if err != nil {
			return nil, named(e, err)
		}
		if under {
			now = append(now, e)
		}
	}
	return now, nil
}

func named(e *ics.VEvent, err error) error { return fmt.Errorf("event %s: %w", clip(e.Id()), err) }

// checkText looks at a calendar before the parser does, which descends into components
// without a bound, and copies the rest of a line for each of its parameters. It unfolds
// lines and finds the names of properties as the parser does.
func checkText(text []byte) error {
	if !bytes.Contains(text, []byte("BEGIN:VCALENDAR")) {
		return errors.New("this is no calendar: it has no BEGIN:VCALENDAR")
	}
	depth, work := 0, int64(0)
	lines := ics.NewCalendarStream(bytes.NewReader(text))
	for {
		line, err := lines.ReadLine()
		if line != nil {
			name, rest := property(string(*line))
			depth += deeper(name)
			work += parameterWork(rest)
		}
		switch {
		case depth > maxDepth:
			return errors.New("the calendar nests its components too deep")
		case work > maxWork:
			return errors.New("the calendar has lines with too many parameters")
		case err != nil: // that was the last line
			return nil
		}
	}
}

// property parts the name of a line's property from what follows it.
func property(line string) (name, rest string) {
	other := func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}
	line = strings.TrimLeftFunc(line, other)
	if end := strings.IndexFunc(line, other); end >= 0 {
		return line[:end], line[end:]
	}
	return line, ""
}

// deeper is how much deeper a property leads. In small letters none leads out: the parser
// takes it for another one.
func deeper(name string) int {
	switch {
	case strings.EqualFold(name, "BEGIN"):
		return 1
	case name == "END":
		return -1
	}
	return 0
}

// parameterWork is how many bytes the parser may copy for the parameters of a property.
func parameterWork(rest string) int64 {
	if !strings.HasPrefix(rest, ";") {
		return 0
	}
	return int64(strings.Count(rest, ";")+strings.Count(rest, ",")) * int64(len(rest))
}

// reader decides which events are under way.
type reader struct {
	floating *time.Location // zone of times that have none
	at       time.Time
	moved    map[string][]time.Time // by UID, the instances that have an event of their own
}

const recurrenceID = ics.ComponentProperty("RECURRENCE-ID")

// noteMoved keeps which instance of a recurring event an event stands for.
func (r *reader) noteMoved(e *ics.VEvent) error {
	p := e.GetProperty(recurrenceID)
	if p == nil {
		return nil
	}
	if len(p.ICalParameters["RANGE"]) > 0 {
		return errors.New("RECURRENCE-ID with RANGE is not supported")
	}
	t, _, err := r.time(p)
	r.moved[e.Id()] = append(r.moved[e.Id()], t)
	return err
}

// underWay reports whether an event, or one of its instances, is under way.
func (r *reader) underWay(e *ics.VEvent) (bool, error) {
	if strings.EqualFold(value(e, ics.ComponentPropertyStatus), string(ics.ObjectStatusCancelled)) {
		return false, nil
	}
	start := e.GetProperty(ics.ComponentPropertyDtStart)
	if start == nil {
		return false, errors.New("it has no DTSTART")
	}
	from, whole, err := r.time(start)
	if err != nil {
		return false, err
	}
	to, err := r.end(e, from, whole)
	if err != nil {
		return false, err
	}
	if e.GetProperty(recurrenceID) != nil {
		return r.within(from, from, to), nil
	}
	starts, err := r.starts(e, from, to)
	if err != nil {
		return false, err
	}
	for _, t := range starts {
		if r.within(t, from, to) {
			return true, nil
		}
	}
	return false, nil
}

// within reports whether the time is in the instance that starts at t, when the first one
// lasts from from to to. An instance whose first one ends at the same time of the wall's
// clock does so, too.
func (r *reader) within(t, from, to time.Time) bool {
	end := t.Add(to.Sub(from))
	if h, m, s := from.Clock(); to.Location().String() == from.Location().String() {
		if h2, m2, s2 := to.Clock(); h == h2 && m == m2 && s == s2 {
			end = t.AddDate(0, 0, daysBetween(from, to))
		}
	}
	return !t.After(r.at) && end.After(r.at)
}

func daysBetween(from, to time.Time) int {
	a := time.Date(from.Year(), from.Month(), from.Day(), 0, 0, 0, 0, time.UTC)
	b := time.Date(to.Year(), to.Month(), to.Day(), 0, 0, 0, 0, time.UTC)
	return int(b.Sub(a) / day)
}

func (r *reader) end(e *ics.VEvent, from time.Time, whole bool) (time.Time, error) {
	if p := e.GetProperty(ics.ComponentPropertyDtEnd); p != nil {
		to, _, err := r.time(p)
		if err == nil && to.Before(from) {
			err = errors.New("it ends before it starts")
		}
		return to, err
	}
	if p := e.GetProperty(ics.ComponentPropertyDuration); p != nil {
		return duration(from, p.Value)
	}
	if whole {
		return from.AddDate(0, 0, 1), nil
	}
	return from, nil
}

var durationPattern = regexp.MustCompile(`^\+?P(?:([0-9]{1,5})W)?(?:([0-9]{1,5})D)?(?:T(?:([0-9]{1,6})H)?(?:([0-9]{1,6})M)?(?:([0-9]{1,6})S)?)?$`)

// duration adds a duration such as P1W or PT12H (RFC 5545 §3.3.6).
func duration(from time.Time, text string) (time.Time, error) {
	m := durationPattern.FindStringSubmatch(text)
	if m == nil {
		return from, fmt.Errorf("DURATION %q is not one", clip(text))
	}
	days := from.AddDate(0, 0, 7*decimal(m[1])+decimal(m[2]))
	return days.Add(time.Duration(decimal(m[3]))*time.Hour + time.Duration(decimal(m[4]))*time.Minute + time.Duration(decimal(m[5]))*time.Second), nil
}

// decimal reads digits, none of which are 0.
func decimal(digits string) int {
	n, _ := strconv.Atoi("0" + digits) // few of them, by the pattern
	return n
}

// starts lists the instances of an event that may be under way.
func (r *reader) starts(e *ics.VEvent, from, to time.Time) ([]time.Time, error) {
	if e.GetProperty(ics.ComponentProperty("EXRULE")) != nil {
		return nil, errors.New("EXRULE is not supported")
	}
	all := []time.Time{from}
	for _, p := range e.GetProperties(ics.ComponentPropertyRrule) {
		more, err := r.recur(p.Value, from, to)
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	more, err := r.dates(e, ics.ComponentPropertyRdate)
	if err != nil {
		return nil, err
	}
	gone, err := r.dates(e, ics.ComponentPropertyExdate)
	if err != nil {
		return nil, err
	}
	gone = append(gone, r.moved[e.Id()]...)
	var left []time.Time
	for _, t := range append(all, more...) {
		if !t.After(r.at) && !contains(gone, t) {
			left = append(left, t)
		}
	}
	return left, nil
}

func contains(all []time.Time, t time.Time) bool {
	for _, o := range all {
		if o.Equal(t) {
			return true
		}
	}
	return false
}

// recur lists the starts by a rule that are not over by the time.
func (r *reader) recur(rule string, from, to time.Time) ([]time.Time, error) {
	if err := checkRule(rule); err != nil {
		return nil, err
	}
	option, err := rrule.StrToROptionInLocation(rule, from.Location())
	if err != nil {
		return nil, fmt.Errorf("RRULE: %w", err)
	}
	option.Dtstart = from
	set, err := rrule.NewRRule(*option)
	if err != nil {
		return nil, fmt.Errorf("RRULE: %w", err)
	}
	earliest := r.at.Add(-to.Sub(from) - 2*time.Hour) // by the wall's clock it may last longer
	var found []time.Time
	next := set.Iterator()
	for range maxInstances {
		t, ok := next()
		if !ok || t.After(r.at) {
			return found, nil
		}
		if !t.Before(earliest) {
			found = append(found, t)
		}
	}
	return nil, fmt.Errorf("RRULE %q has more than %d instances until now", clip(rule), maxInstances)
}

// checkRule refuses rules whose search for the next instance would take long.
func checkRule(rule string) error {
	upper := strings.ToUpper(rule)
	often := strings.Contains(upper, "FREQ=SECONDLY") || strings.Contains(upper, "FREQ=MINUTELY")
	if often || strings.Contains(upper, "FREQ=HOURLY") && strings.Contains(upper, "BY") || len(rule) > 1000 {
		return fmt.Errorf("RRULE %q is not supported: shifts recur by hours (without BY…), days, weeks, months or years", clip(rule))
	}
	return nil
}

// dates reads RDATE or EXDATE, each of which may hold several.
func (r *reader) dates(e *ics.VEvent, kind ics.ComponentProperty) ([]time.Time, error) {
	var all []time.Time
	for _, p := range e.GetProperties(kind) {
		if strings.EqualFold(parameter(p, "VALUE"), "PERIOD") {
			return nil, fmt.Errorf("%s with periods is not supported", kind)
		}
		for text := range strings.SplitSeq(p.Value, ",") {
			one := *p
			one.Value = text
			t, _, err := r.time(&one)
			if err != nil {
				return nil, err
			}
			if all = append(all, t); len(all) > maxDates {
				return nil, fmt.Errorf("%s has more than %d dates", kind, maxDates)
			}
		}
	}
	return all, nil
}

func parameter(p *ics.IANAProperty, name string) string {
	if v := p.ICalParameters[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// time reads a date or a time (RFC 5545 §3.3.4, §3.3.5). whole tells that it is a date.
func (r *reader) time(p *ics.IANAProperty) (t time.Time, whole bool, err error) {
	zone := r.floating
	if id := parameter(p, "TZID"); id != "" {
		if zone, err = loadZone(strings.TrimPrefix(id, "/")); err != nil {
			return t, false, err
		}
	}
	text := strings.TrimSpace(p.Value)
	switch {
	case strings.HasSuffix(text, "Z"):
		t, err = time.Parse("20060102T150405Z", text)
	case len(text) == len("20060102"):
		whole = true
		t, err = time.ParseInLocation("20060102", text, zone)
	default:
		t, err = time.ParseInLocation("20060102T150405", text, zone)
	}
	if err != nil {
		return t, whole, fmt.Errorf("%s %q is no time", p.IANAToken, clip(text))
	}
	return t, whole, nil
}
