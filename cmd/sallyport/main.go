// Command sallyport is what people type: it lists nodes, opens sessions on them and
// plays back what happened. Started under the name session-manager-plugin it takes
// the place of AWS's plugin.
package main

import (
	"os"

	"sallyport.dev/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
