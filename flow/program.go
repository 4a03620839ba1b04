package flow

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

const (
	maxSource  = 256 << 10 // bytes of one file of code
	maxModules = 50        // that one flow loads
	maxLoading = 100_000   // steps of what stands outside functions
)

// program is compiled code: its frozen globals, which many runs share.
type program struct{ globals starlark.StringDict }

// functions are the names of what may be called, in order.
func (p *program) functions() []string {
	var names []string
	for name, v := range p.globals {
		if _, ok := v.(*starlark.Function); ok {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// dialect is Starlark without while, recursion and statements outside functions: every
// loop is over something that has an end.
func dialect() *syntax.FileOptions { return &syntax.FileOptions{Set: true} }

// parseCode reads one file of code.
func parseCode(file, source string) (*syntax.File, error) {
	if len(source) > maxSource {
		return nil, &CodeError{File: file, Text: fmt.Sprintf("the file has %d bytes; at most %d", len(source), maxSource)}
	}
	if deepest(source) > maxNesting {
		return nil, &CodeError{File: file, Text: errTooDeep.Error()}
	}
	f, err := dialect().Parse(file, source, 0)
	if err != nil {
		return nil, codeError(file, "", err)
	}
	return f, nil
}

// gather finds the files that the code loads, and those that these load.
func (c *Code) gather(files map[string][]byte) error {
	sources := map[string]string{}
	todo := []string{c.File}
	for len(todo) > 0 {
		file := todo[0]
		todo = todo[1:]
		source := c.Source
		if file != c.File {
			source = sources[file]
		}
		parsed, err := parseCode(file, source)
		if err != nil {
			return err
		}
		for _, load := range loads(parsed) {
			name := beside(file, load.ModuleName())
			text, ok := files[name]
			if !ok || !strings.HasSuffix(name, CodeSuffix) {
				return &CodeError{File: file, Line: int(load.Load.Line), Text: fmt.Sprintf("load: there is no file %s", name)}
			}
			if _, seen := sources[name]; seen || name == c.File {
				continue
			}
			if len(sources) == maxModules {
				return &CodeError{File: file, Line: int(load.Load.Line), Text: fmt.Sprintf("load: more than %d files", maxModules)}
			}
			sources[name] = string(text)
			todo = append(todo, name)
		}
	}
	if len(sources) > 0 {
		c.Modules = sources
	}
	return nil
}

func loads(f *syntax.File) []*syntax.LoadStmt {
	var out []*syntax.LoadStmt
	for _, s := range f.Stmts {
		if load, ok := s.(*syntax.LoadStmt); ok {
			out = append(out, load)
		}
	}
	return out
}

// compile returns the program, which Parse has made already. A panic of the compiler is
// an error: the text is somebody's.
func (c *Code) compile() (p *program, err error) {
	if c.ready != nil {
		return c.ready, nil
	}
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, &CodeError{File: c.File, Text: fmt.Sprintf("the compiler gave up: %v", r)}
		}
	}()
	l := loader{code: c, modules: map[string]starlark.StringDict{}, loading: map[string]bool{}}
	globals, err := l.load(c.File, c.Source)
	if err != nil {
		return nil, err
	}
	return &program{globals}, nil
}

// loader runs the top level of files, which only defines functions and constants.
type loader struct {
	code    *Code
	modules map[string]starlark.StringDict
	loading map[string]bool
}

func (l *loader) load(file, source string) (starlark.StringDict, error) {
	if l.loading[file] {
		return nil, &CodeError{File: file, Text: "loads itself"}
	}
	l.loading[file] = true
	defer delete(l.loading, file)
	parsed, err := parseCode(file, source)
	if err != nil {
		return nil, err
	}
	if err := guard(parsed); err != nil {
		return nil, err
	}
	words := predeclared()
	prog, err := starlark.FileProgram(parsed, words.Has)
	if err != nil {
		return nil, codeError(file, "", err)
	}
	thread := newThread(file)
	thread.SetMaxExecutionSteps(maxLoading)
	thread.Load = func(_ *starlark.Thread, module string) (starlark.StringDict, error) {
		return l.module(beside(file, module))
	}
	globals, err := prog.Init(thread, words)
	if err != nil {
		return nil, codeError(file, "", err)
	}
	globals.Freeze()
	return globals, nil
}

func (l *loader) module(file string) (starlark.StringDict, error) {
	if globals, ok := l.modules[file]; ok {
		return globals, nil
	}
	source, ok := l.code.Modules[file]
	if !ok {
		return nil, fmt.Errorf("there is no file %s", file)
	}
	globals, err := l.load(file, source)
	if err != nil {
		return nil, err
	}
	l.modules[file] = globals
	return globals, nil
}

// codeError tells where code went wrong.
func codeError(file, function string, err error) *CodeError {
	var done *CodeError
	if errors.As(err, &done) {
		return done
	}
	e := &CodeError{File: file, Function: function, Text: err.Error()}
	var parse syntax.Error
	var unresolved resolve.ErrorList
	var eval *starlark.EvalError
	switch {
	case errors.As(err, &parse):
		e.Line, e.Text = int(parse.Pos.Line), parse.Msg
	case errors.As(err, &unresolved):
		e.Line, e.Text = int(unresolved[0].Pos.Line), unresolved[0].Msg
	case errors.As(err, &eval):
		e.Text, e.Cause = eval.Msg, eval.Unwrap()
		for i := range eval.CallStack {
			at := eval.CallStack[len(eval.CallStack)-1-i].Pos
			if at.Line > 0 && path.Ext(at.Filename()) == CodeSuffix {
				e.File, e.Line = at.Filename(), int(at.Line)
				break
			}
		}
	}
	return e
}
