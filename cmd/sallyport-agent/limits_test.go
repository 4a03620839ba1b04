package main

import (
	"io"
	"strings"
	"testing"

	"sallyport.dev/agent/shell"
)

func TestSessionLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		text string
		want shell.SessionLimits
		bad  string
	}{
		"none":        {text: `servers = ["https://localhost"]`},
		"all":         {text: "session_limits {\n memory_max = \"2G\"\n pids_max = 500\n cpu_max = \"150%\"\n}", want: shell.SessionLimits{MemoryMax: 2 << 30, PidsMax: 500, CPUMax: 150}},
		"no size":     {text: "session_limits {\n memory_max = \"much\"\n}", bad: `session_limits: memory_max: "much" is not a size of at least 16M, like 512M or 2G`},
		"no number":   {text: "session_limits {\n pids_max = \"x\"\n}", bad: "pids_max: want a number"},
		"unknown key": {text: "session_limits {\n files = 3\n}", bad: `unknown key "files": allowed are cpu_max, memory_max, pids_max`},
	} {
		t.Run(name, func(t *testing.T) {
			var s settings
			err := s.decode("agent.hcl", []byte(tt.text))
			if err == nil {
				p := program{err: io.Discard, env: func(string) string { return "" }}
				cfg, cerr := p.config(s)
				if err = cerr; err == nil && cfg.SessionLimits != tt.want {
					t.Errorf("got %+v, want %+v", cfg.SessionLimits, tt.want)
				}
			}
			if tt.bad == "" && err != nil || tt.bad != "" && (err == nil || !strings.Contains(err.Error(), tt.bad)) {
				t.Errorf("got %v, want %q", err, tt.bad)
			}
		})
	}
}
