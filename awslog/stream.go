package awslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs"
	"github.com/aws/aws-sdk-go-v2/service/cloudwatchlogs/types"
)

// Limits of PutLogEvents, and of the events that AWS's agent makes. What an event takes is
// counted with 26 bytes more.
const (
	batchBytes   = 1 << 20
	batchEvents  = 10000
	batchSpan    = 24*time.Hour - time.Minute
	eventCost    = 26
	maxAge       = 14*24*time.Hour - time.Hour // older events are refused
	eventText    = 32 << 10                    // of session text in a streamed event
	eventSpan    = time.Second                 // between the first and last line of one
	maxWhole     = 200000                      // bytes of an event that is not streamed
	putTimeout   = 20 * time.Second
	eventVersion = "1.0"
)

// message is what AWS's agent streams.
type message struct {
	EventVersion string `json:"eventVersion"`
	EventTime    string `json:"eventTime"`
	Region       string `json:"awsRegion"`
	Target       struct {
		ID string `json:"id"`
	} `json:"target"`
	UserIdentity struct {
		ARN string `json:"arn"`
	} `json:"userIdentity"`
	RunAsUser   string   `json:"runAsUser"`
	SessionID   string   `json:"sessionId"`
	SessionData []string `json:"sessionData"`
}

// event is one event to be sent.
type event struct {
	text string
	time time.Time
	end  int64 // of the session's text, in bytes, behind it
}

// stream sends the text of a session to CloudWatch Logs.
type stream struct {
	ctx    context.Context
	client *cloudwatchlogs.Client
	job    Job
	region string
	now    func() time.Time
	// sent is called after each call that was made, with how much of the text is delivered.
	sent func(position int64, events, bytes int)

	created bool
	start   time.Time
	since   time.Duration // what is written was shown, since start

	skip    int64 // of the text, delivered before
	read    int64 // of the text, skipped or in events, the current line included
	current []byte
	begun   time.Duration // of current
	gather  []string      // lines of the next event
	size    int           // of gather
	first   time.Duration // of gather
	end     int64         // of gather
	batch   []event
	bytes   int // of batch
}

var _ lines = (*stream)(nil)

func (s *stream) at(d time.Duration)  { s.since = d }
func (s *stream) started(t time.Time) { s.start = t }

// most is how many bytes of text an event may have.
func (s *stream) most() int {
	if s.job.Streaming {
		return eventText
	}
	return maxWhole
}

// Write implements io.Writer.
func (s *stream) Write(p []byte) (int, error) {
	n := len(p)
	if skip := min(int64(n), s.skip); skip > 0 {
		p = p[skip:]
		s.skip -= skip
		s.read += skip
	}
	for len(p) > 0 {
		if len(s.current) == 0 {
			s.begun = s.since
		}
		i := bytes.IndexByte(p, '\n')
		piece := p
		if i >= 0 {
			piece = p[:i+1]
		}
		p = p[len(piece):]
		s.current = append(s.current, piece...)
		s.read += int64(len(piece))
		if err := s.takeLines(i >= 0); err != nil {
			return 0, err
		}
	}
	return n, nil
}

// takeLines moves the current line, and what is too long for one event, to the next events.
func (s *stream) takeLines(whole bool) error {
	most := s.most()
	for len(s.current) > most {
		n := most
		for n > 0 && !utf8.RuneStart(s.current[n]) {
			n--
		}
		rest := len(s.current) - n
		if err := s.takeLine(s.current[:n], s.read-int64(rest)); err != nil {
			return err
		}
		s.current = append(s.current[:0], s.current[n:]...)
	}
	if !whole {
		return nil
	}
	err := s.takeLine(s.current, s.read)
	s.current = s.current[:0]
	return err
}

// takeLine adds a line to the next event, which the text up to end is behind.
func (s *stream) takeLine(line []byte, end int64) error {
	apart := s.job.Streaming && s.begun-s.first > eventSpan
	if len(s.gather) > 0 && (apart || s.size+len(line) > s.most()) {
		if err := s.seal(); err != nil {
			return err
		}
	}
	if len(s.gather) == 0 {
		s.first = s.begun
	}
	s.gather = append(s.gather, string(line))
	s.size += len(line)
	s.end = end
	return nil
}

// seal makes an event of the lines that were gathered.
func (s *stream) seal() error {
	if len(s.gather) == 0 {
		return nil
	}
	e := event{time: s.start.Add(s.first), end: s.end}
	var err error
	if e.text, err = s.format(e.time); err != nil {
		return err
	}
	s.gather, s.size = s.gather[:0], 0
	full := s.bytes+len(e.text)+eventCost > batchBytes || len(s.batch) == batchEvents ||
		len(s.batch) > 0 && e.time.Sub(s.batch[0].time) > batchSpan
	if full {
		if err := s.put(); err != nil {
			return err
		}
	}
	s.batch = append(s.batch, e)
	s.bytes += len(e.text) + eventCost
	return nil
}

// format words an event: as JSON where it is streamed, as text otherwise, as AWS does.
func (s *stream) format(at time.Time) (string, error) {
	if !s.job.Streaming {
		return strings.Join(s.gather, ""), nil
	}
	m := message{
		EventVersion: eventVersion, EventTime: at.UTC().Format(time.RFC3339), Region: s.region,
		RunAsUser: s.job.RunAs, SessionID: s.job.ID,
	}
	m.Target.ID, m.UserIdentity.ARN = s.job.Node, s.job.Owner
	for _, line := range s.gather {
		m.SessionData = append(m.SessionData, strings.TrimSuffix(line, "\n"))
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(m); err != nil {
		return "", fmt.Errorf("encoding an event: %w", err)
	}
	return strings.TrimSuffix(b.String(), "\n"), nil
}

// flush sends all lines that have ended.
func (s *stream) flush() error {
	if err := s.seal(); err != nil {
		return err
	}
	return s.put()
}

// put sends the batch.
func (s *stream) put() error {
	if len(s.batch) == 0 {
		return nil
	}
	if err := s.create(); err != nil {
		return err
	}
	rejected, err := s.call(s.batch, s.now().Add(-maxAge))
	if missing := (*types.ResourceNotFoundException)(nil); errors.As(err, &missing) {
		s.created = false // somebody deleted the stream, or the group
	}
	if err != nil {
		return fmt.Errorf("putting events into %s: %w", s.job.Place, err)
	}
	if rejected > 0 { // for their age: what is told late is worth more than nothing
		if again, err := s.call(s.batch[:rejected], s.now()); err != nil || again > 0 {
			return errors.Join(fmt.Errorf("%s refuses %d events", s.job.Place, rejected), err)
		}
	}
	s.sent(s.batch[len(s.batch)-1].end, len(s.batch), s.bytes)
	s.batch, s.bytes = s.batch[:0], 0
	return nil
}

// call puts events, none of which is said to be older than a time, and returns how many at
// the beginning the log group refused for their age.
func (s *stream) call(batch []event, oldest time.Time) (rejected int, err error) {
	in := &cloudwatchlogs.PutLogEventsInput{LogGroupName: &s.job.Place, LogStreamName: &s.job.Name}
	for i := range batch {
		at := batch[i].time
		if at.Before(oldest) {
			at = oldest
		}
		in.LogEvents = append(in.LogEvents, types.InputLogEvent{Message: &batch[i].text, Timestamp: aws.Int64(at.UnixMilli())})
	}
	ctx, cancel := context.WithTimeout(s.ctx, putTimeout)
	defer cancel()
	out, err := s.client.PutLogEvents(ctx, in)
	if err != nil {
		return 0, err
	}
	info := out.RejectedLogEventsInfo
	if info == nil {
		return 0, nil
	}
	if info.TooNewLogEventStartIndex != nil {
		return 0, errors.New("events are refused as from the future: the server's clock is ahead")
	}
	rejected = int(max(aws.ToInt32(info.ExpiredLogEventEndIndex), aws.ToInt32(info.TooOldLogEventEndIndex)))
	return min(max(rejected, 0), len(batch)), nil
}

// create makes the stream, unless there is one already.
func (s *stream) create() error {
	if s.created {
		return nil
	}
	ctx, cancel := context.WithTimeout(s.ctx, putTimeout)
	defer cancel()
	_, err := s.client.CreateLogStream(ctx, &cloudwatchlogs.CreateLogStreamInput{LogGroupName: &s.job.Place, LogStreamName: &s.job.Name})
	if exists := (*types.ResourceAlreadyExistsException)(nil); err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("creating the stream in %s: %w", s.job.Place, err)
	}
	s.created = true
	return nil
}
