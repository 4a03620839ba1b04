package shell

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Command runs a command line without a shell, a terminal or input: the line is split
// as a shell would split it and the program is looked up in the user's own path. With
// separate, errors are read apart from output (ReadError).
func (o Options) Command(u User, line string, separate bool) (*Process, error) {
	run, err := o.words(u, line)
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	var errs *os.File
	we := w
	if separate {
		if errs, we, err = os.Pipe(); err != nil {
			return nil, errors.Join(err, out.Close())
		}
		defer we.Close()
	}
	started, err := o.start(run, u, nil, w, we, &syscall.SysProcAttr{Setsid: true})
	if err != nil {
		return nil, errors.Join(err, out.Close(), closeAny(errs))
	}
	return newProcess(started, nil, out, errs), nil
}

// words is the program that a line names, with its arguments.
func (o Options) words(u User, line string) (program, error) {
	argv, err := split(line)
	if err != nil {
		return program{}, err
	}
	path, err := lookup(o.login(u).path, argv[0])
	if err != nil {
		return program{}, err
	}
	return program{path: path, args: argv, env: []string{"TERM=" + defaultTerm}}, nil
}

func closeAny(f *os.File) error {
	if f == nil {
		return nil
	}
	return f.Close()
}

// lookup finds a program in the user's path; the agent's own may be another.
func lookup(path, name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, dir := range strings.Split(path, ":") {
		p := filepath.Join(dir, name)
		if info, err := os.Stat(p); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("%q: executable file not found in %s", name, path)
}

// split cuts a command line into words as a shell does, quotes and backslashes
// included; nothing is expanded.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	inWord := false
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case quote == '\'':
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '\\':
			if i++; i == len(line) {
				return nil, errors.New("command ends in a backslash")
			}
			if quote == '"' && strings.IndexByte("\"\\$`\n", line[i]) < 0 {
				word.WriteByte('\\')
			}
			if line[i] != '\n' {
				word.WriteByte(line[i])
			}
			inWord = true
		case quote == '"':
			if c == quote {
				quote = 0
			} else {
				word.WriteByte(c)
			}
		case c == '\'' || c == '"':
			quote, inWord = c, true
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			if inWord {
				words = append(words, word.String())
				word.Reset()
				inWord = false
			}
		default:
			word.WriteByte(c)
			inWord = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("command has an unclosed %c", quote)
	}
	if inWord {
		words = append(words, word.String())
	}
	if len(words) == 0 {
		return nil, errors.New("command is empty")
	}
	return words, nil
}
