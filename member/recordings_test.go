package member

import (
	"strings"
	"testing"
	"time"
)

// Mistakes in the block name the key and what is allowed.
func TestRecordingsConfig(t *testing.T) {
	for text, want := range map[string]string{
		`spool_limit = "lots"`:         "recordings.spool_limit",
		`spool_limit = "1GB"`:          "such as 1GiB",
		`spool_limit = "1MiB"`:         "from 16MiB",
		`when_full = "panic"`:          `recordings.when_full: "panic": want "refuse" or "end"`,
		`chunk_interval = "1ms"`:       "recordings.chunk_interval",
		`chunk_interval = "soon"`:      "from 1s to 1h",
		`store = "ftp://example.com/"`: "recordings.store",
	} {
		if _, err := load(t, goodConfig+"recordings {\n"+text+"\n}\n"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", text, err, want)
		}
	}
	c, err := load(t, goodConfig+`recordings {
		store          = "s3://bucket/prefix?region=eu-west-1"
		spool          = "/var/spool/sallyport"
		spool_limit    = "512MiB"
		when_full      = "end"
		chunk_interval = "30s"
	}`)
	if err != nil {
		t.Fatal(err)
	}
	if r := c.Recordings; r.spoolLimit != 512<<20 || r.chunkInterval != 30*time.Second || r.Spool != "/var/spool/sallyport" {
		t.Errorf("got %+v", r)
	}
}
