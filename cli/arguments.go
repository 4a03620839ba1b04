package cli

import (
	"errors"
	"math"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// between accepts least to most arguments; want tells people what they are.
func between(least, most int, want string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("too few arguments: %s", want)
		case len(args) > most:
			return usagef("%q is one argument too many: %s", args[most], want)
		}
		return nil
	}
}

func atLeast(least int, want string) cobra.PositionalArgs { return between(least, math.MaxInt, want) }

func noArguments(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q: the command takes flags only", args[0])
	}
	return nil
}

// flagError words what is wrong with the value of a flag.
func flagError(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	f := invalid.GetFlag()
	switch f.Value.Type() {
	case "int", "int32":
		return usagef("--%s %q: want a whole number", f.Name, invalid.GetValue())
	case "float64":
		return usagef("--%s %q: want a number such as 2 or 0.5", f.Name, invalid.GetValue())
	case "duration":
		return usagef("--%s %q: want how long, such as 90s, 2m or 12h", f.Name, invalid.GetValue())
	case "bool":
		return usagef("--%s=%s: want true or false", f.Name, invalid.GetValue())
	}
	return err
}
