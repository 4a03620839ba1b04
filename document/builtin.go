package document

import (
	"embed"
	"fmt"
	"path"
	"strings"
	"sync"
)

//go:embed builtin/*.json
var builtinFiles embed.FS

// builtins parses the embedded documents once; a test keeps them parseable.
var builtins = sync.OnceValue(func() map[string]*Document {
	files, err := builtinFiles.ReadDir("builtin")
	if err != nil {
		panic(fmt.Sprintf("document: reading built-in documents: %v", err))
	}
	out := make(map[string]*Document, len(files))
	for _, f := range files {
		name := strings.TrimSuffix(f.Name(), ".json")
		b, err := builtinFiles.ReadFile(path.Join("builtin", f.Name()))
		if err != nil {
			panic(fmt.Sprintf("document: reading built-in documents: %v", err))
		}
		d, err := Parse(name, b)
		if err != nil {
			panic(fmt.Sprintf("document: built-in documents: %v", err))
		}
		out[name] = d
	}
	return out
})

// Builtin returns one of the documents that every deployment has: those that AWS
// owns, and the preferences as long as no stored document replaces them.
func Builtin(name string) (*Document, bool) {
	d, ok := builtins()[name]
	return d, ok
}

// BuiltinNames lists them in order.
func BuiltinNames() []string { return sortedKeys(builtins()) }
