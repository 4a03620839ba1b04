package cli

import (
	"bufio"
	"context"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

// completePatience bounds how long a person waits for a completion.
const completePatience = 3 * time.Second

// completeNodes offers names, or ids where nodes have none.
func (p *program) completeNodes(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	nodes, err := p.nodes(ctx, nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, n := range nodes {
		if closed(n) {
			continue
		}
		name := client.CleanLine(n.Name)
		if name == "" || n.NameReported {
			name = n.NodeID
		}
		names = append(names, cobra.CompletionWithDesc(name, n.NodeID+" "+n.State))
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// completeTargets offers nodes, and tags of nodes once one is named by them.
func (p *program) completeTargets(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && !strings.Contains(args[0], "=") {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	nodes, err := p.nodes(ctx, args)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	terms := tagTerms(nodes, args)
	if len(args) > 0 || strings.Contains(typed, "=") {
		return terms, cobra.ShellCompDirectiveNoFileComp
	}
	names, directive := p.completeNodes(cmd, args, typed)
	return append(names, terms...), directive
}

// completeOneNode offers nodes for the first argument.
func (p *program) completeOneNode(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return p.completeNodes(cmd, args, typed)
}

// completeCopy offers files, and nodes as scp has them.
func (p *program) completeCopy(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	names, _ := p.completeNodes(cmd, args, typed)
	for i, n := range names {
		name, about, _ := strings.Cut(n, "\t")
		names[i] = cobra.CompletionWithDesc(name+":", about)
	}
	return names, cobra.ShellCompDirectiveNoSpace
}

// tagTerms lists the tags of nodes as KEY=VALUE, several values apart, without those
// that are given already and names.
func tagTerms(nodes []client.Node, given []string) []string {
	seen := map[string]bool{}
	for _, n := range nodes {
		for k, values := range n.Tags {
			for v := range strings.SplitSeq(values, ",") {
				seen[client.CleanLine(k+"="+strings.TrimSpace(v))] = k != "Name" && v != ""
			}
		}
	}
	maps.DeleteFunc(seen, func(term string, offer bool) bool { return !offer || slices.Contains(given, term) })
	return slices.Sorted(maps.Keys(seen))
}

// completeWhy offers what comes next of [PRINCIPAL] ACTION [NODE]: actions first, and
// nodes behind an action.
func (p *program) completeWhy(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return slices.Concat(commonActions[:], p.ownNames(cmd)), cobra.ShellCompDirectiveNoFileComp
	case 1, 2:
		if _, err := fullAction(args[len(args)-1]); err == nil {
			return p.completeNodes(cmd, args, typed)
		}
		if len(args) == 1 {
			return commonActions[:], cobra.ShellCompDirectiveNoFileComp
		}
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// commonActions are those that people ask about.
var commonActions = [...]string{"connect", "StartSession", "ResumeSession", "TerminateSession", "DescribeSessions",
	"CreateActivation", "sallyport:ListSessions", "sallyport:GetRecording", "sallyport:QueryAudit", "sts:AssumeRole"}

// ownNames are the names by which the caller can be asked about.
func (p *program) ownNames(cmd *cobra.Command) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	me, err := p.whoami(ctx)
	if err != nil {
		return nil
	}
	return []string{client.CleanLine(shortARN(me.Principal))}
}

// profileLine is the head of a profile in AWS's configuration and credentials files.
var profileLine = regexp.MustCompile(`^\s*\[\s*(?:profile\s+)?["']?([^\]"']+?)["']?\s*\]`)

// maxProfiles bounds what is read of a configuration file, in bytes.
const maxProfiles = 1 << 20

// completeProfiles offers the profiles of the AWS configuration files.
func completeProfiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	home, _ := os.UserHomeDir()
	seen := map[string]bool{}
	for variable, name := range map[string]string{"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "credentials"} {
		file := os.Getenv(variable)
		if file == "" {
			file = filepath.Join(home, ".aws", name)
		}
		f, err := os.Open(file)
		if err != nil {
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(f, maxProfiles))
		for lines.Scan() {
			m := profileLine.FindStringSubmatch(lines.Text())
			if m != nil && !strings.HasPrefix(m[1], "sso-session ") && !strings.HasPrefix(m[1], "services ") {
				seen[client.CleanLine(m[1])] = true
			}
		}
		f.Close()
	}
	return slices.Sorted(maps.Keys(seen)), cobra.ShellCompDirectiveNoFileComp
}

// completeSessions offers the ids of active sessions.
func (p *program) completeSessions(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.sessionNames(cmd, sessionFlags{active: true, limit: 100}), cobra.ShellCompDirectiveNoFileComp
}

// completeRecordings offers the ids of sessions, and files.
func (p *program) completeRecordings(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return p.sessionNames(cmd, sessionFlags{limit: 100}), cobra.ShellCompDirectiveDefault
}

func (p *program) sessionNames(cmd *cobra.Command, flags sessionFlags) []string {
	ctx, cancel := context.WithTimeout(cmd.Context(), completePatience)
	defer cancel()
	sessions, err := p.sessions(ctx, flags)
	if err != nil {
		return nil
	}
	var ids []string
	for _, s := range sessions {
		ids = append(ids, cobra.CompletionWithDesc(s.SessionID, s.NodeName+" "+clock(s.Started.Time)))
	}
	return ids
}
