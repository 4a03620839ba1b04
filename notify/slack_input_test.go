package notify

import (
	"testing"

	"github.com/slack-go/slack"

	"sallyport.dev/flow"
)

// Slack takes no text that the server refuses for its length, but lists, of which each
// value may be that long.
func TestTextInputs(t *testing.T) {
	for kind, want := range map[flow.FieldType]int{flow.FieldString: 1000, flow.FieldStringList: maxInputs} {
		e, ok := fieldElement(flow.Field{Name: "x", Type: kind}).(*slack.PlainTextInputBlockElement)
		if !ok || e.MaxLength != want {
			t.Errorf("%s: got %+v, want %d characters", kind, e, want)
		}
	}
}
