package cli

import (
	"bytes"
	"encoding/json"
	"testing"
)

// JSON on a terminal does nothing there, and means what it meant.
func TestJSONIsInert(t *testing.T) {
	in := map[string]string{"a\u009b": "x\x1b[2J\u202e\u2066\u2028\u200b\x7f\U000E0041é<&>\\u0041"}
	var b bytes.Buffer
	if err := encodeJSON(&b, in, ""); err != nil {
		t.Fatal(err)
	}
	if got, want := b.String(), `{"a\u009b":"x\u001b[2J\u202e\u2066\u2028\u200b\u007f\udb40\udc41é<&>\\u0041"}`+"\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var out map[string]string
	if err := json.Unmarshal(b.Bytes(), &out); err != nil || out["a\u009b"] != in["a\u009b"] {
		t.Errorf("read back: got %q, %v", out, err)
	}
}
