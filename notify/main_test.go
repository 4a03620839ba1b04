package notify_test

import (
	"net/http"
	"os"
	"testing"

	"go.uber.org/goleak"
)

// Whatever a test starts has ended when it is over.
func TestMain(m *testing.M) {
	status := m.Run()
	http.DefaultClient.CloseIdleConnections()
	if status == 0 {
		if err := goleak.Find(goleak.IgnoreTopFunction("net/http.(*persistConn).writeLoop")); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			status = 1
		}
	}
	os.Exit(status)
}
