// Package nested bounds how deep HCL is nested before its parser sees it: that is recursive,
// and a stack of Go's that overflows ends the whole program.
package nested

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// Most is how many levels there may be: of brackets, and of operators before an operand.
const Most = 100

// ErrTooDeep tells that a text is nested deeper.
var ErrTooDeep = fmt.Errorf("brackets are nested too deep; at most %d levels", Most)

// Check looks at the tokens of a text. What is no HCL at all is the parser's to refuse.
func Check(file string, source []byte) error {
	tokens, _ := hclsyntax.LexConfig(source, file, hcl.InitialPos)
	depth, unary := 0, 0
	for _, t := range tokens {
		switch t.Type {
		case hclsyntax.TokenOBrace, hclsyntax.TokenOBrack, hclsyntax.TokenOParen,
			hclsyntax.TokenTemplateInterp, hclsyntax.TokenTemplateControl, hclsyntax.TokenOQuote, hclsyntax.TokenOHeredoc:
			depth++
		case hclsyntax.TokenCBrace, hclsyntax.TokenCBrack, hclsyntax.TokenCParen,
			hclsyntax.TokenTemplateSeqEnd, hclsyntax.TokenCQuote, hclsyntax.TokenCHeredoc:
			// What closes nothing is no room for more: the parser goes on after mistakes.
			depth = max(0, depth-1)
		}
		switch t.Type {
		case hclsyntax.TokenBang, hclsyntax.TokenMinus, hclsyntax.TokenQuestion:
			unary++
		case hclsyntax.TokenNewline:
			unary = 0
		}
		if depth > Most || unary > Most {
			return ErrTooDeep
		}
	}
	return nil
}
