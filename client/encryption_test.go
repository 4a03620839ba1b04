package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"sallyport.dev/internal/datakey"
	"sallyport.dev/wire"
)

// encryptedRequest is the handshake of an agent that wants encryption.
const encryptedRequest = `{"AgentVersion":"3.3.0.0","RequestedClientActions":[
	{"ActionType":"SessionType","ActionParameters":{"SessionType":"Standard_Stream","Properties":null}},
	{"ActionType":"KMSEncryption","ActionParameters":{"KMSKeyId":"alias/k","Challenge":"random"}}]}`

// encryptedChannel opens a data channel whose key service gives a data key for the context
// of this session; change may change the configuration.
func encryptedChannel(t *testing.T, change ...func(*ChannelConfig)) (*fakeConn, *screen, *running, *datakey.Key) {
	t.Helper()
	raw := slices.Concat(bytes.Repeat([]byte{1}, datakey.Size/2), bytes.Repeat([]byte{2}, datakey.Size/2))
	key, err := datakey.New(raw)
	if err != nil {
		t.Fatal(err)
	}
	f, s := newFakeServer(t), newScreen()
	cfg := f.config()
	cfg.Stream.Target = "i-1"
	cfg.Handlers[StandardStream] = s
	cfg.DataKey = func(_ context.Context, id string, e map[string]string) (DataKey, error) {
		want := map[string]string{"aws:ssm:SessionId": "alice-0123456789abcdef0", "aws:ssm:TargetId": "i-1", "aws:ssm:RandomChallenge": "random"}
		if id != "alias/k" || fmt.Sprint(e) != fmt.Sprint(want) {
			return DataKey{}, fmt.Errorf("key %s, context %v", id, e)
		}
		return DataKey{Clear: bytes.Clone(raw), Encrypted: []byte("sealed")}, nil
	}
	for _, c := range change {
		c(&cfg)
	}
	r := run(t, cfg)
	return f.next(), s, r, key
}

// encryption is the client's answer to the demand for encryption.
func encryption(t *testing.T, c *fakeConn) wire.ProcessedAction {
	t.Helper()
	var res wire.HandshakeResponse
	if err := json.Unmarshal(c.receiveStream(wire.PayloadHandshakeResponse).Payload, &res); err != nil || len(res.ProcessedClientActions) != 2 {
		t.Fatalf("got %+v, %v", res, err)
	}
	return res.ProcessedClientActions[1]
}

func TestEncryptedChannel(t *testing.T) {
	c, s, r, key := encryptedChannel(t)
	c.send(0, wire.PayloadHandshakeRequest, encryptedRequest)
	a := encryption(t, c)
	var result wire.KMSEncryptionResult
	if json.Unmarshal(a.ActionResult, &result) != nil || a.ActionStatus != wire.ActionSuccess || string(result.KMSCipherTextKey) != "sealed" || !result.ChallengeAcknowledgement {
		t.Errorf("got %+v, %s", a, a.ActionResult)
	}
	challenge, _ := json.Marshal(wire.EncryptionChallenge{Challenge: key.Seal(true, []byte("prove it"))})
	c.send(1, wire.PayloadEncChallengeRequest, string(challenge))
	var proof wire.EncryptionChallenge
	json.Unmarshal(c.receiveStream(wire.PayloadEncChallengeResponse).Payload, &proof)
	if got, err := key.Open(false, proof.Challenge); err != nil || string(got) != "prove it" {
		t.Errorf("proof: got %q, %v", got, err)
	}
	c.send(2, wire.PayloadHandshakeComplete, `{}`)
	c.send(3, wire.PayloadOutput, string(key.Seal(true, []byte("hello"))))
	s.waitFor(t, "hello")
	if err := r.Send(t.Context(), wire.PayloadOutput, []byte("typed")); err != nil {
		t.Fatal(err)
	}
	if got, err := key.Open(false, c.receiveStream(wire.PayloadOutput).Payload); err != nil || string(got) != "typed" {
		t.Errorf("input: got %q, %v", got, err)
	}
	if err := r.Send(t.Context(), wire.PayloadSize, []byte(`{}`)); err != nil {
		t.Fatal(err)
	}
	if got := c.receiveStream(wire.PayloadSize).Payload; string(got) != `{}` {
		t.Errorf("size: got %q, want it in clear", got)
	}
}

// What does not come encrypted ends the session, unseen.
func TestClearOutputOfEncryptedSession(t *testing.T) {
	for name, payload := range map[string]func(*datakey.Key) string{
		"clear":     func(*datakey.Key) string { return "secret, and long enough to be a nonce and a tag" },
		"short":     func(*datakey.Key) string { return "secret" },
		"empty":     func(*datakey.Key) string { return "" },
		"reflected": func(k *datakey.Key) string { return string(k.Seal(false, []byte("secret"))) },
	} {
		t.Run(name, func(t *testing.T) {
			c, s, r, key := encryptedChannel(t)
			c.send(0, wire.PayloadHandshakeRequest, encryptedRequest)
			encryption(t, c)
			c.send(1, wire.PayloadHandshakeComplete, `{}`)
			c.send(2, wire.PayloadOutput, payload(key))
			if _, err := r.wait(); !errors.Is(err, datakey.ErrOpen) {
				t.Errorf("got %v, want %v", err, datakey.ErrOpen)
			}
			if s.text() != "" {
				t.Errorf("it showed %q", s.text())
			}
		})
	}
}

// An agent that goes on after a refusal has no session with us.
func TestRefusedEncryption(t *testing.T) {
	denied := errors.New("AccessDeniedException: no")
	for name, change := range map[string]func(*ChannelConfig){
		"no permission": func(c *ChannelConfig) {
			c.DataKey = func(context.Context, string, map[string]string) (DataKey, error) { return DataKey{}, denied }
		},
		"a short key": func(c *ChannelConfig) {
			c.DataKey = func(context.Context, string, map[string]string) (DataKey, error) {
				return DataKey{Clear: []byte("x")}, nil
			}
		},
		"no target":      func(c *ChannelConfig) { c.Stream.Target = "" },
		"no key service": func(c *ChannelConfig) { c.DataKey = nil },
	} {
		for _, next := range []wire.PayloadType{wire.PayloadHandshakeComplete, wire.PayloadOutput} {
			t.Run(fmt.Sprint(name, next), func(t *testing.T) {
				c, s, r, _ := encryptedChannel(t, change)
				c.send(0, wire.PayloadHandshakeRequest, encryptedRequest)
				if a := encryption(t, c); a.ActionStatus == wire.ActionSuccess || a.Error == "" {
					t.Errorf("got %+v, want a refusal", a)
				}
				c.send(1, next, `{}`)
				if _, err := r.wait(); !errors.Is(err, errRefused) {
					t.Errorf("got %v, want %v", err, errRefused)
				}
				if s.text() != "" {
					t.Errorf("it showed %q", s.text())
				}
			})
		}
	}
}

// A key is agreed on once, and later challenges are not answered: nobody is to have texts
// decrypted and encrypted by a client.
func TestEncryptionIsAgreedOnOnce(t *testing.T) {
	c, s, r, key := encryptedChannel(t)
	c.send(0, wire.PayloadHandshakeRequest, encryptedRequest)
	encryption(t, c)
	c.send(1, wire.PayloadHandshakeComplete, `{}`)
	challenge, _ := json.Marshal(wire.EncryptionChallenge{Challenge: key.Seal(true, []byte("x"))})
	c.send(2, wire.PayloadEncChallengeRequest, string(challenge))
	c.send(3, wire.PayloadOutput, string(key.Seal(true, []byte("shown"))))
	s.waitFor(t, "shown")
	if got := r.lastSent(); got != 0 {
		t.Errorf("got %d messages after the answer, want none", got)
	}
	c.send(4, wire.PayloadHandshakeRequest, encryptedRequest)
	if a := encryption(t, c); a.ActionStatus != wire.ActionFailed || !strings.Contains(a.Error, "twice") {
		t.Errorf("got %+v, want a refusal", a)
	}
}

// The data key comes from the server that sessions are started at, and what it says no
// with is passed on.
func TestDataKeyOfTheServer(t *testing.T) {
	var asked map[string]any
	refuse := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewDecoder(r.Body).Decode(&asked)
		asked["target"] = r.Header.Get("X-Amz-Target")
		if asked["scope"] = r.Header.Get("Authorization"); refuse {
			w.WriteHeader(http.StatusBadRequest)
			w.Write([]byte(`{"__type":"DisabledException","message":"the key is disabled."}`))
			return
		}
		w.Write([]byte(`{"CiphertextBlob":"c2VhbGVk","Plaintext":"Y2xlYXI=","KeyId":"k"}`))
	}))
	defer server.Close()
	for k, v := range map[string]string{"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "s", "AWS_CONFIG_FILE": "/dev/null", "AWS_PROFILE": ""} {
		t.Setenv(k, v)
	}
	api, err := Connect(t.Context(), Options{Region: "us-east-1", SSMEndpoint: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	got, err := api.DataKey(t.Context(), "alias/k", map[string]string{"a": "b"})
	if err != nil || string(got.Clear) != "clear" || string(got.Encrypted) != "sealed" {
		t.Errorf("got %+v, %v", got, err)
	}
	if asked["target"] != "TrentService.GenerateDataKey" || asked["KeyId"] != "alias/k" || asked["NumberOfBytes"] != 64.0 || !strings.Contains(fmt.Sprint(asked["scope"]), "/us-east-1/kms/aws4_request") {
		t.Errorf("asked for %v", asked)
	}
	refuse = true
	if _, err := api.DataKey(t.Context(), "alias/k", nil); err == nil || !strings.Contains(err.Error(), "DisabledException") {
		t.Errorf("got %v", err)
	}
}

// Without an endpoint keys are where AWS has them.
func TestKeyEndpoint(t *testing.T) {
	for region, want := range map[string]string{"eu-central-1": "https://kms.eu-central-1.amazonaws.com", "cn-north-1": "https://kms.cn-north-1.amazonaws.com.cn"} {
		a := &API{}
		a.cfg.Region = region
		if got := a.keyEndpoint(); got != want {
			t.Errorf("%s: got %s, want %s", region, got, want)
		}
	}
}
