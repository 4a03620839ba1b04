package sallyporttest_test

import (
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"sallyport.dev/member"
	"sallyport.dev/sallyporttest"
)

var (
	metricName = regexp.MustCompile(`\bsallyport_[a-z_]+`)
	metricType = regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`)
)

// Sessions are counted by kind and by how they ended. The dashboard, the alert rules and
// the guide name metrics that there are, and the guide names all.
func TestMetrics(t *testing.T) {
	s := sallyporttest.Start(t, "a", sallyporttest.Options{Configure: func(c *member.Config) {
		c.ListenAdmin, c.SSH = "127.0.0.1:0", &member.SSH{Listen: "127.0.0.1:0"}
		c.Audit = &member.Audit{Forward: []*member.Forward{{Kind: "syslog", Name: "siem", Address: "tcp://127.0.0.1:1"}}}
		c.AWSLogs = &member.AWSLogs{S3Endpoint: "http://127.0.0.1:1", LogsEndpoint: "http://127.0.0.1:1"}
	}})
	s.Node("i-00000000000000001", nil)
	s.Shell(s.User("alice", nil, sallyporttest.Everything), "i-00000000000000001", "exit\n")
	s.Eventually(func() bool {
		return strings.Contains(scrape(t, s), `sallyport_sessions_ended_total{kind="shell",reason="exit"} 1`)
	}, "the session is counted as ended")
	text := scrape(t, s)
	for _, want := range []string{
		"sallyport_nodes_connected 1\n", `sallyport_sessions{kind="shell"} 0`, `sallyport_sessions_started_total{kind="shell"} 1`,
		`sallyport_api_calls_total{code="",operation="ssm:StartSession"} 1`, "sallyport_store_errors_total 0\n", "sallyport_audit_errors_total 0\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	there := map[string]bool{}
	for _, m := range metricType.FindAllStringSubmatch(text, -1) {
		there[m[1]] = true
	}
	for _, file := range []string{"packaging/grafana/sallyport.json", "packaging/prometheus/sallyport.rules.yml", "docs/metrics.md"} {
		text, err := os.ReadFile("../" + file)
		if err != nil {
			t.Fatal(err)
		}
		named := metricName.FindAllString(string(text), -1)
		for _, name := range slices.Compact(slices.Sorted(slices.Values(named))) {
			if base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, ""); !there[name] && !there[base] {
				t.Errorf("%s names %s, which a member does not show", file, name)
			}
		}
		if file != "docs/metrics.md" {
			continue
		}
		for name := range there {
			if strings.HasPrefix(name, "sallyport_") && !slices.Contains(named, name) {
				t.Errorf("%s does not name %s", file, name)
			}
		}
	}
}

func scrape(t *testing.T, s *sallyporttest.System) string {
	t.Helper()
	answer, err := http.Get(s.AdminURL() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
