package server

import (
	"context"
	"encoding/json"
	"errors"

	"sallyport.dev/access"
	"sallyport.dev/awslog"
	"sallyport.dev/document"
	"sallyport.dev/session"
)

// SessionLogs writes the text of sessions to S3 and CloudWatch Logs, where their documents
// say. *awslog.Keeper does.
type SessionLogs interface {
	// Check returns an *awslog.Refusal where a session is not to begin.
	Check(ctx context.Context, o awslog.Outputs) error
	// Jobs returns what is written of sessions.
	Jobs(ctx context.Context, sessions []string) ([]awslog.Job, error)
}

// outputs are where the document has the session's text written. Those of commands are
// written when they end, as AWS does it.
func (p *plan) outputs() awslog.Outputs {
	in := p.inputs()
	return awslog.Outputs{
		Bucket: in.S3BucketName, Prefix: in.S3KeyPrefix, BucketEncrypted: in.S3EncryptionEnabled,
		LogGroup: in.CloudWatchLogGroupName, GroupEncrypted: in.CloudWatchEncryptionEnabled,
		Streaming: in.CloudWatchStreamingEnabled && p.document.SessionType == document.StandardStream,
		RunAs:     p.loggedLogin(),
	}
}

// agentLogin is the login that agents give sessions that ask for none, AWS's and ours.
const agentLogin = "ssm-user"

// loggedLogin is the login that events name.
func (p *plan) loggedLogin() string {
	if login := p.loginKey(); login != access.DefaultLogin {
		return login
	}
	return agentLogin
}

// logSession completes the request for a session whose text is written to AWS, if it may
// be. What has no text, ports and file transfers, has none to be written.
func (c *Call) logSession(ctx context.Context, p *plan, req *session.StartRequest) error {
	o := p.outputs()
	if o.None() || !req.Options.Record && !req.Options.Encrypted {
		return nil
	}
	name, err := c.logDocument(ctx, p)
	if err != nil {
		return err
	}
	if !req.Options.Record {
		return ssmError("InvalidDocument", `Document %s has sessions written to S3 or CloudWatch Logs, and encrypted between client and node (kmsKeyId). This server cannot read those: its setting sessions.encrypted is not "record".`, name)
	}
	if c.Server.config.Logs == nil {
		return ssmError("InvalidDocument", "Document %s has sessions written to S3 or CloudWatch Logs (s3BucketName, cloudWatchLogGroupName). This server writes them nowhere: its configuration has no aws_logs.", name)
	}
	if err := c.Server.config.Logs.Check(ctx, o); err != nil {
		return c.logRefused(name, err)
	}
	req.Options.Log, err = json.Marshal(o)
	return err
}

// logDocument is the document that has the session written: the session's own, or the
// preferences, whose inputs it has taken over.
func (c *Call) logDocument(ctx context.Context, p *plan) (string, error) {
	d, err := c.findDocument(ctx, p.name(), "")
	if err != nil {
		return "", err
	}
	if in := d.parsed.Inputs; in.S3BucketName == "" && in.CloudWatchLogGroupName == "" {
		return document.Preferences, nil
	}
	return d.stored.Name, nil
}

// logRefused words why a session cannot be written where a document says.
func (c *Call) logRefused(name string, err error) error {
	r := (*awslog.Refusal)(nil)
	if !errors.As(err, &r) {
		return err
	}
	if r.Cause != nil {
		c.Server.config.Logger.Warn("asking AWS about the log of a session", "document", name, "error", r.Cause)
	}
	code := "InvalidDocument"
	if errors.Is(r, awslog.ErrUnknown) {
		code = "InternalServerError"
	}
	return ssmError(code, "We couldn't start the session because %s. Document: %s.", r.Text, name)
}

// sessionOutputURL is where people find what was written of a session.
type sessionOutputURL struct {
	S3OutputURL         string `json:"S3OutputUrl,omitempty"`
	CloudWatchOutputURL string `json:"CloudWatchOutputUrl,omitempty"`
}

// showLogs fills in where the text of sessions is.
func (c *Call) showLogs(ctx context.Context, all []describedSession) error {
	if c.Server.config.Logs == nil || len(all) == 0 {
		return nil
	}
	at := make(map[string]*describedSession, len(all))
	var ids []string
	for i := range all {
		at[all[i].SessionID] = &all[i]
		ids = append(ids, all[i].SessionID)
	}
	jobs, err := c.Server.config.Logs.Jobs(ctx, ids)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		at[j.ID].showLog(j)
	}
	return nil
}

func (d *describedSession) showLog(j awslog.Job) {
	if j.URL == "" {
		return
	}
	if d.OutputURL == nil {
		d.OutputURL = &sessionOutputURL{}
	}
	if j.Kind == awslog.S3 {
		d.OutputURL.S3OutputURL = j.URL
	} else {
		d.OutputURL.CloudWatchOutputURL = j.URL
	}
}
