package oncall

import (
	"context"
	"strings"
	"testing"
	"time"

	"sallyport.dev/flow"
)

// calendarOf is a calendar with one event for each of the given properties.
func calendarOf(events ...string) string {
	var b strings.Builder
	b.WriteString("BEGIN:VCALENDAR\r\nVERSION:2.0\r\nPRODID:-//test//EN\r\n")
	for i, e := range events {
		if !strings.Contains(e, "UID:") {
			b.WriteString("BEGIN:VEVENT\r\nUID:" + string(rune('a'+i)) + "@example.com\r\n")
		} else {
			b.WriteString("BEGIN:VEVENT\r\n")
		}
		b.WriteString("DTSTAMP:20260101T000000Z\r\n" + e + "\r\nEND:VEVENT\r\n")
	}
	b.WriteString("END:VCALENDAR\r\n")
	return b.String()
}

// naming of people in summaries, so that tests read as calendars do.
func onDuty(t *testing.T, text string, settings map[string]string, at time.Time) (string, error) {
	t.Helper()
	zone, err := loadZone(settings["zone"])
	if err != nil {
		t.Fatal(err)
	}
	who, err := newNaming(&flow.Schedule{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	events, err := eventsAt(context.Background(), []byte(text), zone, at)
	var names []string
	for _, e := range events {
		for _, o := range who.named(e) {
			names = append(names, o.String())
		}
	}
	return strings.Join(names, " "), err
}

func TestCalendars(t *testing.T) {
	const weekly = "DTSTART;TZID=Europe/Berlin:20260302T090000\r\nDTEND;TZID=Europe/Berlin:20260309T090000\r\nRRULE:FREQ=WEEKLY;INTERVAL=2\r\nSUMMARY:jane"
	for _, test := range []struct {
		name     string
		events   []string
		settings map[string]string
		at       string // UTC
		want     string
	}{
		{name: "no event", at: "2026-11-20 12:00"},
		{name: "before", events: []string{"DTSTART:20261120T120000Z\r\nDTEND:20261120T130000Z\r\nSUMMARY:jane"}, at: "2026-11-20 11:59"},
		{name: "at its start", events: []string{"DTSTART:20261120T120000Z\r\nDTEND:20261120T130000Z\r\nSUMMARY:jane"}, at: "2026-11-20 12:00", want: "jane"},
		{name: "at its end", events: []string{"DTSTART:20261120T120000Z\r\nDTEND:20261120T130000Z\r\nSUMMARY:jane"}, at: "2026-11-20 13:00"},
		{name: "by duration", events: []string{"DTSTART:20261120T120000Z\r\nDURATION:P1DT1H\r\nSUMMARY:jane"}, at: "2026-11-21 12:59", want: "jane"},
		{name: "a whole day", events: []string{"DTSTART;VALUE=DATE:20261120\r\nSUMMARY:jane"}, at: "2026-11-20 23:59", want: "jane"},
		{name: "a whole day elsewhere", events: []string{"DTSTART;VALUE=DATE:20261120\r\nSUMMARY:jane"}, settings: map[string]string{"zone": "America/New_York"}, at: "2026-11-21 04:59", want: "jane"},
		{name: "floating times are of the zone", events: []string{"DTSTART:20261120T090000\r\nDTEND:20261120T170000\r\nSUMMARY:jane"}, settings: map[string]string{"zone": "America/New_York"}, at: "2026-11-20 14:00", want: "jane"},
		{name: "a zone", events: []string{"DTSTART;TZID=Europe/Berlin:20260701T090000\r\nDTEND;TZID=Europe/Berlin:20260701T100000\r\nSUMMARY:jane"}, at: "2026-07-01 07:00", want: "jane"},
		{name: "every other week", events: []string{weekly}, at: "2026-03-16 08:00", want: "jane"},
		{name: "not in between", events: []string{weekly}, at: "2026-03-09 08:00"},
		{name: "handed over at nine in summer", events: []string{weekly}, at: "2026-04-06 06:59", want: "jane"},
		{name: "and no later", events: []string{weekly}, at: "2026-04-06 07:00"},
		{name: "over the change of clocks", events: []string{"DTSTART;TZID=Europe/Berlin:20260320T090000\r\nDTEND;TZID=Europe/Berlin:20260321T090000\r\nRRULE:FREQ=DAILY\r\nEXDATE;TZID=Europe/Berlin:20260329T090000\r\nSUMMARY:jane"}, at: "2026-03-29 06:59", want: "jane"},
		{name: "not an hour more", events: []string{"DTSTART;TZID=Europe/Berlin:20260320T090000\r\nDTEND;TZID=Europe/Berlin:20260321T090000\r\nRRULE:FREQ=DAILY\r\nEXDATE;TZID=Europe/Berlin:20260329T090000\r\nSUMMARY:jane"}, at: "2026-03-29 07:00"},
		{name: "until", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY;UNTIL=20260110T000000Z\r\nSUMMARY:jane"}, at: "2026-01-11 00:00"},
		{name: "counted", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY;COUNT=3\r\nSUMMARY:jane"}, at: "2026-01-03 12:00", want: "jane"},
		{name: "counted, over", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY;COUNT=3\r\nSUMMARY:jane"}, at: "2026-01-04 12:00"},
		{name: "half days", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260101T120000Z\r\nRRULE:FREQ=HOURLY;INTERVAL=24\r\nSUMMARY:jane"}, at: "2026-11-20 11:00", want: "jane"},
		{name: "a date more", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRDATE:20260301T000000Z,20260305T000000Z\r\nSUMMARY:jane"}, at: "2026-03-05 12:00", want: "jane"},
		{name: "a date less", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY\r\nEXDATE:20260104T000000Z,20260105T000000Z\r\nSUMMARY:jane"}, at: "2026-01-05 12:00"},
		{name: "an instance that somebody else took", events: []string{
			"UID:x\r\nDTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY\r\nSUMMARY:jane",
			"UID:x\r\nRECURRENCE-ID:20260105T000000Z\r\nDTSTART:20260105T000000Z\r\nDTEND:20260106T000000Z\r\nSUMMARY:bob",
		}, at: "2026-01-05 12:00", want: "bob"},
		{name: "the others stay", events: []string{
			"UID:x\r\nDTSTART:20260101T000000Z\r\nDTEND:20260102T000000Z\r\nRRULE:FREQ=DAILY\r\nSUMMARY:jane",
			"UID:x\r\nRECURRENCE-ID:20260105T000000Z\r\nDTSTART:20260105T000000Z\r\nDTEND:20260106T000000Z\r\nSUMMARY:bob",
		}, at: "2026-01-06 12:00", want: "jane"},
		{name: "cancelled", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSTATUS:CANCELLED\r\nSUMMARY:jane"}, at: "2026-11-20 12:00"},
		{name: "attendees before the summary", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nATTENDEE;CN=Jane;PARTSTAT=ACCEPTED:mailto:Jane@example.com\r\nATTENDEE;PARTSTAT=DECLINED:mailto:bob@example.com\r\nSUMMARY:On call"}, at: "2026-11-20 12:00", want: "jane@example.com"},
		{name: "the summary alone", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nATTENDEE:mailto:bob@example.com\r\nSUMMARY:jane"}, settings: map[string]string{"person": "summary"}, at: "2026-11-20 12:00", want: "jane"},
		{name: "by pattern", events: []string{
			"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:On call: jane\\, really",
			"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:Lunch",
		}, settings: map[string]string{"pattern": "^On call: (.*)$"}, at: "2026-11-20 12:00", want: "jane, really"},
		{name: "folded lines", events: []string{"DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:ja\r\n ne"}, at: "2026-11-20 12:00", want: "jane"},
	} {
		t.Run(test.name, func(t *testing.T) {
			at, err := time.Parse("2006-01-02 15:04", test.at)
			if err != nil {
				t.Fatal(err)
			}
			got, err := onDuty(t, calendarOf(test.events...), test.settings, at)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What cannot be read for certain is an error; what would take long is not tried.
func TestCalendarMistakes(t *testing.T) {
	const all = "DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:jane\r\n"
	for _, test := range []struct{ name, text, want string }{
		{"a page", "<html>", "no BEGIN:VCALENDAR"},
		{"nothing", "", "no BEGIN:VCALENDAR"},
		{"half a calendar", "BEGIN:VCALENDAR\r\nBEGIN:VEVENT\r\n", "reading the calendar"},
		{"deep", "BEGIN:VCALENDAR\r\n" + strings.Repeat("BEGIN:VEVENT\r\n", 100000), "too deep"},
		{"deep, in small letters", "BEGIN:VCALENDAR\r\n" + strings.Repeat("begin:vevent\r\n", 100000), "too deep"},
		{"deep, with parameters", "BEGIN:VCALENDAR\r\n" + strings.Repeat("BEGIN;A=B:VEVENT\r\n", 100000), "too deep"},
		{"deep, folded", "BEGIN:VCALENDAR\r\n" + strings.Repeat("BEG\r\n IN:VEVENT\r\n", 100000), "too deep"},
		{"deep, folded with tabs", "BEGIN:VCALENDAR\r\n" + strings.Repeat("B\n\tEGIN;A=\n\tB:VEVENT\n", 100000), "too deep"},
		{"deep, behind other characters", "BEGIN:VCALENDAR\r\n" + strings.Repeat("\ufeff!BEGIN:VEVENT\r\n", 100000), "too deep"},
		{"deep, with ends that are none", "BEGIN:VCALENDAR\r\n" + strings.Repeat("BEGIN:VEVENT\r\nend:VEVENT\r\n", 100000), "too deep"},
		{"parameters", "BEGIN:VCALENDAR\r\nX" + strings.Repeat(";A=B", 1000000) + ":c\r\nEND:VCALENDAR\r\n", "too many parameters"},
		{"values of a parameter", "BEGIN:VCALENDAR\r\nX;A=" + strings.Repeat("B,", 1000000) + "B:c\r\nEND:VCALENDAR\r\n", "too many parameters"},
		{"no start", calendarOf("SUMMARY:jane"), "no DTSTART"},
		{"no time", calendarOf("DTSTART:tomorrow\r\nSUMMARY:jane"), "is no time"},
		{"an unknown zone", calendarOf("DTSTART;TZID=W. Europe Standard Time:20260101T000000\r\nDURATION:P1D\r\nSUMMARY:jane"), `zone "W. Europe Standard Time" is not known`},
		{"a bad duration", calendarOf("DTSTART:20260101T000000Z\r\nDURATION:soon\r\nSUMMARY:jane"), "DURATION"},
		{"the end before the start", calendarOf("DTSTART:20260102T000000Z\r\nDTEND:20260101T000000Z\r\nSUMMARY:jane"), "ends before it starts"},
		{"every second", calendarOf(all + "RRULE:FREQ=SECONDLY"), "not supported"},
		{"every minute", calendarOf(all + "RRULE:freq=minutely"), "not supported"},
		{"hours by days", calendarOf(all + "RRULE:FREQ=HOURLY;BYMONTH=2;BYMONTHDAY=30"), "not supported"},
		{"every hour for long", calendarOf("DTSTART:19000101T000000Z\r\nDTEND:19000101T010000Z\r\nRRULE:FREQ=HOURLY\r\nSUMMARY:jane"), "more than 100000 instances"},
		{"no rule", calendarOf(all + "RRULE:whenever"), "RRULE"},
		{"exceptions by rule", calendarOf(all + "EXRULE:FREQ=DAILY"), "EXRULE"},
		{"periods", calendarOf(all + "RDATE;VALUE=PERIOD:20260101T000000Z/P1D"), "periods"},
		{"this and future", calendarOf(all + "RECURRENCE-ID;RANGE=THISANDFUTURE:20260101T000000Z"), "RANGE"},
	} {
		_, err := onDuty(t, test.text, nil, noon)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}

func FuzzCalendar(f *testing.F) {
	f.Add(calendarOf("DTSTART;TZID=Europe/Berlin:20260302T090000\r\nDTEND;TZID=Europe/Berlin:20260309T090000\r\nRRULE:FREQ=WEEKLY;INTERVAL=2\r\nEXDATE:20260316T080000Z\r\nSUMMARY:jane"))
	f.Add(calendarOf("DTSTART;VALUE=DATE:20261120\r\nDURATION:P1W\r\nATTENDEE;PARTSTAT=DECLINED:mailto:a@b"))
	f.Add("BEGIN:VCALENDAR\r\n" + strings.Repeat("BEG\r\n IN;A=B:VEVENT\r\n", 20))
	f.Add("\ufeffBEGIN:VCALENDAR\r\nX;A=\"b;c\",d:e\r\nBEGIN:VEVENT\r\nend:VEVENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		events, err := eventsAt(ctx, []byte(text), time.UTC, noon)
		if took := time.Since(begin); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		if err != nil {
			return
		}
		for _, e := range events {
			naming{summary: true, attendees: true}.named(e)
		}
	})
}
