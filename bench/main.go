// Bench measures Sallyport beside peers and floors in one run on one machine:
// go run ./bench [-quick] [section…]. README.md tells the method and the aims.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"sallyport.dev/internal/build"
)

// section is one part of the measurements.
type section struct {
	name, about string
	run         func(ctx context.Context, l *lab) ([]figure, error)
}

// sections are all parts, in the order in which they run.
var sections = []section{
	{"policy", "policy decisions on one core, 1,000 policies in the system", benchPolicy},
	{"start", "from asking for a session to the first bytes of its prompt", benchStart},
	{"echo", "from a key to its echo, through a program in raw mode on a terminal", benchEcho},
	{"output", "terminal output through agent, recording and client", benchOutput},
	{"recording", "what recording takes of the server's processor time per byte shown", benchRecording},
	{"setups", "session set-ups per second, with policy, recording and durable audit", benchSetups},
	{"forward", "forwards: throughput, cost, new connections, echoes, long links", benchForward},
	{"memory", "memory that idle nodes and idle shells take", benchMemory},
}

// longest bounds a run, whatever hangs.
const longest = 30 * time.Minute

func main() {
	if len(os.Args) > 1 {
		if role, ok := strings.CutPrefix(os.Args[1], childPrefix); ok {
			os.Exit(runChild(role))
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithTimeout(ctx, longest)
	err := run(ctx, os.Args[1:])
	cancel()
	stop()
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	quick := flags.Bool("quick", false, "fewer rounds and smaller amounts; less exact")
	profiles := flags.String("profiles", "", "write CPU and heap profiles of the server into this `directory`")
	flags.Usage = func() { usage(flags) }
	if err := flags.Parse(args); err != nil {
		return err
	}
	chosen, err := choose(flags.Args())
	if err != nil {
		return err
	}
	l, err := newLab(*quick, *profiles)
	if err != nil {
		return err
	}
	defer l.close()
	fmt.Printf("sallyport %s, %s, %d × %s\n", build.Version(), runtime.Version(), runtime.NumCPU(), processor())
	for _, s := range chosen {
		if err := l.runSection(ctx, s); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func usage(flags *flag.FlagSet) {
	fmt.Fprintln(os.Stderr, "usage: go run ./bench [-quick] [-profiles DIR] [SECTION…]")
	flags.PrintDefaults()
	fmt.Fprintln(os.Stderr, "sections:")
	for _, s := range sections {
		fmt.Fprintf(os.Stderr, "  %-8s %s\n", s.name, s.about)
	}
}

// choose returns the named sections, all of them if none is named.
func choose(names []string) ([]section, error) {
	if len(names) == 0 {
		return sections, nil
	}
	var chosen []section
	for _, name := range names {
		i := slices.IndexFunc(sections, func(s section) bool { return s.name == name })
		if i < 0 {
			return nil, fmt.Errorf("no section %q; --help lists them", name)
		}
		chosen = append(chosen, sections[i])
	}
	return chosen, nil
}

func (l *lab) runSection(ctx context.Context, s section) error {
	began := time.Now()
	fmt.Printf("\n%s: %s\n", s.name, s.about)
	figures, err := s.run(ctx, l)
	printFigures(os.Stdout, figures)
	if err != nil {
		return err
	}
	fmt.Printf("(%.0f s, load average %s)\n", time.Since(began).Seconds(), loadAverage())
	return nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(b), " ")
	return first
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t :\n")
		}
	}
	return runtime.GOARCH
}
