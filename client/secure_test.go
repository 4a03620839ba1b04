package client

import (
	"context"
	"strings"
	"testing"
)

func TestSecure(t *testing.T) {
	for address, want := range map[string]bool{
		"https://sallyport.example.com:8443":             true,
		"wss://ssmmessages.eu-west-1.amazonaws.com/v1/x": true,
		"http://localhost:8080":                          true,
		"http://127.0.0.1:8080/":                         true,
		"http://127.9.9.9":                               true,
		"ws://[::1]:8080/v1/data-channel/x":              true,
		"ws://[::ffff:127.0.0.1]/":                       true,
		"HTTP://LocalHost":                               true,
		"http://sallyport.example.com":                   false,
		"ws://192.0.2.1/v1/data-channel/x":               false,
		"http://localhost.example.com":                   false,
		"http://127.0.0.1.example.com":                   false,
		"http://127.0.0.1@192.0.2.1/":                    false,
		"http://0.0.0.0/":                                false,
		"http://169.254.169.254/":                        false,
		"ftp://localhost/":                               false,
		"sallyport.example.com":                          false,
		"":                                               false,
		"http://[::1":                                    false,
	} {
		if err := secure("endpoint", address); (err == nil) != want {
			t.Errorf("%q: got %v, want allowed: %v", address, err, want)
		}
	}
}

// Neither calls nor sessions go over a network that anybody may listen to.
func TestPlainTextIsRefused(t *testing.T) {
	t.Setenv("AWS_REGION", "us-east-1")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	t.Setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
	for _, o := range []Options{{Endpoint: "http://192.0.2.1"}, {SSMEndpoint: "http://192.0.2.1"}} {
		if _, err := Connect(t.Context(), o); err == nil || !strings.Contains(err.Error(), "would not be encrypted") {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	if _, err := Connect(t.Context(), Options{}); err != nil {
		t.Errorf("AWS's own: got %v", err)
	}
	if _, err := Connect(t.Context(), Options{Endpoint: "http://127.0.0.1"}); err != nil {
		t.Errorf("this machine: got %v", err)
	}
	_, err := Dialer(nil, "test")(context.Background(), "ws://192.0.2.1/v1/data-channel/x")
	if err == nil || !strings.Contains(err.Error(), "would not be encrypted") {
		t.Errorf("a session: got %v", err)
	}
}
