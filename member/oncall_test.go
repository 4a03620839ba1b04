package member

import (
	"strings"
	"testing"
)

func TestOnCallBlocks(t *testing.T) {
	dir := t.TempDir()
	for _, test := range []struct {
		name   string
		blocks []OnCall
		want   string
	}{
		{"none", nil, ""},
		{"all", []OnCall{{Source: "pagerduty", TokenFile: "t"}, {Source: "opsgenie", TokenFile: "t", URL: "https://api.eu.opsgenie.com"}, {Source: "ical", Dir: dir}}, ""},
		{"a fake on this machine", []OnCall{{Source: "pagerduty", TokenFile: "t", URL: "http://127.0.0.1:8080"}}, ""},
		{"twice", []OnCall{{Source: "ical"}, {Source: "ical"}}, `on_call "ical": is given twice`},
		{"unknown", []OnCall{{Source: "nagios"}}, `on_call "nagios": want pagerduty, opsgenie or ical`},
		{"no token", []OnCall{{Source: "pagerduty"}}, "token_file: missing"},
		{"plain HTTP", []OnCall{{Source: "pagerduty", TokenFile: "t", URL: "http://pagerduty.example:80"}}, "is plain HTTP"},
		{"no URL", []OnCall{{Source: "pagerduty", TokenFile: "t", URL: "pagerduty.example"}}, "is not https://HOST"},
		{"a folder for a service", []OnCall{{Source: "pagerduty", TokenFile: "t", Dir: dir}}, "are for ical"},
		{"a token for calendars", []OnCall{{Source: "ical", TokenFile: "t"}}, "are for services"},
		{"no folder", []OnCall{{Source: "ical", Dir: dir + "/none"}}, "dir: "},
	} {
		err := checkOnCall(test.blocks)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
}
