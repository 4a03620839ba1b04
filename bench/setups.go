package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"time"
)

// benchSetups opens sessions from the call to the first byte through both data
// channels, on a node that starts no shells: what a gateway costs without what a
// shell costs. The floor is one durable commit each on the same disk.
func benchSetups(ctx context.Context, l *lab) ([]figure, error) {
	s, err := l.newServer("setups")
	if err != nil {
		return nil, err
	}
	defer s.server.end()
	people, stop, err := l.silentNode(s)
	if err != nil {
		return nil, err
	}
	defer stop()
	pair, err := l.ssh(ctx)
	if err != nil {
		return nil, err
	}
	db, err := l.newFloorDB()
	if err != nil {
		return nil, err
	}
	defer db.Close()
	const name, floor, jump = "session set-ups, 32 at once", "durable SQLite commits, one by one", "ssh -J -W, 6 at once"
	count := l.pickInt(600, 200)
	var r results
	var rates []float64 // of the server alone, per second of processor time
	err = s.server.profiling("setups", func() (err error) {
		r, err = compete(ctx, l.pickInt(4, 3),
			contestant{name, func(context.Context) (float64, error) {
				rate, alone, err := setUp(s, people, count)
				rates = append(rates, alone)
				return rate, err
			}},
			contestant{floor, func(context.Context) (float64, error) { return commits(db, l.pick(time.Second, 300*time.Millisecond)) }},
			contestant{jump, func(ctx context.Context) (float64, error) { return jumps(ctx, pair, l.pickInt(12, 6)) }},
		)
		return err
	})
	if err != nil {
		return nil, err
	}
	return []figure{
		r.figure(name, "/s", jump, floor).atLeast(500, "500/s"),
		{name: "… per second of the server's processor time", value: median(rates[1:]), unit: "/s"},
	}, nil
}

// silentNode connects a node that starts no shells, and people to use it.
func (l *lab) silentNode(s *system) (people *child, stop func(), err error) {
	s.node = "i-05b7516a19f826be9"
	nodes, err := l.child("nodes")
	if err != nil {
		return nil, nil, err
	}
	people, err = l.child("people")
	if err != nil {
		return nil, nil, err
	}
	stop = func() { people.end(); nodes.end() }
	err = errors.Join(l.registerNode(s, nodes), people.ask("join", s.access, nil))
	if err != nil {
		stop()
		return nil, nil, err
	}
	n := lonely{URL: s.URL, CAFile: s.CAFile, Node: s.node, StateDir: filepath.Join(s.fleet, s.node)}
	return people, stop, nodes.ask("silent", n, nil)
}

// registerNode registers s.node without running its agent.
func (l *lab) registerNode(s *system, nodes *child) error {
	var a activation
	if err := s.server.ask("activate", []string{s.node}, &a); err != nil {
		return err
	}
	return nodes.ask("register", fleet{URL: s.URL, CAFile: s.CAFile, Dir: s.fleet, Nodes: []string{s.node}, Activation: a}, nil)
}

// setUp opens sessions and returns how many per second, and how many per second of
// the server's own work.
func setUp(s *system, people *child, count int) (rate, alone float64, err error) {
	before, err := s.server.processor()
	if err != nil {
		return 0, 0, err
	}
	var seconds float64
	if err := people.ask("stay", stays{Node: s.node, Count: count, AtOnce: 32}, &seconds); err != nil {
		return 0, 0, err
	}
	after, err := s.server.processor()
	if err != nil {
		return 0, 0, err
	}
	return float64(count) / seconds, float64(count) / (after - before), people.ask("leave", nil, nil)
}

// newFloorDB is a database with the store's guarantees and nothing else.
func (l *lab) newFloorDB() (*sql.DB, error) {
	q := url.Values{"_pragma": {"journal_mode(wal)", "synchronous(full)"}}
	db, err := sql.Open("sqlite", "file:"+l.path("floor.db")+"?"+q.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	_, err = db.Exec("CREATE TABLE records (id INTEGER PRIMARY KEY, body TEXT NOT NULL)")
	return db, err
}

// commits counts durable commits per second by one writer.
func commits(db *sql.DB, lasting time.Duration) (float64, error) {
	n, began := 0, time.Now()
	for time.Since(began) < lasting {
		if _, err := db.Exec("INSERT INTO records (body) VALUES (?)", "an audit record of about the usual size, as JSON"); err != nil {
			return 0, err
		}
		n++
	}
	return float64(n) / time.Since(began).Seconds(), nil
}

// jumps counts connections per second through a jump host, without a shell: each is
// done when the far server has introduced itself.
func jumps(ctx context.Context, pair *sshPair, count int) (float64, error) {
	began := time.Now()
	err := each(count, 6, func(int) error {
		cmd := pair.command("-W", fmt.Sprintf("127.0.0.1:%d", pair.ports[1]), "behind")
		cmd.WaitDelay = patience
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		in, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		_, err = io.ReadFull(out, make([]byte, 4))
		in.Close()
		cmd.Process.Kill()
		cmd.Wait() // it was killed
		return err
	})
	return float64(count) / time.Since(began).Seconds(), errors.Join(err, ctx.Err())
}
