package oncall

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/flow"
	"sallyport.dev/identity"
)

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// staff are the users that there are.
type staff []identity.User

func (s staff) Users(context.Context, identity.Page) ([]identity.User, error) { return s, nil }

func people() staff {
	return staff{
		{Name: "jane", Tags: identity.Tags{"Email": "jane@example.com"}},
		{Name: "bob", Tags: identity.Tags{"email": "Bob@Example.com, bob@old.example.com"}},
		{Name: "dave@example.com"},
		{Name: "gone", Tags: identity.Tags{"Email": "gone@example.com"}, Disabled: true},
		{Name: "twin1", Tags: identity.Tags{"Email": "twin@example.com"}},
		{Name: "twin2", Tags: identity.Tags{"Email": "twin@example.com"}},
	}
}

func token(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// pagerDutyFake answers GET /oncalls as PagerDuty does.
type pagerDutyFake struct {
	t       *testing.T
	oncalls []map[string]any
	broken  atomic.Bool
	asked   atomic.Int64
}

func (f *pagerDutyFake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.asked.Add(1)
	if f.broken.Load() {
		http.Error(w, `{"error":{"message":"Internal Server Error","code":2000}}`, http.StatusInternalServerError)
		return
	}
	if r.Header.Get("Authorization") != "Token token=s3cret" || r.Header.Get("Accept") != "application/vnd.pagerduty+json;version=2" {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	q := r.URL.Query()
	if r.URL.Path != "/oncalls" || q.Get("include[]") != "users" || len(q["schedule_ids[]"]) == 0 {
		f.t.Errorf("asked %s", r.URL)
	}
	offset := 0
	fmt.Sscan(q.Get("offset"), &offset)
	page := f.oncalls[min(offset, len(f.oncalls)):]
	more := len(page) > 100
	if more {
		page = page[:100]
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"oncalls": page, "limit": 100, "offset": offset, "more": more, "total": nil})
}

func onCallOf(email, schedule, start, end string) map[string]any {
	oncall := map[string]any{
		"escalation_policy": map[string]any{"id": "PT20YPA", "type": "escalation_policy_reference"}, "escalation_level": 1,
		"schedule": map[string]any{"id": schedule, "type": "schedule_reference"},
		"user":     map[string]any{"id": "PXPGF42", "type": "user", "name": "Somebody", "summary": "Somebody", "email": email},
		"start":    nil, "end": nil,
	}
	if start != "" {
		oncall["start"], oncall["end"] = start, end
	}
	return oncall
}

func TestPagerDuty(t *testing.T) {
	const from, to = "2026-11-20T00:00:00Z", "2026-11-21T00:00:00Z"
	many := make([]map[string]any, 150)
	for i := range many {
		many[i] = onCallOf("jane@example.com", "PI7DH85", from, to)
	}
	many[149] = onCallOf("bob@example.com", "PI7DH85", from, to)
	for _, test := range []struct {
		name    string
		oncalls []map[string]any
		people  People
		want    []string
		problem string
	}{
		{name: "nobody"},
		{name: "one", oncalls: []map[string]any{onCallOf("JANE@example.com", "PI7DH85", from, to)}, want: []string{"jane"}},
		{name: "always", oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", "", "")}, want: []string{"jane"}},
		{name: "one of two addresses", oncalls: []map[string]any{onCallOf("bob@old.example.com", "PI7DH85", from, to)}, want: []string{"bob"}},
		{name: "by the user's name", oncalls: []map[string]any{onCallOf("dave@example.com", "PI7DH85", from, to)}, want: []string{"dave@example.com"}},
		{name: "by configured name", oncalls: []map[string]any{onCallOf("j.d@corp.example", "PI7DH85", from, to)}, people: People{Names: map[string]string{"J.D@corp.example": "jane"}}, want: []string{"jane"}},
		{name: "a configured name goes first", oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", from, to)}, people: People{Names: map[string]string{"jane@example.com": "bob"}}, want: []string{"bob"}},
		{name: "another schedule in the answer", oncalls: []map[string]any{onCallOf("jane@example.com", "POTHER1", from, to)}},
		{name: "a shift that is over", oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", "2026-11-19T00:00:00Z", "2026-11-20T12:00:00Z")}},
		{name: "a shift to come", oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", "2026-11-20T12:00:01Z", to)}},
		{name: "two pages", oncalls: many, want: []string{"bob", "jane"}},
		{name: "somebody unknown beside", oncalls: []map[string]any{onCallOf("eve@example.com", "PI7DH85", from, to), onCallOf("jane@example.com", "PI7DH85", from, to)}, want: []string{"jane"}},
		{name: "nobody known", oncalls: []map[string]any{onCallOf("eve@example.com", "PI7DH85", from, to)}, problem: "eve@example.com, who is no user here"},
		{name: "disabled", oncalls: []map[string]any{onCallOf("gone@example.com", "PI7DH85", from, to)}, problem: "who is no user here"},
		{name: "two of one address", oncalls: []map[string]any{onCallOf("twin@example.com", "PI7DH85", from, to)}, problem: "address of 2 users"},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := &pagerDutyFake{t: t, oncalls: test.oncalls}
			server := httptest.NewServer(fake)
			defer server.Close()
			s := New(Config{Directory: people(), PagerDuty: &Service{URL: server.URL, TokenFile: token(t), People: test.people}, Now: func() time.Time { return noon }})
			got, err := s.OnCall(t.Context(), &flow.Schedule{Name: "primary", Source: PagerDuty, Settings: map[string]string{"schedule": "PI7DH85"}}, noon)
			check(t, got, test.want, err, test.problem)
		})
	}
}

func check(t *testing.T, got, want []string, err error, problem string) {
	t.Helper()
	if problem == "" && err != nil || problem != "" && (err == nil || !strings.Contains(err.Error(), problem)) {
		t.Errorf("got error %v, want %q", err, problem)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("on duty (-want +got):\n%s", diff)
	}
}

func TestOpsgenie(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "GenieKey s3cret" {
			http.Error(w, `{"message":"Key format is not valid!","took":0.001,"requestId":"x"}`, http.StatusUnauthorized)
			return
		}
		q := r.URL.Query()
		switch {
		case r.URL.EscapedPath() == "/v2/schedules/d875e654-9b4e-4219-a803-0c26936d18de/on-calls" && q.Get("scheduleIdentifierType") == "id" && q.Get("flat") == "true" && q.Get("date") == "2026-11-20T12:00:00Z":
			fmt.Fprint(w, `{"data":{"_parent":{"id":"d875e654-9b4e-4219-a803-0c26936d18de","name":"ScheduleName","enabled":true},"onCallRecipients":["jane@example.com","bob@example.com"]},"took":0.101,"requestId":"7666738a"}`)
		case r.URL.EscapedPath() == "/v2/schedules/first%2Fline%3F/on-calls" && q.Get("scheduleIdentifierType") == "name":
			fmt.Fprint(w, `{"data":{"_parent":{},"onCallRecipients":[]},"took":0.1,"requestId":"x"}`)
		default:
			http.Error(w, `{"message":"Schedule not found","took":0.001,"requestId":"x"}`, http.StatusNotFound)
		}
	}))
	defer server.Close()
	s := New(Config{Directory: people(), Opsgenie: &Service{URL: server.URL, TokenFile: token(t)}, Now: func() time.Time { return noon }})
	for _, test := range []struct {
		settings map[string]string
		want     []string
		problem  string
	}{
		{map[string]string{"schedule": "d875e654-9b4e-4219-a803-0c26936d18de"}, []string{"bob", "jane"}, ""},
		{map[string]string{"schedule": "first/line?", "by": "name"}, nil, ""},
		{map[string]string{"schedule": "other"}, nil, "404"},
		{map[string]string{"schedule": "x", "by": "team"}, nil, "want id or name"},
		{map[string]string{}, nil, "setting schedule is missing"},
		{map[string]string{"schedule": "x", "token": "y"}, nil, "known are schedule, by"},
	} {
		got, err := s.OnCall(t.Context(), &flow.Schedule{Source: Opsgenie, Settings: test.settings}, noon)
		check(t, got, test.want, err, test.problem)
	}
}

// Answers are kept for a minute; a source that fails is an error and not what it said
// before, however often it is asked.
func TestAnswersDoNotGetStale(t *testing.T) {
	fake := &pagerDutyFake{t: t, oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", "", "")}}
	server := httptest.NewServer(fake)
	defer server.Close()
	now := noon
	s := New(Config{Directory: people(), PagerDuty: &Service{URL: server.URL, TokenFile: token(t)}, Now: func() time.Time { return now }})
	ask := func(want []string, problem string, asked int64) {
		t.Helper()
		got, err := s.OnCall(t.Context(), &flow.Schedule{Source: PagerDuty, Settings: map[string]string{"schedule": "PI7DH85"}}, now)
		check(t, got, want, err, problem)
		if n := fake.asked.Load(); n != asked {
			t.Errorf("asked %d times, want %d", n, asked)
		}
	}
	jane := []string{"jane"}
	ask(jane, "", 1)
	fake.broken.Store(true)
	now = now.Add(59 * time.Second)
	ask(jane, "", 1)
	now = now.Add(2 * time.Second)
	ask(nil, "500", 2)
	ask(nil, "500", 2) // failures are kept for a moment, too
	fake.broken.Store(false)
	now = now.Add(11 * time.Second)
	ask(jane, "", 3)
}

func TestManyAskOnce(t *testing.T) {
	fake := &pagerDutyFake{t: t, oncalls: []map[string]any{onCallOf("jane@example.com", "PI7DH85", "", "")}}
	server := httptest.NewServer(fake)
	defer server.Close()
	s := New(Config{Directory: people(), PagerDuty: &Service{URL: server.URL, TokenFile: token(t)}, Now: func() time.Time { return noon }})
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			got, err := s.OnCall(t.Context(), &flow.Schedule{Source: PagerDuty, Settings: map[string]string{"schedule": "PI7DH85"}}, noon)
			check(t, got, []string{"jane"}, err, "")
		})
	}
	all.Wait()
	if n := fake.asked.Load(); n != 1 {
		t.Errorf("asked %d times, want once", n)
	}
}

// A service is asked within bounds, and its token goes nowhere else.
func TestServiceBounds(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("the redirect was followed, with %q", r.Header.Get("Authorization"))
	}))
	defer elsewhere.Close()
	for name, test := range map[string]struct {
		handler http.HandlerFunc
		problem string
	}{
		"redirects":  {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) }, "redirects"},
		"endless":    {func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, maxAnswer+1)) }, "more than 1048576 bytes"},
		"slow":       {func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, "deadline"},
		"no JSON":    {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, "reading the answer"},
		"forbidden":  {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusForbidden) }, "403"},
		"other JSON": {func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "{}") }, "has no data"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(test.handler)
			defer server.Close()
			s := New(Config{Directory: people(), Opsgenie: &Service{URL: server.URL, TokenFile: token(t)}, Now: func() time.Time { return noon }, Timeout: 300 * time.Millisecond})
			_, err := s.OnCall(t.Context(), &flow.Schedule{Source: Opsgenie, Settings: map[string]string{"schedule": "x"}}, noon)
			check(t, nil, nil, err, test.problem)
			if err != nil && strings.Contains(err.Error(), "s3cret") {
				t.Errorf("the error has the token: %v", err)
			}
		})
	}
	s := New(Config{Directory: people(), Opsgenie: &Service{URL: "http://127.0.0.1:1", TokenFile: filepath.Join(t.TempDir(), "none")}})
	_, err := s.OnCall(t.Context(), &flow.Schedule{Source: Opsgenie, Settings: map[string]string{"schedule": "x"}}, noon)
	check(t, nil, nil, err, "reading the token")
}

func TestSettings(t *testing.T) {
	s := New(Config{Directory: people()})
	for _, test := range []struct {
		source   string
		settings map[string]string
		want     string
	}{
		{"cron", nil, "want pagerduty, opsgenie, ical or rota"},
		{PagerDuty, map[string]string{"schedule": "x"}, `lacks the block on_call "pagerduty"`},
		{Opsgenie, map[string]string{"schedule": "x"}, `lacks the block on_call "opsgenie"`},
		{Calendar, nil, "one of the settings url and file"},
		{Calendar, map[string]string{"url": "http://calendar.example/a.ics"}, "must be https://"},
		{Calendar, map[string]string{"url": "https://user:pass@calendar.example/a.ics"}, "must be https://"},
		{Calendar, map[string]string{"file": "a.ics"}, "needs a folder"},
		{Calendar, map[string]string{"url": "https://calendar.example/a.ics", "person": "organizer"}, "want summary or attendee"},
		{Calendar, map[string]string{"url": "https://calendar.example/a.ics", "pattern": "On call: .*"}, "one group"},
		{Calendar, map[string]string{"url": "https://calendar.example/a.ics", "zone": "Mars/Olympus"}, "is not known"},
		{Rota, nil, "lacks users"},
	} {
		err := s.Check(&flow.Schedule{Source: test.source, Settings: test.settings})
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s %v: got %v, want %q", test.source, test.settings, err, test.want)
		}
	}
}

func TestRota(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	weekly := flow.Rota{Start: time.Date(2026, 3, 2, 9, 0, 0, 0, berlin), Shift: 7 * day, Users: []string{"a", "b", "c"}, Zone: "Europe/Berlin"}
	office := weekly
	office.Hours, office.Days = "09:00-17:00", []string{"mon", "tue", "wed", "thu", "fri"}
	night := weekly
	night.Hours, night.Days = "22:00-06:00", []string{"fri"}
	halves := flow.Rota{Start: time.Date(2026, 3, 28, 12, 0, 0, 0, berlin), Shift: 12 * time.Hour, Users: []string{"a", "b"}, Zone: "Europe/Berlin"}
	at := func(text string) time.Time {
		when, err := time.ParseInLocation("2006-01-02 15:04", text, berlin)
		if err != nil {
			t.Fatal(err)
		}
		return when
	}
	for _, test := range []struct {
		name string
		rota flow.Rota
		at   time.Time
		want string
	}{
		{"before it begins", weekly, at("2026-03-02 08:59"), ""},
		{"at its beginning", weekly, at("2026-03-02 09:00"), "a"},
		{"at the end of a turn", weekly, at("2026-03-09 08:59"), "a"},
		{"at the next", weekly, at("2026-03-09 09:00"), "b"},
		{"round again", weekly, at("2026-03-23 09:00"), "a"},
		{"still nine o'clock in summer", weekly, at("2026-03-30 08:59"), "a"},
		{"changed at nine in summer", weekly, at("2026-03-30 09:00"), "b"},
		{"changed at nine in winter again", weekly, at("2026-10-26 08:59"), "a"},
		{"and not before", weekly, at("2026-10-26 09:00"), "b"},
		{"years later", weekly, at("2036-03-03 09:00"), "a"},
		{"in office hours", office, at("2026-03-03 16:59"), "a"},
		{"after office hours", office, at("2026-03-03 17:00"), ""},
		{"at the weekend", office, at("2026-03-07 10:00"), ""},
		{"on Friday night", night, at("2026-03-06 23:00"), "a"},
		{"which is not over on Saturday morning", night, at("2026-03-07 05:59"), "a"},
		{"but then", night, at("2026-03-07 06:00"), ""},
		{"and not on Friday morning", night, at("2026-03-06 05:00"), ""},
		{"twelve hours are twelve hours", halves, time.Date(2026, 3, 28, 23, 0, 0, 0, time.UTC), "b"}, // 12 h after 11:00 UTC
		{"whatever the clock did", halves, time.Date(2026, 3, 29, 11, 0, 0, 0, time.UTC), "a"},
	} {
		got, err := onRota(&test.rota, test.at)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %v, want %q", test.name, got, test.want)
		}
	}
	for problem, change := range map[string]func(*flow.Rota){
		"hours":            func(r *flow.Rota) { r.Hours = "9-5" },
		"day \"monday\"":   func(r *flow.Rota) { r.Days = []string{"monday"} },
		"zone \"Nowhere\"": func(r *flow.Rota) { r.Zone = "Nowhere" },
	} {
		bad := weekly
		change(&bad)
		_, err := onRota(&bad, noon)
		check(t, nil, nil, err, problem)
	}
}

// calendarServer serves a calendar by HTTPS on the loopback address.
func calendarServer(t *testing.T, h http.HandlerFunc) (*httptest.Server, *tls.Config) {
	t.Helper()
	server := httptest.NewTLSServer(h)
	t.Cleanup(server.Close)
	pool := x509.NewCertPool()
	pool.AddCert(server.Certificate())
	return server, &tls.Config{RootCAs: pool, ServerName: "example.com"}
}

func TestCalendarURL(t *testing.T) {
	var where string
	server, trust := calendarServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/secret-token/duty.ics":
			fmt.Fprint(w, calendarOf("DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:jane"))
		case "/moved":
			http.Redirect(w, r, where, http.StatusFound)
		case "/large":
			w.Write([]byte(strings.Repeat("BEGIN:VCALENDAR\r\n", maxCalendar/10)))
		}
	})
	host := strings.TrimPrefix(server.URL, "https://")
	listed := New(Config{Directory: people(), TLS: trust, Calendars: &Calendars{Hosts: []string{host}}, Now: func() time.Time { return noon }})
	unlisted := New(Config{Directory: people(), TLS: trust, Now: func() time.Time { return noon }})
	ask := func(s *Sources, path, problem string, want ...string) {
		t.Helper()
		got, err := s.OnCall(t.Context(), &flow.Schedule{Source: Calendar, Settings: map[string]string{"url": server.URL + path}}, noon)
		check(t, got, want, err, problem)
		if err != nil && strings.Contains(err.Error(), "secret-token") {
			t.Errorf("the error has the URL: %v", err)
		}
	}
	ask(listed, "/secret-token/duty.ics", "", "jane")
	ask(unlisted, "/secret-token/duty.ics", "its address is private")
	ask(listed, "/large", "more than")
	where = "https://localhost:1/x"
	ask(listed, "/moved", "its address is private")
	where = "http://" + host
	s := New(Config{Directory: people(), TLS: trust, Calendars: &Calendars{Hosts: []string{host}}, Now: func() time.Time { return noon }})
	ask(s, "/moved", "something else than https")
	where = server.URL + "/moved"
	s = New(Config{Directory: people(), TLS: trust, Calendars: &Calendars{Hosts: []string{host}}, Now: func() time.Time { return noon }})
	ask(s, "/moved", "redirects more than")
}

func TestCalendarFile(t *testing.T) {
	dir := t.TempDir()
	outside := filepath.Join(t.TempDir(), "secret.ics")
	for file, text := range map[string]string{
		filepath.Join(dir, "duty.ics"): calendarOf("DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:bob"),
		outside:                        calendarOf("DTSTART:20260101T000000Z\r\nDTEND:20270101T000000Z\r\nSUMMARY:jane"),
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link.ics")); err != nil {
		t.Fatal(err)
	}
	s := New(Config{Directory: people(), Calendars: &Calendars{Dir: dir}, Now: func() time.Time { return noon }})
	for _, test := range []struct {
		file    string
		want    []string
		problem string
	}{
		{"duty.ics", []string{"bob"}, ""},
		{"none.ics", nil, `opening "none.ics"`},
		{"../secret.ics", nil, "must be a name in the folder"},
		{outside, nil, "must be a name in the folder"},
		{"link.ics", nil, "opening"},
	} {
		got, err := s.OnCall(t.Context(), &flow.Schedule{Source: Calendar, Settings: map[string]string{"file": test.file}}, noon)
		check(t, got, test.want, err, test.problem)
	}
}
