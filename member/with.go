package member

import (
	"fmt"
	"os"

	"github.com/hashicorp/hcl/v2/hclsimple"
)

// With adds the blocks of a file that a system for trying things out has a use for: those
// which say how people sign in and are told of requests, what is recorded and where it
// lies, and where logs, spans and the audit log are sent. Check is the caller's.
func (c *Config) With(path string) error {
	var more struct {
		SignIn     *SignIn     `hcl:"sign_in,block"`
		OnCall     []OnCall    `hcl:"on_call,block"`
		Slack      *Slack      `hcl:"slack,block"`
		Webhooks   []*Webhook  `hcl:"webhook,block"`
		SMTP       *SMTP       `hcl:"smtp,block"`
		Sessions   *Sessions   `hcl:"sessions,block"`
		Recordings *Recordings `hcl:"recordings,block"`
		Search     *Search     `hcl:"search,block"`
		Audit      *Audit      `hcl:"audit,block"`
		AWSLogs    *AWSLogs    `hcl:"aws_logs,block"`
		Tracing    *Tracing    `hcl:"tracing,block"`
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	// hclsimple knows files of HCL by their names.
	if err := hclsimple.Decode(path+".hcl", text, nil, &more); err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	c.SignIn, c.OnCall, c.Slack, c.Webhooks, c.SMTP = more.SignIn, more.OnCall, more.Slack, more.Webhooks, more.SMTP
	c.Sessions, c.Recordings, c.Search = more.Sessions, more.Recordings, more.Search
	c.Audit, c.AWSLogs, c.Tracing = more.Audit, more.AWSLogs, more.Tracing
	return nil
}
