package notify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/slack-go/slack"

	"sallyport.dev/audit"
	"sallyport.dev/signin"
)

const (
	// pathSlack is what Slack calls: slack/command and slack/interact.
	pathSlack = "/slack/"
	// maxCall is the largest call of Slack, in bytes.
	maxCall = 512 << 10
	// maxCallAge is how old a call may be, or how far ahead its clock: Slack's own advice.
	maxCallAge = 5 * time.Minute
	// maxReading bounds the calls whose bodies are read at a time, and readTime how long one
	// may take: Slack gives up after three seconds anyway. Of one place there may be
	// maxReadingOf, so that a stranger who sends slowly does not keep Slack out.
	maxReading   = 64
	maxReadingOf = 16
	readTime     = 3 * time.Second
)

// Why calls are refused.
var (
	errUnsigned = errors.New("the call is not signed")
	errOld      = errors.New("the call is too old, or from the future")
	errForged   = errors.New("the signature is not Slack's")
	errReplayed = errors.New("the call was made before")
)

// callKinds are words for the audit log.
var callKinds = map[error]string{errUnsigned: "Unsigned", errOld: "Old", errForged: "Forged", errReplayed: "Replayed"}

// serveHTTP takes a call of Slack: a slash command or an interaction.
func (a *slackApp) serveHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := a.receive(w, r)
	if err == nil {
		err = a.verify(r, body)
	}
	if kind, known := callKinds[err]; known {
		a.strays.refuse(r.Context(), kind, err.Error(), a.stray(r))
		http.Error(w, "refused", http.StatusUnauthorized)
		return
	}
	if err != nil {
		a.log.Warn("taking a call of Slack", "error", err)
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	a.dispatch(w, r, body)
}

// stray begins the record of a call that is refused. Nothing that it says is known to be
// true, and so nothing of it is kept but where it came from.
func (s *Service) stray(r *http.Request) audit.Record {
	return audit.Record{Action: "slack", SourceIP: s.config.SourceIP(r), UserAgent: line(r.UserAgent(), maxName)}
}

// receive reads the body of a call, after its head has shown that it may be one.
func (a *slackApp) receive(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if err := a.checkHead(r); err != nil {
		return nil, err
	}
	leave, ok := a.reading.enter(signin.PlaceOf(a.config.SourceIP(r)))
	if !ok {
		return nil, errors.New("too many calls at a time")
	}
	defer leave()
	// Not every ResponseWriter has deadlines; those of net/http do.
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Now().Add(readTime))
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		return nil, errForged // Slack's are smaller, and come as a whole
	}
	_ = control.SetReadDeadline(time.Time{})
	return body, nil
}

// readers count the calls that are read at a time, in all and by place.
type readers struct {
	mu  sync.Mutex
	all int
	of  map[string]int
}

// enter reports whether there is room; then leave must be called.
func (r *readers) enter(place string) (leave func(), ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all >= maxReading || r.of[place] >= maxReadingOf {
		return nil, false
	}
	r.all++
	r.of[place]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.all--
		if r.of[place]--; r.of[place] == 0 {
			delete(r.of, place)
		}
	}, true
}

// checkHead refuses what is not signed, or not lately, before anything is read.
func (a *slackApp) checkHead(r *http.Request) error {
	signature, stamp := r.Header.Values("X-Slack-Signature"), r.Header.Values("X-Slack-Request-Timestamp")
	if len(signature) != 1 || len(stamp) != 1 || signature[0] == "" {
		return errUnsigned
	}
	at, err := strconv.ParseInt(stamp[0], 10, 64)
	if err != nil {
		return errUnsigned
	}
	if age := a.config.Now().Sub(time.Unix(at, 0)); age > maxCallAge || age < -maxCallAge {
		return errOld
	}
	return nil
}

// verify checks the signature over the body as it came, and that it is the first call
// with it on any member: within its five minutes a replay would pass otherwise.
func (a *slackApp) verify(r *http.Request, body []byte) error {
	stamp := r.Header.Get("X-Slack-Request-Timestamp")
	mac := hmac.New(sha256.New, a.signing)
	mac.Write([]byte("v0:" + stamp + ":"))
	mac.Write(body)
	want := "v0=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(want), []byte(r.Header.Get("X-Slack-Signature"))) {
		return errForged
	}
	return a.first(r.Context(), "slack-call:"+want)
}

// first reports an error unless something comes for the first time on any member.
func (a *slackApp) first(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	// As long as its time may be right on a member whose clock differs.
	first, err := a.config.Store.UseToken(ctx, id, time.Now().Add(4*maxCallAge))
	if err == nil && !first {
		return errReplayed
	}
	return err
}

// dispatch decodes a call that is Slack's and answers it.
func (a *slackApp) dispatch(w http.ResponseWriter, r *http.Request, body []byte) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	form := url.Values{}
	if err == nil && kind == "application/x-www-form-urlencoded" {
		form, err = url.ParseQuery(string(body))
	}
	if err != nil {
		http.Error(w, "want a form", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), answerTime)
	defer cancel()
	switch r.PathValue("what") {
	case "command":
		answer(w, a.command(ctx, slashCommand(form)))
	case "interact":
		var in slack.InteractionCallback
		if err := json.Unmarshal([]byte(form.Get("payload")), &in); err != nil {
			http.Error(w, "want a payload", http.StatusBadRequest)
			return
		}
		answer(w, a.interaction(ctx, in))
	default:
		http.NotFound(w, r)
	}
}

func slashCommand(form url.Values) slack.SlashCommand {
	return slack.SlashCommand{
		TeamID: form.Get("team_id"), ChannelID: form.Get("channel_id"), UserID: form.Get("user_id"), UserName: form.Get("user_name"),
		Command: form.Get("command"), Text: form.Get("text"), ResponseURL: form.Get("response_url"), TriggerID: form.Get("trigger_id"),
	}
}

// answer writes the answer to a call; without one, that it was taken.
func answer(w http.ResponseWriter, with reply) {
	if with == nil || with == reply((*slack.ViewSubmissionResponse)(nil)) {
		w.WriteHeader(http.StatusOK)
		return
	}
	body, err := json.Marshal(with)
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body)
}

// hideURL leaves the URL out of an error of a client: it may be a secret.
func hideURL(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return errors.New(strings.ToLower(e.Op) + ": " + e.Err.Error())
	}
	return err
}
