package member

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"iter"
	"regexp"
	"strings"
	"time"

	"sallyport.dev/archive/bucket"
	"sallyport.dev/audit/checkpoint"
	"sallyport.dev/audit/format"
	"sallyport.dev/audit/forward"
	"sallyport.dev/identity"
	"sallyport.dev/server"
	"sallyport.dev/store"
	"sallyport.dev/wire"
)

// Audit says how the audit log is secured and where it is sent; docs/audit.md.
type Audit struct {
	// CheckpointEvery is how old a checkpoint gets before the next, from 10s to 24h; 5m
	// by default.
	CheckpointEvery string `hcl:"checkpoint_every,optional"`
	// Forward are the places that the log is sent to as it grows.
	Forward []*Forward `hcl:"forward,block"`

	every time.Duration
}

// Forward sends the audit log to one place.
type Forward struct {
	Kind string `hcl:"kind,label"` // syslog, webhook, s3
	// Name is the destination's, with its kind: under it the database keeps how far the
	// log was sent. A new name begins anew.
	Name string `hcl:"name,label"`
	// Format is json (by default), ocsf or ecs.
	Format string `hcl:"format,optional"`
	// From is beginning (by default: all that is in the log) or now.
	From string `hcl:"from,optional"`

	// Address of syslog: tcp+tls://HOST:PORT, or tcp:// on a loopback address.
	Address string `hcl:"address,optional"`
	// StructuredDataID is the SD-ID of RFC 5424; sallyport@32473 by default.
	StructuredDataID string `hcl:"structured_data_id,optional"`
	// Facility is that of RFC 5424, 0 to 23; 13 (log audit) by default.
	Facility *int `hcl:"facility,optional"`

	// URL of a webhook: https://…, or http:// on a loopback address. Of s3: what
	// recordings.store may be, s3://BUCKET/PREFIX?region=… or a folder.
	URL string `hcl:"url,optional"`
	// CredentialsFile holds what opens the store of s3, as that of recordings.
	CredentialsFile string `hcl:"credentials_file,optional"`
	// SecretFile holds the secret that signs calls of a webhook, at least 16 bytes.
	SecretFile string `hcl:"secret_file,optional"`

	// CAFile holds certificates that the receiver is trusted by, instead of the system's;
	// CertFile and KeyFile are what this member shows it. For syslog and webhook.
	CAFile   string `hcl:"ca_file,optional"`
	CertFile string `hcl:"cert_file,optional"`
	KeyFile  string `hcl:"key_file,optional"`
}

var forwardName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Bounds of checkpoint_every.
const (
	minCheckpointEvery = 10 * time.Second
	maxCheckpointEvery = 24 * time.Hour
)

// check fills in defaults and reports the first mistake.
func (a *Audit) check() (err error) {
	if a == nil {
		return nil
	}
	if a.CheckpointEvery != "" {
		a.every, err = time.ParseDuration(a.CheckpointEvery)
		if err != nil || a.every < minCheckpointEvery || a.every > maxCheckpointEvery {
			return fmt.Errorf("audit.checkpoint_every: %q is not a duration from 10s to 24h", a.CheckpointEvery)
		}
	}
	names := map[string]bool{}
	for _, f := range a.Forward {
		if names[f.id()] {
			return fmt.Errorf("audit.forward %q %q: there are two of that name", f.Kind, f.Name)
		}
		names[f.id()] = true
		if err := f.check(); err != nil {
			return fmt.Errorf("audit.forward %q %q: %w", f.Kind, f.Name, err)
		}
	}
	return nil
}

// objectAge is how old a record gets before an object is written that is not full.
const objectAge = 30 * time.Second

// id is what the database knows the destination by.
func (f *Forward) id() string { return f.Kind + "/" + f.Name }

// check reports the first mistake. A bucket is not opened for that.
func (f *Forward) check() error {
	if f.Kind == "s3" {
		if err := bucket.Check(f.URL); err != nil {
			return fmt.Errorf("url: %w", err)
		}
		_, err := f.describe()
		return err
	}
	d, err := f.destination(context.Background(), time.Now)
	if err != nil {
		return err
	}
	return d.Sender.Close()
}

// destination makes what sends to the place. The context bounds the opening alone.
func (f *Forward) destination(ctx context.Context, now func() time.Time) (d forward.Destination, err error) {
	if d, err = f.describe(); err != nil {
		return d, err
	}
	switch f.Kind {
	case "syslog":
		d.Sender, err = f.syslog()
	case "webhook":
		d.Sender, err = f.webhook(now)
	default:
		d.Linger = objectAge
		d.Sender, err = f.bucket(ctx)
	}
	return d, err
}

// describe is the destination but for what sends.
func (f *Forward) describe() (d forward.Destination, err error) {
	if !forwardName.MatchString(f.Name) {
		return d, errors.New("a name is of letters, digits, dots, dashes and underscores")
	}
	if err := f.checkKeys(); err != nil {
		return d, err
	}
	encode, err := format.Of(f.Format)
	if err != nil {
		return d, err
	}
	if f.From != "" && f.From != "beginning" && f.From != "now" {
		return d, fmt.Errorf("from: %q is neither beginning nor now", f.From)
	}
	return forward.Destination{Name: f.id(), Encode: encode, FromNow: f.From == "now"}, nil
}

// checkKeys refuses what a kind has no use for, rather than ignoring it.
func (f *Forward) checkKeys() error {
	uses := map[string]string{
		"syslog":  "address structured_data_id facility ca_file cert_file key_file",
		"webhook": "url secret_file ca_file cert_file key_file",
		"s3":      "url credentials_file",
	}
	known, found := uses[f.Kind]
	if !found {
		return fmt.Errorf("%q is none of syslog, webhook, s3", f.Kind)
	}
	for _, k := range []struct {
		key   string
		given bool
	}{
		{"address", f.Address != ""}, {"structured_data_id", f.StructuredDataID != ""}, {"facility", f.Facility != nil},
		{"url", f.URL != ""}, {"secret_file", f.SecretFile != ""}, {"ca_file", f.CAFile != ""},
		{"credentials_file", f.CredentialsFile != ""}, {"cert_file", f.CertFile != ""}, {"key_file", f.KeyFile != ""},
	} {
		if k.given && !strings.Contains(" "+known+" ", " "+k.key+" ") {
			return fmt.Errorf("%s: %s has no use for it; known are format, from, %s", k.key, f.Kind, strings.ReplaceAll(known, " ", ", "))
		}
	}
	return nil
}

// tls is how the receiver is trusted, and what it is shown.
func (f *Forward) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	var err error
	if f.CAFile != "" {
		if config.RootCAs, err = readPool(f.CAFile); err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
	}
	if (f.CertFile == "") != (f.KeyFile == "") {
		return nil, errors.New("cert_file and key_file go together")
	}
	if f.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(f.CertFile, f.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file: %w", err)
		}
		config.Certificates = []tls.Certificate{cert}
	}
	return config, nil
}

func (f *Forward) syslog() (forward.Sender, error) {
	config, err := f.tls()
	if err != nil {
		return nil, err
	}
	s := forward.Syslog{Address: f.Address, StructuredID: f.StructuredDataID, Facility: forward.FacilityLogAudit, TLS: config}
	if f.Facility != nil {
		s.Facility = *f.Facility
	}
	return forward.NewSyslog(s)
}

func (f *Forward) webhook(now func() time.Time) (forward.Sender, error) {
	config, err := f.tls()
	if err != nil {
		return nil, err
	}
	secret, err := readSecret(f.SecretFile)
	if err != nil {
		return nil, fmt.Errorf("secret_file: %w", err)
	}
	return forward.NewWebhook(forward.Webhook{URL: f.URL, Secret: secret, TLS: config, Now: now})
}

func (f *Forward) bucket(ctx context.Context) (forward.Sender, error) {
	b, err := bucket.Open(ctx, bucket.Config{URL: f.URL, CredentialsFile: f.CredentialsFile})
	if err != nil {
		return nil, fmt.Errorf("url: %w", err)
	}
	return &forward.Bucket{Objects: objects{b.Bucket}, Closer: b.Close}, nil
}

// auditing is what secures the audit log and sends it on.
type auditing struct {
	*store.Store
	keeper    *checkpoint.Keeper
	forwarder *forward.Forwarder
	objects   checkpoint.Objects
	started   bool
}

// newAuditing makes it; nothing runs before start. Checkpoints go to objects, beside the
// recordings.
func (m *Member) newAuditing(ctx context.Context, objects checkpoint.Objects) (*auditing, error) {
	c := m.cfg.Audit
	if c == nil {
		c = &Audit{}
	}
	keys := identity.NewSSH(identity.SSHConfig{Store: m.Store, Sealer: m.Key, Now: m.cfg.Now})
	a := &auditing{Store: m.Store, objects: objects}
	a.keeper = checkpoint.New(checkpoint.Config{
		Store: m.Store, Objects: objects, Signer: keys.AuditSigner, Keys: keys.AuditKeys,
		Account: m.cfg.Account, Region: m.cfg.Region, Member: m.cfg.Member,
		Every: c.every, Now: m.cfg.Now, Logger: m.log,
	})
	var all []forward.Destination
	for _, f := range c.Forward {
		d, err := f.destination(ctx, m.cfg.Now)
		if err != nil {
			return nil, fmt.Errorf("audit.forward %q %q: %w", f.Kind, f.Name, err)
		}
		all = append(all, d)
	}
	a.forwarder = forward.New(forward.Config{
		Store: m.Store, Destinations: all, Member: m.cfg.Member, Now: m.cfg.Now, Logger: m.log,
	})
	return a, nil
}

func (a *auditing) start(ctx context.Context) {
	a.keeper.Start(ctx)
	a.forwarder.Start(ctx)
	a.started = true
}

// close makes the last checkpoint, after everything that is to be in it.
func (a *auditing) close(ctx context.Context) error {
	if a == nil {
		return nil
	}
	err := a.forwarder.Close(ctx)
	if a.started {
		err = errors.Join(err, a.keeper.Close(ctx))
	}
	return err
}

// StoredNames implements server.AuditChain.
func (a *auditing) StoredNames(ctx context.Context) iter.Seq2[string, error] {
	return a.objects.List(ctx, checkpoint.Folder)
}

// StoredNamed implements server.AuditChain.
func (a *auditing) StoredNamed(ctx context.Context, name string) (checkpoint.Signed, error) {
	return checkpoint.Read(ctx, a.objects, name)
}

// Status implements server.AuditChain.
func (a *auditing) Status(ctx context.Context) (server.AuditStatus, error) {
	kept := a.keeper.Stats()
	s := server.AuditStatus{
		Checkpoint: kept.Number, Made: wire.Time{Time: kept.Made}, Waiting: kept.Waiting, Problems: kept.Problems,
	}
	for _, f := range a.forwarder.Stats() {
		behind, oldest, err := forward.Behind(ctx, a.Store, f.Destination)
		if err != nil {
			return s, err
		}
		s.Destinations = append(s.Destinations, server.AuditDestination{
			Name: f.Destination, Behind: behind, Oldest: wire.Time{Time: oldest}, Sending: f.Held,
			Sent: f.Sent, Failures: f.Failures, Problem: f.Problem,
		})
	}
	return s, nil
}
