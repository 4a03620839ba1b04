package member

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport.dev/awslog"
	"sallyport.dev/internal/cloud"
	"sallyport.dev/server"
	"sallyport.dev/session"
)

// AWSLogs lets session documents have the text of their sessions written to S3 and
// CloudWatch Logs; without the block such documents are refused. See docs/aws-logs.md.
type AWSLogs struct {
	// Buckets and LogGroups are where documents may have sessions written, with * for any
	// characters: names, or for buckets BUCKET/KEY. What they do not name is refused.
	Buckets   []string `hcl:"buckets,optional"`
	LogGroups []string `hcl:"log_groups,optional"`
	// Region of the buckets and log groups; the member's region by default.
	Region string `hcl:"region,optional"`
	// CredentialsFile is a shared credentials file, readable by its owner alone, and Profile
	// the profile in it; by default AWS's usual places are searched.
	CredentialsFile string `hcl:"credentials_file,optional"`
	Profile         string `hcl:"profile,optional"`
	// S3Endpoint and LogsEndpoint are for what speaks as AWS does: https://HOST[:PORT], or
	// http:// on a loopback address. With S3PathStyle buckets are in the path of URLs.
	S3Endpoint   string `hcl:"s3_endpoint,optional"`
	S3PathStyle  bool   `hcl:"s3_path_style,optional"`
	LogsEndpoint string `hcl:"logs_endpoint,optional"`
}

// check reports the first mistake, naming the key.
func (a *AWSLogs) check() error {
	if a == nil {
		return nil
	}
	if err := awslog.CheckRules(a.Buckets, a.LogGroups); err != nil {
		return fmt.Errorf("aws_logs.%w", err)
	}
	if a.Region != "" && !regionPattern.MatchString(a.Region) {
		return fmt.Errorf("aws_logs.region: %q is not a region: lower-case letters, digits and dashes", a.Region)
	}
	for key, endpoint := range map[string]string{"s3_endpoint": a.S3Endpoint, "logs_endpoint": a.LogsEndpoint} {
		if endpoint == "" {
			continue
		}
		if err := cloud.Endpoint(endpoint); err != nil {
			return fmt.Errorf("aws_logs.%s: %w", key, err)
		}
	}
	return nil
}

// startAWSLogs starts writing the text of sessions, if that is configured. Recordings are
// open.
func (m *Member) startAWSLogs(ctx context.Context) error {
	c := m.cfg.AWSLogs
	if c == nil {
		return nil
	}
	params := cloud.Params{"region": cmp.Or(c.Region, m.cfg.Region), "profile": c.Profile}
	config, err := cloud.AWS(ctx, params, c.CredentialsFile)
	if err != nil {
		return fmt.Errorf("aws_logs: %w", err)
	}
	m.awsLogs, err = awslog.New(ctx, awslog.Config{
		S3: c.s3(config), Logs: c.logs(config), Buckets: c.Buckets, LogGroups: c.LogGroups, Region: m.cfg.Region, Place: config.Region, S3URL: c.S3Endpoint,
		Store: m.Store, Open: m.openLogged, Audit: m.Audit, Member: m.cfg.Member, Logger: m.log, Now: m.cfg.Now,
	})
	if err != nil {
		return fmt.Errorf("aws_logs: %w", err)
	}
	return nil
}

func (a *AWSLogs) s3(config aws.Config) *s3.Client {
	return s3.NewFromConfig(config, func(o *s3.Options) {
		if a.S3Endpoint != "" {
			o.BaseEndpoint = aws.String(a.S3Endpoint)
			// Not all that speaks as S3 does knows the newer checksums.
			o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
			o.ResponseChecksumValidation = aws.ResponseChecksumValidationWhenRequired
		}
		o.UsePathStyle = a.S3PathStyle
	})
}

func (a *AWSLogs) logs(config aws.Config) *cloudwatchlogs.Client {
	return cloudwatchlogs.NewFromConfig(config, func(o *cloudwatchlogs.Options) {
		if a.LogsEndpoint != "" {
			o.BaseEndpoint = aws.String(a.LogsEndpoint)
		}
	})
}

// openLogged opens a recording whose text is written.
func (m *Member) openLogged(ctx context.Context, name string) (awslog.Recording, error) {
	return m.archive.Open(ctx, name)
}

// logToAWS takes down where the text of a session is to be written, before it begins.
func (m *Member) logToAWS(ctx context.Context, s session.Session, name string, text json.RawMessage) error {
	if len(text) == 0 {
		return nil
	}
	if m.awsLogs == nil {
		return errors.New("this member has no aws_logs in its configuration")
	}
	var o awslog.Outputs
	if err := json.Unmarshal(text, &o); err != nil {
		return fmt.Errorf("reading where a session is to be written: %w", err)
	}
	return m.awsLogs.Begin(ctx, awslog.Session{ID: s.ID, Recording: name, Node: s.NodeID, Owner: s.Owner}, o)
}

// sessionLogs is what the API asks about outputs, nil without any.
func (m *Member) sessionLogs() server.SessionLogs {
	if m.awsLogs == nil {
		return nil
	}
	return m.awsLogs
}

// closeAWSLogs lets streams put what there is.
func (m *Member) closeAWSLogs(ctx context.Context) error {
	if m.awsLogs == nil {
		return nil
	}
	return m.awsLogs.Close(ctx)
}
