package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport.dev/client"
)

func (p *program) newChatCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "chat",
		Short: "Link your account in a chat, so that you may ask and decide there",
		Example: `  sallyport chat link ABCD-EFGH-IJKL-MNOP
  sallyport chat list
  sallyport chat unlink U024BE7LH`,
	}
	cmd.AddCommand(p.newChatLinkCommand(), p.newChatListCommand(), p.newChatUnlinkCommand())
	return cmd
}

func (p *program) newChatLinkCommand() *cobra.Command {
	var account string
	cmd := &cobra.Command{
		Use:   "link CODE",
		Short: "Say that an account in a chat is yours",
		Long: `Say that an account in a chat is yours. The chat gives you a code when you first click
or ask there; it is good for ten minutes and for one use. You are shown whose account it is
before anything is linked: whoever it is will decide as you. Never run a code that somebody
else gave you.

Where nobody can be asked, --account says whom you expect, by the id of the chat.`,
		Example: `  sallyport chat link ABCD-EFGH-IJKL-MNOP
  sallyport chat link ABCD-EFGH-IJKL-MNOP --account U024BE7LH`,
		Args: between(1, 1, "want the CODE that the chat gave you"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.linkChat(cmd.Context(), args[0], account)
		},
	}
	cmd.Flags().StringVar(&account, "account", "", "`id` of the account that the code must be for; then nothing is asked")
	return cmd
}

func (p *program) linkChat(ctx context.Context, code, account string) error {
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	found, err := api.GetChatCode(ctx, client.ChatCodeInput{Code: code})
	if err != nil {
		return err
	}
	status, err := api.GetStatus(ctx)
	if err != nil {
		return err
	}
	if account == "" && !p.interactive() {
		return usagef("the code is for %s; standard input is no terminal: where that is you, give --account %s", client.CleanLine(chatName(*found)), client.CleanLine(found.User))
	}
	if account == "" {
		question := fmt.Sprintf("Link %s to you, %s? Whoever uses that account asks and decides as you.", chatName(*found), status.Principal)
		if err := p.confirm(false, question, "nothing was linked"); err != nil {
			return err
		}
		account = found.User
	}
	linked, err := api.LinkChat(ctx, client.ChatCodeInput{Code: code, User: account})
	if err != nil {
		return err
	}
	if p.flags.json {
		return p.writeJSON(linked)
	}
	fmt.Fprintf(p.stderr, "sallyport: %s is linked to %s\n", client.CleanLine(chatName(*linked)), client.CleanLine(linked.UserName))
	return nil
}

// chatName names an account so that people can tell it from others.
func chatName(a client.ChatAccount) string {
	s := a.Service + " user " + a.User
	if a.Name != "" {
		s += fmt.Sprintf(" (%q)", a.Name)
	}
	s += " of workspace " + a.Team
	if a.TeamName != "" {
		s += fmt.Sprintf(" (%q)", a.TeamName)
	}
	return s
}

func (p *program) newChatListCommand() *cobra.Command {
	var in client.ListChatLinksInput
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List the accounts in chats that are linked to you",
		Example: "  sallyport chat list --all",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, _ []string) error {
			links, err := p.chatLinks(cmd.Context(), in)
			if err != nil {
				return err
			}
			return p.printChatLinks(links)
		},
	}
	cmd.Flags().StringVar(&in.UserName, "user", "", "`name` of another user")
	cmd.Flags().BoolVar(&in.Everyone, "all", false, "those of everybody")
	cmd.MarkFlagsMutuallyExclusive("user", "all")
	return cmd
}

func (p *program) chatLinks(ctx context.Context, in client.ListChatLinksInput) ([]client.ChatAccount, error) {
	api, err := p.api(ctx)
	if err != nil {
		return nil, err
	}
	links := []client.ChatAccount{}
	for {
		page, err := api.ListChatLinks(ctx, in)
		if err != nil {
			return nil, err
		}
		links = append(links, page.Links...)
		if in.NextToken = page.NextToken; in.NextToken == "" {
			return links, nil
		}
	}
}

func (p *program) printChatLinks(links []client.ChatAccount) error {
	if p.flags.json {
		return p.writeJSON(links)
	}
	table := [][]string{{"USER", "SERVICE", "WORKSPACE", "ACCOUNT", "NAME", "LINKED"}}
	for _, l := range links {
		table = append(table, []string{orDash(l.UserName), l.Service, l.Team, l.User, orDash(l.Name), clock(l.Linked.Time)})
	}
	return p.writeTable(table)
}

func (p *program) newChatUnlinkCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "unlink [ACCOUNT]",
		Short: "Take an account in a chat from whom it is linked to",
		Long: `Take an account in a chat from whom it is linked to: yours, by its id or the only one, or
by policy (sallyport:UnlinkChat) that of somebody else.`,
		Example: `  sallyport chat unlink
  sallyport chat unlink U024BE7LH --yes`,
		Args: between(0, 1, "want at most one ACCOUNT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return p.unlinkChat(cmd.Context(), strings.Join(args, ""), yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (p *program) unlinkChat(ctx context.Context, account string, yes bool) error {
	links, err := p.chatLinks(ctx, client.ListChatLinksInput{})
	if err != nil {
		return err
	}
	link, found := chatLink(links, account)
	if !found && account != "" {
		// By policy, somebody else's.
		if links, err = p.chatLinks(ctx, client.ListChatLinksInput{Everyone: true}); err != nil {
			return err
		}
		link, found = chatLink(links, account)
	}
	if !found {
		return usagef("no such account is linked; sallyport chat list shows yours")
	}
	if err := p.confirm(yes, "Unlink "+chatName(link)+" from "+link.UserName+"?", "nothing was unlinked"); err != nil {
		return err
	}
	api, err := p.api(ctx)
	if err != nil {
		return err
	}
	return api.UnlinkChat(ctx, client.UnlinkChatInput{Service: link.Service, Team: link.Team, User: link.User})
}

// chatLink finds an account by its id; the only one where none is named.
func chatLink(links []client.ChatAccount, account string) (client.ChatAccount, bool) {
	for _, l := range links {
		if l.User == account || account == "" && len(links) == 1 {
			return l, true
		}
	}
	return client.ChatAccount{}, false
}
