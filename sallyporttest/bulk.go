package sallyporttest

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"strings"
	"testing"

	"sallyport.dev/client"
)

// BulkForward starts a Port session whose connections go beside the data channel, over
// TLS. server is the URL that the client dials, this member's TLS listener by default.
func (s *System) BulkForward(k Key, node, document string, params map[string]string, fc client.ForwardConfig, server string) *Forward {
	s.t.Helper()
	api := s.API(k)
	stream := s.stream(api, node, document, params)
	if server == "" {
		server = s.TLSURL()
	}
	_, path, _ := strings.Cut(stream.URL, "/v1/")
	stream.URL = strings.Replace(server, "http", "ws", 1) + "/v1/" + path
	trust := s.Trust()
	fc.Bulk = client.NewBulk(client.BulkConfig{
		SessionID: stream.SessionID, URL: stream.URL, Trust: trust, UserAgent: "sallyporttest", Logger: Logger(s.t),
	})
	return run(s.t, stream.SessionID, client.NewForward(client.ChannelConfig{
		Stream: stream, Dial: client.Dialer(trust, "sallyporttest"), Resume: api.ResumeSession, Logger: Logger(s.t),
	}, fc))
}

// Trust trusts the member's own CA.
func (s *System) Trust() *tls.Config {
	s.t.Helper()
	return &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: trustFile(s.t, s.CAFile())}
}

func trustFile(t testing.TB, path string) *x509.CertPool {
	t.Helper()
	pem, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		t.Fatalf("%s holds no certificate", path)
	}
	return pool
}
