package main

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport.dev/agent/keysync"
)

func TestKeySyncBlocks(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []keysync.Config
		err        string
	}{
		{name: "all of it", text: `
			key_sync "deploy" {
			  group          = "ops"
			  root_key       = "ssh-ed25519 AAAA root"
			}
			key_sync "web" {
			  groups         = ["web", "ops"]
			  root_keys_file = "/etc/sallyport/root-keys"
			  file           = "/etc/ssh/keys/web"
			  max_age        = "24h"
			  every          = "1m"
			}`,
			want: []keysync.Config{
				{Login: "deploy", Groups: []string{"ops"}, RootKeys: []string{"ssh-ed25519 AAAA root"}},
				{Login: "web", Groups: []string{"web", "ops"}, RootKeysFile: "/etc/sallyport/root-keys",
					File: "/etc/ssh/keys/web", MaxAge: 24 * time.Hour, Every: time.Minute},
			}},
		{name: "no login", text: `key_sync { group = "ops" }`, err: `want key_sync "LOGIN"`},
		{name: "an unknown key", text: `key_sync "x" { grop = "ops" }`, err: `unknown key "grop"`},
		{name: "a bad duration", text: `key_sync "x" { max_age = "a day" }`, err: "max_age"},
		{name: "a block in it", text: "key_sync \"x\" {\n y {\n }\n}", err: "no blocks"},
	} {
		var s settings
		err := s.decode("agent.hcl", []byte(tt.text))
		if (err == nil) != (tt.err == "") || err != nil && !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.err)
		}
		if d := cmp.Diff(tt.want, s.KeySync); tt.err == "" && d != "" {
			t.Errorf("%s (-want, +got):\n%s", tt.name, d)
		}
	}
}
