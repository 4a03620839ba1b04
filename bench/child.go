package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
)

// Parts of the benchmark run in processes of their own, so that the memory and the
// work of each are its own: this program, started with a role. Parent and child
// exchange one JSON line each way per request; the end of its input ends a child.
const childPrefix = "child:"

// request is what a parent asks of a child.
type request struct {
	Op   string          `json:"op"`
	Args json.RawMessage `json:"args,omitempty"`
}

// response is the answer.
type response struct {
	Error  string          `json:"error,omitempty"`
	Result json.RawMessage `json:"result,omitempty"`
}

// operations are what a child does on request, by name.
type operations map[string]func(args json.RawMessage) (any, error)

// role starts a child; the returned function ends it.
type role func() (ops operations, stop func(), err error)

var roles = map[string]role{
	"server":  serverRole,
	"nodes":   nodesRole,
	"people":  peopleRole,
	"idle":    idleRole,
	"forward": forwardRole,
}

// runChild serves a parent until its requests end.
func runChild(name string) int {
	start, ok := roles[name]
	if !ok {
		fmt.Fprintf(os.Stderr, "bench: no role %q\n", name)
		return 2
	}
	ops, stop, err := start()
	if err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	defer stop()
	ops.addDiagnoses()
	if err := ops.serve(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		return 1
	}
	return 0
}

func (ops operations) serve(r io.Reader, w io.Writer) error {
	in, out := json.NewDecoder(r), json.NewEncoder(w)
	for {
		var req request
		if err := in.Decode(&req); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := out.Encode(ops.answer(req)); err != nil {
			return err
		}
	}
}

func (ops operations) answer(req request) response {
	f, ok := ops[req.Op]
	if !ok {
		return response{Error: fmt.Sprintf("no operation %q", req.Op)}
	}
	result, err := f(req.Args)
	if err != nil {
		return response{Error: err.Error()}
	}
	b, err := json.Marshal(result)
	if err != nil {
		return response{Error: err.Error()}
	}
	return response{Result: b}
}

// handler makes an operation of a function with a typed argument.
func handler[In, Out any](f func(In) (Out, error)) func(json.RawMessage) (any, error) {
	return func(args json.RawMessage) (any, error) {
		var in In
		if len(args) > 0 {
			if err := json.Unmarshal(args, &in); err != nil {
				return nil, err
			}
		}
		return f(in)
	}
}

// usage is the memory that a process uses, in bytes.
type memoryUse struct {
	RSS    float64
	Heap   float64 // live, after a collection
	Stacks float64
	Count  int // goroutines
}

// addDiagnoses adds what every child can do.
func (ops operations) addDiagnoses() {
	var profile *os.File
	ops["memory"] = handler(func(struct{}) (memoryUse, error) { return ownMemory() })
	ops["processor"] = handler(func(struct{}) (float64, error) { return processorTime().Seconds(), nil })
	ops["heap"] = handler(func(path string) (struct{}, error) { return struct{}{}, writeHeap(path) })
	ops["profile"] = handler(func(path string) (struct{}, error) {
		f, err := os.Create(path)
		if err != nil {
			return struct{}{}, err
		}
		profile = f
		return struct{}{}, pprof.StartCPUProfile(f)
	})
	ops["profiled"] = handler(func(struct{}) (struct{}, error) {
		pprof.StopCPUProfile()
		return struct{}{}, profile.Close()
	})
}

// ownMemory collects garbage as often as an idle process does in ten minutes, gives
// back what is free, as the runtime does by and by, and counts the rest. One collection
// is not enough: pools take two, and each halves stacks that have grown.
func ownMemory() (memoryUse, error) {
	for range 5 {
		runtime.GC()
	}
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	rss, err := smaps(os.Getpid(), "Rss")
	return memoryUse{RSS: rss * 1024, Heap: float64(m.HeapAlloc), Stacks: float64(m.StackInuse), Count: runtime.NumGoroutine()}, err
}

func writeHeap(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	runtime.GC()
	return errors.Join(pprof.Lookup("heap").WriteTo(f, 0), f.Close())
}

// child is the parent's end of a child.
type child struct {
	*started
	lab  *lab
	name string

	mu  sync.Mutex
	in  io.WriteCloser
	out *json.Decoder
}

func (l *lab) child(name string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, childPrefix+name)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe() // StdoutPipe would be closed by a Wait
	if err != nil {
		return nil, err
	}
	cmd.Stdout = w
	s, err := l.start(cmd, name)
	w.Close()
	if err != nil {
		return nil, errors.Join(err, r.Close())
	}
	l.later(func() { r.Close() })
	return &child{started: s, lab: l, name: name, in: in, out: json.NewDecoder(bufio.NewReader(r))}, nil
}

// end ends a child by the end of its input.
func (c *child) end() {
	c.in.Close()
	select {
	case <-c.done:
	default:
		c.stop()
	}
}

// ask makes one request. result may be nil.
func (c *child) ask(op string, args, result any) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	b, err := json.Marshal(args)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(c.in).Encode(request{op, b}); err != nil {
		return c.why(fmt.Errorf("asking %s for %s: %w", c.name, op, err))
	}
	var r response
	if err := c.out.Decode(&r); err != nil {
		return c.why(fmt.Errorf("asking %s for %s: %w", c.name, op, err))
	}
	if r.Error != "" {
		return c.why(fmt.Errorf("%s: %s: %s", c.name, op, r.Error))
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(r.Result, result)
}

func (c *child) memory() (memoryUse, error) {
	var m memoryUse
	return m, c.ask("memory", nil, &m)
}

// processor returns the seconds of processor time that the child has used.
func (c *child) processor() (float64, error) {
	var seconds float64
	return seconds, c.ask("processor", nil, &seconds)
}

// profiling writes a CPU profile of the child while f runs, if profiles are wanted.
func (c *child) profiling(name string, f func() error) error {
	if c.lab.profiles == "" {
		return f()
	}
	path, err := filepath.Abs(filepath.Join(c.lab.profiles, name+"-"+c.name+".cpu"))
	if err != nil {
		return err
	}
	if err := c.ask("profile", path, nil); err != nil {
		return err
	}
	return errors.Join(f(), c.ask("profiled", nil, nil))
}

// keepHeap writes a heap profile of the child, if profiles are wanted.
func (c *child) keepHeap(name string) error {
	if c.lab.profiles == "" {
		return nil
	}
	path, err := filepath.Abs(filepath.Join(c.lab.profiles, name+"-"+c.name+".heap"))
	if err != nil {
		return err
	}
	return c.ask("heap", path, nil)
}
