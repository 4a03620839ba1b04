package main

import (
	"errors"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
)

// decode reads a configuration file: attributes, and blocks of attributes, all of them
// known. It does without HCL's decoder into structs, which costs the idle agent 0.7 MB.
func (s *settings) decode(path string, text []byte) error {
	f, diags := hclsyntax.ParseConfig(text, path, hcl.InitialPos)
	if diags.HasErrors() {
		return first(diags)
	}
	body, ok := f.Body.(*hclsyntax.Body)
	if !ok {
		return fmt.Errorf("%s: not in HCL's native syntax", path)
	}
	if err := decodeAttributes(body.Attributes, s.keys()); err != nil {
		return err
	}
	blocks, seen := s.blocks(), map[string]bool{}
	for _, b := range body.Blocks {
		if b.Type == "key_sync" {
			c, err := decodeKeySync(b)
			if err != nil {
				return err
			}
			s.KeySync = append(s.KeySync, c)
			continue
		}
		keys, ok := blocks[b.Type]
		switch {
		case !ok:
			known := append(slices.Sorted(maps.Keys(blocks)), "key_sync")
			return fmt.Errorf("%s: unknown block %q: allowed are %s", b.TypeRange, b.Type, strings.Join(known, ", "))
		case seen[b.Type], len(b.Labels) > 0, len(b.Body.Blocks) > 0:
			return fmt.Errorf("%s: %s: want one block without labels or blocks in it", b.TypeRange, b.Type)
		}
		seen[b.Type] = true
		if err := decodeAttributes(b.Body.Attributes, keys); err != nil {
			return err
		}
	}
	return nil
}

func decodeAttributes(attrs hclsyntax.Attributes, keys map[string]any) error {
	for name, attr := range attrs {
		to, ok := keys[name]
		if !ok {
			known := slices.Sorted(maps.Keys(keys))
			return fmt.Errorf("%s: unknown key %q: allowed are %s", attr.Range(), name, strings.Join(known, ", "))
		}
		v, diags := attr.Expr.Value(nil)
		if diags.HasErrors() {
			return first(diags)
		}
		if err := assign(v, to); err != nil {
			return fmt.Errorf("%s: %s: %w", attr.Range(), name, err)
		}
	}
	return nil
}

// first is the first diagnostic with its place in the file.
func first(diags hcl.Diagnostics) error { return errors.New(diags[0].Error()) }

// assign puts a value where a key goes.
func assign(v cty.Value, to any) error {
	switch to := to.(type) {
	case *string:
		if v.Type() != cty.String || v.IsNull() {
			return errors.New("want a string")
		}
		*to = v.AsString()
	case *bool:
		if v.Type() != cty.Bool || v.IsNull() {
			return errors.New("want true or false")
		}
		*to = v.True()
	case *int:
		if v.Type() != cty.Number || v.IsNull() {
			return errors.New("want a number")
		}
		n, accuracy := v.AsBigFloat().Int64()
		if accuracy != big.Exact {
			return errors.New("want a whole number")
		}
		*to = int(n)
	case *[]string:
		if !v.Type().IsTupleType() {
			return errors.New("want a list of strings")
		}
		for _, e := range v.AsValueSlice() {
			var text string
			if err := assign(e, &text); err != nil {
				return errors.New("want a list of strings")
			}
			*to = append(*to, text)
		}
	}
	return nil
}
