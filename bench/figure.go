package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// figure is one measurement beside its peers or floors.
type figure struct {
	name  string
	value float64
	unit  string
	peers []peer
	aim   string // empty where this is not what the aim is about
	met   bool
}

// peer is what a figure is compared with.
type peer struct {
	name  string
	value float64
	ratio float64 // figure ÷ peer: the median over the rounds
}

func printFigures(w io.Writer, figures []figure) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range figures {
		fmt.Fprintf(t, "  %s\t%s\t%s\n", f.name, amount(f.value, f.unit), f.verdict())
		for _, p := range f.peers {
			fmt.Fprintf(t, "    ÷ %s\t%s\t× %.3g\n", p.name, amount(p.value, f.unit), p.ratio)
		}
	}
	t.Flush()
}

func (f figure) verdict() string {
	switch {
	case f.aim == "":
		return ""
	case f.met:
		return "aim " + f.aim + ": reached"
	}
	return "aim " + f.aim + ": MISSED"
}

func amount(v float64, unit string) string {
	switch {
	case v >= 10000:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 100:
		return fmt.Sprintf("%.0f %s", v, unit)
	case v >= 10:
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.2f %s", v, unit)
}

// contestant is one thing that is measured in every round.
type contestant struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// results are the values of each contestant, one per round.
type results map[string][]float64

// compete measures the contestants in turn, each round in another order, after one
// round that does not count.
func compete(ctx context.Context, rounds int, all ...contestant) (results, error) {
	r := results{}
	for round := range rounds + 1 {
		for i := range all {
			c := all[(i+round)%len(all)]
			v, err := c.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", c.name, err)
			}
			if round > 0 {
				r[c.name] = append(r[c.name], v)
			}
		}
	}
	return r, nil
}

// figure compares one contestant with others.
func (r results) figure(name, unit string, peers ...string) figure {
	f := figure{name: name, value: median(r[name]), unit: unit}
	for _, p := range peers {
		f.peers = append(f.peers, peer{name: p, value: median(r[p]), ratio: median(ratios(r[name], r[p]))})
	}
	return f
}

// minus adds the differences of two contestants as a result of its own.
func (r results) minus(name, a, b string) {
	for i := range r[a] {
		r[name] = append(r[name], r[a][i]-r[b][i])
	}
}

func (f figure) atMost(limit float64, aim string) figure {
	f.aim, f.met = aim, f.value <= limit
	return f
}

func (f figure) atLeast(limit float64, aim string) figure {
	f.aim, f.met = aim, f.value >= limit
	return f
}

// noSlowerThan sets the aim to the i-th peer's own value.
func (f figure) noSlowerThan(i int) figure {
	f.aim, f.met = "≤ "+f.peers[i].name, f.peers[i].ratio <= 1
	return f
}

func ratios(a, b []float64) []float64 {
	out := make([]float64, min(len(a), len(b)))
	for i := range out {
		out[i] = a[i] / b[i]
	}
	return out
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(values))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}
