package main

import (
	"os"
	"strings"
	"testing"
)

// TestUnit keeps out of the systemd unit what people's shells would inherit.
func TestUnit(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/sallyport-agent.service")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(unit)) {
		for _, key := range []string{"UMask=", "OOMScoreAdjust=", "Nice=", "IOSchedulingClass=", "LimitCORE=", "LimitNOFILE=", "LimitNPROC=", "NoNewPrivileges=", "Environment=LD_"} {
			if strings.HasPrefix(line, key) {
				t.Errorf("shells would inherit %s", line)
			}
		}
	}
}
