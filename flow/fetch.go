package flow

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const (
	defaultFetch = 3 * time.Second
	maxFetch     = 10 * time.Second
)

var hostForm = regexp.MustCompile(`^(\*\.)?([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]([a-z0-9-]*[a-z0-9])?$`)

// checkHost refuses what no allow-list may say: addresses, and names without a dot, which
// mean something else on every network.
func checkHost(host string) error {
	name, port, ok := strings.Cut(host, ":")
	if n, err := strconv.Atoi(port); ok && (err != nil || n < 1 || n > 65535) || len(name) > 253 || !hostForm.MatchString(name) {
		return fmt.Errorf("got %q, want the DNS name of a public host in small letters, such as api.example.com or *.example.com", host)
	}
	return nil
}
