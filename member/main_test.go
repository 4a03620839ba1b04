package member

import (
	"testing"

	"go.uber.org/goleak"
)

// Whatever a test starts has ended when it is over.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
