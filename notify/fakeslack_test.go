package notify_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport.dev/internal/websocket"
)

const (
	slackTeam   = "T0SALLY"
	botToken    = "xoxb-test"
	appToken    = "xapp-test"
	slackSecret = "8f742231b10e8888abcd99yyyzzz85a5"
)

// slackCall is a call of Slack's Web API that the app made.
type slackCall struct {
	method string
	form   url.Values     // of form-encoded methods
	body   map[string]any // of JSON methods
}

func (c slackCall) blocks() string { return c.form.Get("blocks") }

// fakeSlack is Slack as an app sees it: the Web API, Socket Mode and response_urls.
type fakeSlack struct {
	t      testing.TB
	server *httptest.Server

	mu      sync.Mutex
	fail    func(method string, form url.Values) string // an error to answer with, or ""
	calls   []slackCall
	hooks   []map[string]any // what was posted to response_urls
	next    int              // of ts
	socket  *websocket.Conn
	acks    map[string]chan json.RawMessage
	sockets int
}

func newFakeSlack(t testing.TB) *fakeSlack {
	f := &fakeSlack{t: t, acks: map[string]chan json.RawMessage{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/{method}", f.api)
	mux.HandleFunc("POST /hook/{id}", f.hook)
	mux.HandleFunc("GET /socket", f.serveSocket)
	f.server = httptest.NewServer(mux)
	t.Cleanup(f.close)
	return f
}

func (f *fakeSlack) close() {
	f.mu.Lock()
	conn := f.socket
	f.mu.Unlock()
	if conn != nil {
		conn.Close()
	}
	f.server.Close()
}

func (f *fakeSlack) setFail(fail func(method string, form url.Values) string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

func (f *fakeSlack) apiURL() string  { return f.server.URL + "/api/" }
func (f *fakeSlack) hookURL() string { return f.server.URL + "/hook/1" }

func (f *fakeSlack) api(w http.ResponseWriter, r *http.Request) {
	method := r.PathValue("method")
	call := slackCall{method: method}
	want := "Bearer " + botToken
	if method == "apps.connections.open" {
		want = "Bearer " + appToken
	}
	body, _ := io.ReadAll(r.Body)
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		_ = json.Unmarshal(body, &call.body)
	} else {
		call.form, _ = url.ParseQuery(string(body))
	}
	if got := r.Header.Get("Authorization"); got != want && "Bearer "+call.form.Get("token") != want {
		f.answer(w, map[string]any{"ok": false, "error": "invalid_auth"})
		return
	}
	f.mu.Lock()
	fail := f.fail
	f.mu.Unlock()
	if fail != nil {
		if e := fail(method, call.form); e != "" {
			f.answer(w, map[string]any{"ok": false, "error": e})
			return
		}
	}
	f.mu.Lock()
	f.calls = append(f.calls, call)
	f.next++
	ts := fmt.Sprintf("1700000000.%06d", f.next)
	f.mu.Unlock()
	f.answer(w, f.result(method, call, ts))
}

func (f *fakeSlack) answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func (f *fakeSlack) result(method string, call slackCall, ts string) map[string]any {
	switch method {
	case "auth.test":
		return map[string]any{"ok": true, "team": "Sally & Co", "team_id": slackTeam, "user": "sallyport", "user_id": "U0BOT"}
	case "apps.connections.open":
		return map[string]any{"ok": true, "url": "ws" + strings.TrimPrefix(f.server.URL, "http") + "/socket?ticket=x&app_id=y"}
	case "chat.postMessage":
		channel := call.form.Get("channel")
		if strings.HasPrefix(channel, "U") {
			channel = "D" + channel[1:]
		}
		return map[string]any{"ok": true, "channel": channel, "ts": ts}
	case "chat.update":
		return map[string]any{"ok": true, "channel": call.form.Get("channel"), "ts": call.form.Get("ts"), "text": ""}
	case "users.info":
		user := call.form.Get("user")
		return map[string]any{"ok": true, "user": map[string]any{"id": user, "team_id": slackTeam, "name": "handle-" + user, "real_name": "Real <" + user + ">"}}
	case "views.open":
		return map[string]any{"ok": true, "view": map[string]any{"id": "V1", "type": "modal"}}
	}
	return map[string]any{"ok": false, "error": "unknown_method"}
}

func (f *fakeSlack) hook(w http.ResponseWriter, r *http.Request) {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	f.mu.Lock()
	f.hooks = append(f.hooks, body)
	f.mu.Unlock()
	_, _ = io.WriteString(w, "ok")
}

// serveSocket is Socket Mode: hello, and then the acknowledgements that come back.
func (f *fakeSlack) serveSocket(w http.ResponseWriter, r *http.Request) {
	conn, err := websocket.Upgrade(w, r, websocket.Options{})
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.Write(websocket.Text, []byte(`{"type":"hello","num_connections":1,"connection_info":{"app_id":"A1"}}`))
	f.mu.Lock()
	f.socket = conn
	f.sockets++
	f.mu.Unlock()
	for {
		_, text, err := conn.Read()
		if err != nil {
			return
		}
		var ack struct {
			ID      string          `json:"envelope_id"`
			Payload json.RawMessage `json:"payload"`
		}
		if json.Unmarshal(text, &ack) != nil {
			continue
		}
		f.mu.Lock()
		done := f.acks[ack.ID]
		f.mu.Unlock()
		if done != nil {
			done <- ack.Payload
		}
	}
}

// envelope sends an envelope by Socket Mode and returns what it was acknowledged with.
func (f *fakeSlack) envelope(kind, id string, payload any) json.RawMessage {
	f.t.Helper()
	var conn *websocket.Conn
	eventually(f.t, "the app to connect", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		conn = f.socket
		return conn != nil
	})
	done := make(chan json.RawMessage, 2)
	f.mu.Lock()
	f.acks[id] = done
	f.mu.Unlock()
	text, err := json.Marshal(map[string]any{"type": kind, "envelope_id": id, "payload": payload, "accepts_response_payload": true})
	if err != nil {
		f.t.Fatal(err)
	}
	if err := conn.Write(websocket.Text, text); err != nil {
		f.t.Fatal(err)
	}
	select {
	case payload := <-done:
		return payload
	case <-time.After(3 * time.Second):
		f.t.Fatalf("%s was not acknowledged within three seconds", kind)
		return nil
	}
}

// made returns the calls of a method.
func (f *fakeSlack) made(method string) []slackCall {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []slackCall
	for _, c := range f.calls {
		if c.method == method {
			out = append(out, c)
		}
	}
	return out
}

// last waits for a call of a method that is as wanted, and returns the newest.
func (f *fakeSlack) last(what, method string, as func(slackCall) bool) slackCall {
	f.t.Helper()
	var found slackCall
	eventually(f.t, what, func() bool {
		for _, c := range f.made(method) {
			if as(c) {
				found = c
			}
		}
		return found.method != ""
	})
	return found
}

// whispers waits for something that was said to one person alone.
func (f *fakeSlack) whispers(part string) {
	f.t.Helper()
	eventually(f.t, "to be told "+part, func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, h := range f.hooks {
			if text, _ := h["text"].(string); strings.Contains(text, part) && h["response_type"] == "ephemeral" {
				return true
			}
		}
		return false
	})
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if is() {
			return
		}
	}
	t.Fatalf("waited in vain for %s", what)
}

// signed is a call as Slack makes it.
func signed(t testing.TB, to string, form url.Values, at time.Time) *http.Request {
	t.Helper()
	return signedBody(t, to, form.Encode(), at)
}

func signedBody(t testing.TB, to, body string, at time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), http.MethodPost, to, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	stamp := fmt.Sprint(at.Unix())
	mac := hmac.New(sha256.New, []byte(slackSecret))
	fmt.Fprintf(mac, "v0:%s:%s", stamp, body)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("X-Slack-Request-Timestamp", stamp)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	return r
}

func payload(t testing.TB, v any) url.Values {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return url.Values{"payload": {string(text)}}
}

// slackThings are payloads in Slack's format.

func who(team, user string) (map[string]any, map[string]any) {
	return map[string]any{"id": team, "domain": "sally"}, map[string]any{"id": user, "username": "name-" + user, "name": "name-" + user, "team_id": team}
}

// click is a click on a button of a message.
func (f *fakeSlack) click(team, user, action, value string) map[string]any {
	f.mu.Lock()
	f.next++
	trigger := fmt.Sprintf("trigger.%d", f.next)
	f.mu.Unlock()
	in, by := who(team, user)
	return map[string]any{
		"type": "block_actions", "team": in, "user": by, "api_app_id": "A1", "token": "deprecated", "trigger_id": trigger,
		"container":    map[string]any{"type": "message", "message_ts": "1700000000.000001", "channel_id": "C1", "is_ephemeral": false},
		"channel":      map[string]any{"id": "C1", "name": "ops"},
		"response_url": f.hookURL(),
		"actions": []map[string]any{{
			"type": "button", "block_id": "sallyport", "action_id": action, "value": value, "action_ts": "1700000000.1",
			"text": map[string]any{"type": "plain_text", "text": "x"},
		}},
	}
}

// submission is a form that was filled in.
func (f *fakeSlack) submission(team, user string, view map[string]any, values map[string]any) map[string]any {
	in, by := who(team, user)
	state := map[string]any{}
	for block, v := range values {
		element := map[string]any{"type": "plain_text_input", "value": v}
		if list, is := v.([]string); is {
			var options []map[string]any
			for _, o := range list {
				options = append(options, map[string]any{"text": map[string]any{"type": "plain_text", "text": o}, "value": o})
			}
			element = map[string]any{"type": "multi_static_select", "selected_options": options}
		}
		state[block] = map[string]any{"value": element}
	}
	f.mu.Lock()
	f.next++
	trigger := fmt.Sprintf("trigger.%d", f.next)
	f.mu.Unlock()
	return map[string]any{
		"type": "view_submission", "team": in, "user": by, "api_app_id": "A1", "trigger_id": trigger, "response_urls": []any{},
		"view": map[string]any{
			"id": "V1", "team_id": team, "type": "modal", "callback_id": view["callback_id"], "private_metadata": view["private_metadata"],
			"state": map[string]any{"values": state}, "hash": "156772938.1827394",
		},
	}
}

// command is a slash command.
func (f *fakeSlack) command(team, user, text string) url.Values {
	f.mu.Lock()
	f.next++
	trigger := fmt.Sprintf("trigger.%d", f.next)
	f.mu.Unlock()
	return url.Values{
		"token": {"deprecated"}, "team_id": {team}, "team_domain": {"sally"}, "channel_id": {"C1"}, "channel_name": {"ops"},
		"user_id": {user}, "user_name": {"name-" + user}, "command": {"/sallyport"}, "text": {text}, "api_app_id": {"A1"},
		"is_enterprise_install": {"false"}, "response_url": {f.hookURL()}, "trigger_id": {trigger},
	}
}

// choice is a form in which one option was chosen.
func (f *fakeSlack) choice(team, user string, view map[string]any, block, value string) map[string]any {
	s := f.submission(team, user, view, nil)
	s["view"].(map[string]any)["state"] = map[string]any{"values": map[string]any{block: map[string]any{"value": map[string]any{
		"type": "static_select", "selected_option": map[string]any{"text": map[string]any{"type": "plain_text", "text": value}, "value": value},
	}}}}
	return s
}

// send sends text by Socket Mode.
func (f *fakeSlack) send(text string) {
	f.t.Helper()
	f.mu.Lock()
	conn := f.socket
	f.mu.Unlock()
	if err := conn.Write(websocket.Text, []byte(text)); err != nil {
		f.t.Fatal(err)
	}
}

// flat is a form as Socket Mode has it.
func flat(v url.Values) map[string]string {
	out := map[string]string{}
	for k := range v {
		out[k] = v.Get(k)
	}
	return out
}
