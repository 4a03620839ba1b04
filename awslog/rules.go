package awslog

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"
)

// Errors of Check. The text of what wraps them is for people.
var (
	// ErrNotAllowed means that the configuration does not let sessions be written there.
	ErrNotAllowed = errors.New("not allowed")
	// ErrNotEncrypted means that the place does not encrypt, as the document demands.
	ErrNotEncrypted = errors.New("not encrypted")
	// ErrUnknown means that it could not be found out whether the place encrypts.
	ErrUnknown = errors.New("not to be found out")
)

// Refusal is why a session cannot be written where its document says.
type Refusal struct {
	Kind  error  // one of the errors above
	Text  string // for people, as the end of a sentence
	Cause error  // for the log
}

// Error implements error.
func (r *Refusal) Error() string { return r.Text }

// Unwrap returns the kind.
func (r *Refusal) Unwrap() error { return r.Kind }

// pattern is one entry of an allow-list.
type pattern struct{ whole *regexp.Regexp }

// bucketPatterns compiles BUCKET or BUCKET/KEY, in both of which * stands for any
// characters and ? for one.
func bucketPatterns(texts []string) (all []pattern, err error) {
	for _, text := range texts {
		bucket, key, found := strings.Cut(text, "/")
		if !found {
			key = "*"
		}
		if bucket == "" || key == "" {
			return nil, fmt.Errorf("%q: want BUCKET or BUCKET/KEY, with * for any characters", text)
		}
		all = append(all, pattern{regexp.MustCompile("^" + glob(bucket, "[^/]") + "/" + glob(key, ".") + "$")})
	}
	return all, nil
}

// groupPatterns compiles names of log groups.
func groupPatterns(texts []string) (all []pattern, err error) {
	for _, text := range texts {
		if text == "" {
			return nil, errors.New(`"": want the name of a log group, with * for any characters`)
		}
		all = append(all, pattern{regexp.MustCompile("^" + glob(text, ".") + "$")})
	}
	return all, nil
}

func glob(text, any string) string {
	text = regexp.QuoteMeta(text)
	text = strings.ReplaceAll(text, `\*`, any+"*")
	return strings.ReplaceAll(text, `\?`, any)
}

func matches(all []pattern, name string) bool {
	for _, p := range all {
		if p.whole.MatchString(name) {
			return true
		}
	}
	return false
}

// CheckRules finds mistakes in allow-lists.
func CheckRules(buckets, groups []string) error {
	if _, err := bucketPatterns(buckets); err != nil {
		return fmt.Errorf("buckets: %w", err)
	}
	if _, err := groupPatterns(groups); err != nil {
		return fmt.Errorf("log_groups: %w", err)
	}
	return nil
}

// allowed reports whether a job may be written.
func (k *Keeper) allowed(j Job) error {
	switch {
	case j.Kind == S3 && !matches(k.buckets, j.Place+"/"+j.Name):
		return &Refusal{Kind: ErrNotAllowed, Text: fmt.Sprintf("this server may not write to s3://%s/%s: its configuration does not name it (aws_logs.buckets)", j.Place, strings.TrimSuffix(j.Name, path.Base(j.Name)))}
	case j.Kind == Logs && !matches(k.groups, j.Place):
		return &Refusal{Kind: ErrNotAllowed, Text: fmt.Sprintf("this server may not write to the log group %s: its configuration does not name it (aws_logs.log_groups)", j.Place)}
	}
	return nil
}
