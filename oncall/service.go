package oncall

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"sallyport.dev/flow"
)

// URLs of the services' APIs.
const (
	pagerDutyURL = "https://api.pagerduty.com"
	opsgenieURL  = "https://api.opsgenie.com"
)

const (
	maxAnswer = 1 << 20 // bytes
	maxPages  = 10
	pageSize  = 100
)

// Shapes of PagerDuty's REST API v2, GET /oncalls.
type pagerDutyAnswer struct {
	OnCalls []struct {
		User struct {
			ID      string `json:"id"`
			Summary string `json:"summary"`
			Name    string `json:"name"`
			Email   string `json:"email"`
		} `json:"user"`
		Schedule *struct {
			ID string `json:"id"`
		} `json:"schedule"`
		Start *time.Time `json:"start"`
		End   *time.Time `json:"end"`
	} `json:"oncalls"`
	More bool `json:"more"`
}

// pagerDuty asks who is on call by a schedule, or by several with commas between.
func (s *Sources) pagerDuty(ctx context.Context, sched *flow.Schedule, at time.Time) ([]someone, error) {
	wanted := map[string]bool{}
	query := url.Values{"include[]": {"users"}, "limit": {strconv.Itoa(pageSize)},
		"since": {at.UTC().Format(time.RFC3339)}, "until": {at.UTC().Add(time.Second).Format(time.RFC3339)}}
	for id := range strings.SplitSeq(sched.Settings["schedule"], ",") {
		wanted[strings.TrimSpace(id)] = true
		query.Add("schedule_ids[]", strings.TrimSpace(id))
	}
	var found []someone
	for page := range maxPages {
		query.Set("offset", strconv.Itoa(page*pageSize))
		var answer pagerDutyAnswer
		if err := s.get(ctx, s.config.PagerDuty, pagerDutyURL, "/oncalls?"+query.Encode(), http.Header{
			"Accept": {"application/vnd.pagerduty+json;version=2"},
		}, "Token token=", &answer); err != nil {
			return nil, err
		}
		for _, o := range answer.OnCalls {
			now := (o.Start == nil || !o.Start.After(at)) && (o.End == nil || o.End.After(at))
			if o.Schedule != nil && wanted[o.Schedule.ID] && now {
				found = append(found, someone{email: o.User.Email, name: cmp.Or(o.User.Name, o.User.Summary)})
			}
		}
		if !answer.More {
			return found, nil
		}
	}
	return nil, fmt.Errorf("more than %d people on duty", maxPages*pageSize)
}

// opsgenieAnswer is that of GET /v2/schedules/ID/on-calls?flat=true.
type opsgenieAnswer struct {
	Data *struct {
		Recipients []string `json:"onCallRecipients"`
	} `json:"data"`
}

// opsgenie asks who is on call by a schedule, named by its id, or by its name where the
// setting by says so.
func (s *Sources) opsgenie(ctx context.Context, sched *flow.Schedule, at time.Time) ([]someone, error) {
	by := cmp.Or(sched.Settings["by"], "id")
	if by != "id" && by != "name" {
		return nil, fmt.Errorf("setting by is %q: want id or name", by)
	}
	query := url.Values{"scheduleIdentifierType": {by}, "flat": {"true"}, "date": {at.UTC().Format(time.RFC3339)}}
	var answer opsgenieAnswer
	path := "/v2/schedules/" + url.PathEscape(sched.Settings["schedule"]) + "/on-calls?" + query.Encode()
	if err := s.get(ctx, s.config.Opsgenie, opsgenieURL, path, nil, "GenieKey ", &answer); err != nil {
		return nil, err
	}
	if answer.Data == nil {
		return nil, errors.New("the answer has no data")
	}
	var found []someone
	for _, r := range answer.Data.Recipients {
		found = append(found, someone{email: r})
	}
	return found, nil
}

// get asks a service and reads its JSON.
func (s *Sources) get(ctx context.Context, service *Service, standard, path string, header http.Header, scheme string, into any) error {
	token, err := readToken(service.TokenFile)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(cmp.Or(service.URL, standard), "/")+path, nil)
	if err != nil {
		return errors.New("its URL is not valid")
	}
	if header != nil {
		req.Header = header
	}
	req.Header.Set("Authorization", scheme+token)
	body, err := fetch(s.apiClient(), req, maxAnswer)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// maxToken bounds token files, in bytes.
const maxToken = 4096

func readToken(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("reading the token: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || len(token) > maxToken || strings.ContainsAny(token, "\r\n") {
		return "", fmt.Errorf("token file %s must hold one line of at most %d bytes", file, maxToken)
	}
	return token, nil
}
