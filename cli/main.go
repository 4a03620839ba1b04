package cli

import (
	"context"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/internal/build"
)

// Names under which a program behaves as this package's.
const (
	nameSallyport = "sallyport"
	namePlugin    = "session-manager-plugin"
)

// Named reports whether argv0, the name a program was started under, is one that
// Main answers to: sallyport or session-manager-plugin, with or without ".exe".
func Named(argv0 string) bool {
	name := baseName(argv0)
	return name == nameSallyport || name == namePlugin
}

func baseName(argv0 string) string {
	name := filepath.Base(strings.ReplaceAll(argv0, `\`, "/"))
	return strings.TrimSuffix(strings.ToLower(name), ".exe")
}

// Main runs the command line args, whose first element is the name the program was
// started under, on the process's standard streams. It returns the exit status.
func Main(args []string) int {
	cobra.EnableCommandSorting = false // in help, what is wanted most comes first
	p := &program{
		stdin:   os.Stdin,
		stdout:  os.Stdout,
		stderr:  os.Stderr,
		getenv:  os.Getenv,
		version: build.Version(),
	}
	if len(args) > 0 {
		p.name = args[0]
	}
	if len(args) > 0 && baseName(args[0]) == namePlugin {
		return p.plugin(context.Background(), args)
	}
	return p.run(context.Background(), args[min(1, len(args)):])
}
