package cluster

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

const (
	connectTimeout = 5 * time.Second
	flushTimeout   = 2 * time.Second
	// pingEvery and two unanswered pings: a silent link is given up within 6 s.
	pingEvery     = 2 * time.Second
	reconnectWait = 200 * time.Millisecond
)

// insideServer is a NATS server that only this process can reach.
type insideServer struct{ nats *server.Server }

func startInside() (*insideServer, error) {
	s, err := server.NewServer(&server.Options{
		ServerName: "sallyport",
		DontListen: true,
		NoSigs:     true,
		NoLog:      true,
	})
	if err != nil {
		return nil, fmt.Errorf("making NATS server: %w", err)
	}
	s.Start()
	if !s.ReadyForConnections(connectTimeout) {
		s.Shutdown()
		return nil, errors.New("NATS server did not start")
	}
	return &insideServer{s}, nil
}

func (s *insideServer) stop() {
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
}

func (c *Cluster) connect() (*nats.Conn, error) {
	opts := nats.Options{
		Name:           "sallyport " + c.cfg.Member,
		Servers:        c.cfg.URLs,
		User:           c.cfg.User,
		Password:       c.cfg.Password,
		TLSConfig:      c.cfg.TLS,
		AllowReconnect: true,
		MaxReconnect:   -1,
		ReconnectWait:  reconnectWait,
		Timeout:        connectTimeout,
		PingInterval:   pingEvery,
		MaxPingsOut:    2,
		// Without a connection, requests fail at once: what was held back and sent
		// minutes later would act for callers long gone.
		ReconnectBufSize:            -1,
		NoCallbacksAfterClientClose: true,
		DisconnectedErrCB: func(_ *nats.Conn, err error) {
			c.logger.Warn("connection to NATS lost", "error", err)
		},
		ReconnectedCB: func(nc *nats.Conn) {
			c.logger.Info("connection to NATS is back", "url", nc.ConnectedUrlRedacted())
		},
		AsyncErrorCB: func(_ *nats.Conn, s *nats.Subscription, err error) {
			c.logger.Error("NATS subscription in trouble", "subject", subjectOf(s), "error", err)
		},
	}
	nats.CustomReconnectDelay(backoff)(&opts)
	if c.cfg.CredsFile != "" {
		if err := nats.UserCredentials(c.cfg.CredsFile)(&opts); err != nil {
			return nil, err
		}
	}
	if c.inside != nil {
		opts.InProcessServer = c.inside.nats
	}
	nc, err := opts.Connect()
	if err != nil {
		return nil, fmt.Errorf("connecting to NATS: %w", err)
	}
	return nc, nil
}

// backoff is how long to wait before the nth round of reconnecting.
func backoff(n int) time.Duration { return min(time.Duration(n)*reconnectWait, 2*time.Second) }

func subjectOf(s *nats.Subscription) string {
	if s == nil {
		return ""
	}
	return s.Subject
}

// settle waits until the server knows of what was just subscribed or unsubscribed.
// While there is no connection it does nothing: reconnecting tells the server all.
func (c *Cluster) settle() error {
	if !c.nats.IsConnected() {
		return nil
	}
	err := c.nats.FlushTimeout(flushTimeout)
	if err != nil && !c.nats.IsConnected() && !c.nats.IsClosed() {
		return nil
	}
	return err
}

// disconnect sends what is left to send and closes the connection.
func (c *Cluster) disconnect() {
	if c.nats.IsConnected() {
		c.nats.FlushTimeout(flushTimeout) // on the way out: nobody to tell
	}
	c.nats.Close()
}
