package flow

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
)

const maxProblems = 50 // that are told at once

// Problem is a mistake in a file.
type Problem struct {
	File string
	Line int // from 1 on
	Text string
}

// String is file:line: text.
func (p Problem) String() string { return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Text) }

// ParseError is what is wrong with flow files, in the order of files and lines.
type ParseError struct{ Problems []Problem }

// Error implements error; it has a line per problem.
func (e *ParseError) Error() string {
	lines := make([]string, 0, len(e.Problems))
	for i, p := range e.Problems {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(e.Problems)-i))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// problems gathers mistakes.
type problems struct{ all []Problem }

func (p *problems) add(at hcl.Range, format string, args ...any) {
	p.all = append(p.all, Problem{at.Filename, max(at.Start.Line, 1), fmt.Sprintf(format, args...)})
}

// diagnostics adds those of HCL.
func (p *problems) diagnostics(file string, diags hcl.Diagnostics) {
	for _, d := range diags {
		if d.Severity != hcl.DiagError {
			continue
		}
		at := hcl.Range{Filename: file}
		if d.Subject != nil {
			at = *d.Subject
		}
		text := d.Summary
		if d.Detail != "" {
			text += ": " + strings.TrimSuffix(d.Detail, ".")
		}
		p.add(at, "%s", strings.ReplaceAll(text, "\n", " "))
	}
}

// err returns the mistakes as one error, or nil.
func (p *problems) err() error {
	if len(p.all) == 0 {
		return nil
	}
	slices.SortStableFunc(p.all, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line))
	})
	return &ParseError{p.all}
}
