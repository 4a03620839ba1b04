package signin_test

import (
	"os"
	"path/filepath"
	"testing"

	"sallyport.dev/cli"
)

// TestMain lets copies of this program be the command line and AWS's plugin.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case "sallyport", "session-manager-plugin":
		os.Exit(cli.Main(os.Args))
	}
	os.Exit(m.Run())
}
