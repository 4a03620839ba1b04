package cli

import (
	"context"
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
		if n.MayConnect != nil && !*n.MayConnect {
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
