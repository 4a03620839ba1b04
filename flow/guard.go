package flow

import (
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"
)

// Starlark bounds steps, but one step may do any amount of work: "a" * 1000000000, a
// comparison of lists that hold each other a thousandfold, sorted(range(10**12)). guard
// rewrites a program so that each such step goes through the meter, which counts what it
// costs before it is done:
//
//	x + y        ·op("+", x, y)      every binary operator but and, or
//	x += y       x = ·op("+=", x, y)
//	x.name       ·attr(x, "name")    so methods of strings, lists, … are metered, too
//	x[y]         x[·key(y)]          hashing a key is work
//	f(*x, **y)   f(*·spread(x), **·spread(y))
//	x[a:b]       ·copy(x[a:b])       and so {…} and comprehensions
//
// The names cannot be written in Starlark, so nothing can stand in for them.
const (
	guardOp     = "·op"
	guardAttr   = "·attr"
	guardKey    = "·key"
	guardSpread = "·spread"
	guardCopy   = "·copy"
)

// guard rewrites a file in place.
func guard(f *syntax.File) error {
	g := guarding{file: f.Path}
	g.stmts(f.Stmts)
	return g.err
}

type guarding struct {
	file string
	err  error
}

func (g *guarding) stmts(all []syntax.Stmt) {
	for _, s := range all {
		g.stmt(s)
	}
}

func (g *guarding) stmt(s syntax.Stmt) {
	switch s := s.(type) {
	case *syntax.AssignStmt:
		g.assign(s)
	case *syntax.DefStmt:
		g.params(s.Params)
		g.stmts(s.Body)
	case *syntax.ExprStmt:
		s.X = g.expr(s.X)
	case *syntax.ForStmt:
		s.Vars = g.place(s.Vars)
		s.X = g.expr(s.X)
		g.stmts(s.Body)
	case *syntax.WhileStmt:
		s.Cond = g.expr(s.Cond)
		g.stmts(s.Body)
	case *syntax.IfStmt:
		s.Cond = g.expr(s.Cond)
		g.stmts(s.True)
		g.stmts(s.False)
	case *syntax.ReturnStmt:
		s.Result = g.expr(s.Result)
	}
}

// assign makes x += y an assignment of what the meter returns.
func (g *guarding) assign(s *syntax.AssignStmt) {
	if s.Op != syntax.EQ {
		now := copyPlace(s.LHS)
		if now == nil {
			g.refuse(s.OpPos, "write x = x "+plainOp(s.Op).String()+" y: the place that is assigned to is too involved for "+s.Op.String())
			return
		}
		s.RHS = &syntax.BinaryExpr{X: now, OpPos: s.OpPos, Op: s.Op, Y: s.RHS}
		s.Op = syntax.EQ
	}
	s.RHS = g.expr(s.RHS)
	s.LHS = g.place(s.LHS)
}

func (g *guarding) refuse(at syntax.Position, text string) {
	if g.err == nil {
		g.err = &CodeError{File: g.file, Line: int(at.Line), Text: text}
	}
}

// copyPlace copies names, and elements of names by names or constants: reading them
// twice does nothing twice. It returns nil for all else.
func copyPlace(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.Ident:
		return &syntax.Ident{NamePos: e.NamePos, Name: e.Name}
	case *syntax.Literal:
		return &syntax.Literal{Token: e.Token, TokenPos: e.TokenPos, Raw: e.Raw, Value: e.Value}
	case *syntax.ParenExpr:
		return copyPlace(e.X)
	case *syntax.DotExpr:
		if x := copyPlace(e.X); x != nil {
			return &syntax.DotExpr{X: x, Dot: e.Dot, NamePos: e.NamePos, Name: &syntax.Ident{NamePos: e.NamePos, Name: e.Name.Name}}
		}
	case *syntax.IndexExpr:
		x, y := copyPlace(e.X), copyPlace(e.Y)
		if x != nil && y != nil {
			return &syntax.IndexExpr{X: x, Lbrack: e.Lbrack, Y: y, Rbrack: e.Rbrack}
		}
	}
	return nil
}

// place rewrites what is assigned to.
func (g *guarding) place(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.ParenExpr:
		e.X = g.place(e.X)
	case *syntax.TupleExpr:
		g.places(e.List)
	case *syntax.ListExpr:
		g.places(e.List)
	case *syntax.IndexExpr:
		e.X, e.Y = g.expr(e.X), g.key(e.Y)
	case *syntax.DotExpr:
		e.X = g.expr(e.X)
	}
	return e
}

func (g *guarding) places(list []syntax.Expr) {
	for i, e := range list {
		list[i] = g.place(e)
	}
}

// params rewrites the defaults of parameters.
func (g *guarding) params(list []syntax.Expr) {
	for _, p := range list {
		if b, ok := p.(*syntax.BinaryExpr); ok {
			b.Y = g.expr(b.Y)
		}
	}
}

func (g *guarding) exprs(list []syntax.Expr) {
	for i, e := range list {
		list[i] = g.expr(e)
	}
}

// expr rewrites an expression and returns what stands for it.
func (g *guarding) expr(e syntax.Expr) syntax.Expr {
	switch e := e.(type) {
	case *syntax.BinaryExpr:
		return g.binary(e)
	case *syntax.CallExpr:
		e.Fn = g.expr(e.Fn)
		for i, a := range e.Args {
			e.Args[i] = g.argument(a)
		}
	case *syntax.DotExpr:
		return call(guardAttr, e.Dot, g.expr(e.X), text(e.NamePos, e.Name.Name))
	case *syntax.IndexExpr:
		e.X, e.Y = g.expr(e.X), g.key(e.Y)
	case *syntax.SliceExpr:
		e.X, e.Lo, e.Hi, e.Step = g.expr(e.X), g.expr(e.Lo), g.expr(e.Hi), g.expr(e.Step)
		return call(guardCopy, e.Lbrack, e)
	case *syntax.Comprehension:
		g.comprehension(e)
		return call(guardCopy, e.Lbrack, e)
	case *syntax.CondExpr:
		e.Cond, e.True, e.False = g.expr(e.Cond), g.expr(e.True), g.expr(e.False)
	case *syntax.DictEntry:
		e.Key, e.Value = g.key(e.Key), g.expr(e.Value)
	case *syntax.DictExpr:
		g.exprs(e.List)
		return call(guardCopy, e.Lbrace, e)
	case *syntax.LambdaExpr:
		g.params(e.Params)
		e.Body = g.expr(e.Body)
	case *syntax.ListExpr:
		g.exprs(e.List)
	case *syntax.TupleExpr:
		g.exprs(e.List)
	case *syntax.ParenExpr:
		e.X = g.expr(e.X)
	case *syntax.UnaryExpr:
		e.X = g.expr(e.X)
	}
	return e
}

func (g *guarding) binary(e *syntax.BinaryExpr) syntax.Expr {
	x, y := g.expr(e.X), g.expr(e.Y)
	if e.Op == syntax.AND || e.Op == syntax.OR {
		e.X, e.Y = x, y
		return e
	}
	return call(guardOp, e.OpPos, number(e.OpPos, int64(e.Op)), x, y)
}

// argument rewrites name=value and *value without touching their form.
func (g *guarding) argument(a syntax.Expr) syntax.Expr {
	switch a := a.(type) {
	case *syntax.BinaryExpr:
		if a.Op == syntax.EQ {
			a.Y = g.expr(a.Y)
			return a
		}
	case *syntax.UnaryExpr:
		if a.Op == syntax.STAR || a.Op == syntax.STARSTAR {
			a.X = call(guardSpread, a.OpPos, g.expr(a.X))
			return a
		}
	}
	return g.expr(a)
}

func (g *guarding) comprehension(e *syntax.Comprehension) {
	_, entry := e.Body.(*syntax.DictEntry)
	if e.Curly && !entry {
		e.Body = g.key(e.Body)
	} else {
		e.Body = g.expr(e.Body)
	}
	for _, c := range e.Clauses {
		switch c := c.(type) {
		case *syntax.ForClause:
			c.Vars, c.X = g.place(c.Vars), g.expr(c.X)
		case *syntax.IfClause:
			c.Cond = g.expr(c.Cond)
		}
	}
}

// key rewrites what is hashed or counts as an index. Constants cost nothing.
func (g *guarding) key(e syntax.Expr) syntax.Expr {
	if _, ok := e.(*syntax.Literal); ok {
		return e
	}
	start, _ := e.Span()
	return call(guardKey, start, g.expr(e))
}

func call(name string, at syntax.Position, args ...syntax.Expr) syntax.Expr {
	return &syntax.CallExpr{Fn: &syntax.Ident{NamePos: at, Name: name}, Lparen: at, Args: args, Rparen: at}
}

func text(at syntax.Position, s string) syntax.Expr {
	return &syntax.Literal{Token: syntax.STRING, TokenPos: at, Raw: starlark.String(s).String(), Value: s}
}

func number(at syntax.Position, n int64) syntax.Expr {
	return &syntax.Literal{Token: syntax.INT, TokenPos: at, Raw: "0", Value: n}
}

// plainOp is the operator of an assignment: + of +=. Package syntax keeps both in one order.
func plainOp(op syntax.Token) syntax.Token {
	if op >= syntax.PLUS_EQ && op <= syntax.GTGT_EQ {
		return op - syntax.PLUS_EQ + syntax.PLUS
	}
	return op
}
