package cli

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/flow"
)

// newFlowCommand returns "sallyport flow", whose commands need no server.
func (p *program) newFlowCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "flow",
		Short: "Test and check flow files without a server",
	}
	cmd.AddCommand(p.newFlowTestCommand(), p.newFlowLintCommand(), p.newFlowShowCommand())
	return cmd
}

// maxFlowFile is what is read of a file at most; flow files are smaller.
const maxFlowFile = 1<<20 + 1

// flowFiles reads flow files: those that are named, and all of folders that are named,
// with the folders in them. Code beside a file that is named is read, too.
func flowFiles(paths []string) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range paths {
		found, err := below(name, flow.FileSuffix, flow.CodeSuffix)
		if err != nil {
			return nil, err
		}
		if info, err := os.Stat(name); err == nil && !info.IsDir() {
			if !strings.HasSuffix(name, flow.FileSuffix) {
				return nil, usagef("%s: want a folder, or a file named NAME%s", name, flow.FileSuffix)
			}
			code, err := filepath.Glob(filepath.Join(quoteGlob(filepath.Dir(name)), "*"+flow.CodeSuffix))
			if err != nil {
				return nil, err
			}
			found = append(found, code...)
		}
		if err := readFlowFiles(files, found); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// quoteGlob makes a folder's name mean itself in a pattern.
func quoteGlob(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(name)
}

// below are the files with one of the endings in a folder and those within, in order; a
// file is itself. Folders whose names start with a dot are left out.
func below(root string, endings ...string) ([]string, error) {
	var found []string
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && name != root && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		if !d.IsDir() && slices.ContainsFunc(endings, func(e string) bool { return strings.HasSuffix(name, e) }) {
			found = append(found, name)
		}
		return nil
	})
	return found, err
}

func readFlowFiles(files map[string][]byte, names []string) error {
	for _, name := range names {
		text, err := readBounded(name, maxFlowFile)
		if err != nil {
			return err
		}
		files[path.Clean(filepath.ToSlash(name))] = text
	}
	return nil
}

// readBounded reads a file, of a large one only so much.
func readBounded(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// parseFlows reads and parses flow files.
func parseFlows(paths []string) (*flow.Set, error) {
	files, err := flowFiles(paths)
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(slices.Collect(maps.Keys(files)), func(n string) bool { return strings.HasSuffix(n, flow.FileSuffix) }) {
		return nil, fmt.Errorf("there are no files named *%s in %s", flow.FileSuffix, strings.Join(paths, ", "))
	}
	return flow.Parse(files)
}
