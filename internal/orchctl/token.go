package orchctl

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// tokenLife is the default of --expires: a join takes minutes, a day covers
// the installing of a rack.
const tokenLife = 24 * time.Hour

// lifetime is a flag that takes days, as they are printed, beside Go's durations.
type lifetime struct{ *time.Duration }

// Set implements pflag.Value.
func (l lifetime) Set(s string) error {
	days, isDays := strings.CutSuffix(s, "d")
	if n, err := strconv.ParseUint(days, 10, 16); isDays && err == nil {
		*l.Duration = time.Duration(n) * 24 * time.Hour
		return nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New("want a number with a unit, such as 90m, 12h or 7d")
	}
	*l.Duration = d
	return nil
}

// String implements pflag.Value: 1d, 12h.
func (l lifetime) String() string {
	const day = 24 * time.Hour
	if d := *l.Duration; d > 0 && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return api.Duration(*l.Duration).String()
}

// Type implements pflag.Value.
func (l lifetime) Type() string { return "duration" }

func (t *tool) tokenCmd() *cobra.Command {
	return group("token", "Make, list and revoke the tokens that servers join with", `  orchctl token create --role node --expires 1h
  orchctl token list
  orchctl token revoke i6g3q25j`,
		t.tokenCreate(), t.tokenList(), t.tokenRevoke())
}

func (t *tool) tokenCreate() *cobra.Command {
	var role string
	life := tokenLife
	var uses int32
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Make a token; whoever has it can join until it expires",
		Example: `  orchctl token create                          # for nodes, a day long
  orchctl token create --uses 3 --expires 1h    # for three of them`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if role != "node" && role != "controller" {
				return usagef("--role %s: want node or controller", role)
			}
			if uses < 0 {
				return usagef("--uses %d: want how many may join with it, or 0 for any number", uses)
			}
			if life <= 0 {
				return usagef("--expires %s: want a time from now, such as 24h or 7d", life)
			}
			client, err := t.connect(cmd.Context(), "create token", false)
			if err != nil {
				return err
			}
			// Not repeated like other changes: each try would make a token.
			answer, err := ask(cmd.Context(), t, "create token", admin, 0, func(ctx context.Context) (*orchv1.CreateTokenResponse, error) {
				return client.CreateToken(ctx, &orchv1.CreateTokenRequest{Role: role, Expires: timestamppb.New(t.Now().Add(life)), MaxUses: uses})
			})
			if err != nil {
				return err
			}
			return t.printf("%s\n", cleanText(answer.GetToken()))
		},
	}
	cmd.Flags().StringVar(&role, "role", "node", "what joins with it: node or controller")
	cmd.Flags().Var(lifetime{&life}, "expires", "how long it lasts, as 12h or 7d")
	cmd.Flags().Int32Var(&uses, "uses", 0, "how many may join with it; 0: any number")
	t.complete(cmd, "role", cobra.FixedCompletions([]string{"node", "controller"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) tokenList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List tokens, without their secrets", Example: "  orchctl token list", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := t.tokens(cmd.Context())
			if err != nil {
				return err
			}
			if len(list) == 0 {
				t.warnNone("tokens")
				return nil
			}
			var rows [][]string
			for _, k := range list {
				rows = append(rows, []string{k.GetId(), k.GetRole(), age(t.Now(), k.GetCreated().AsTime()), t.until(k.GetExpires()), usesOf(k), t.stateOf(k)})
			}
			return newTable("ID", "ROLE", "AGE", "EXPIRES", "USES", "STATE").print(t.Out, "", rows...)
		},
	}
}

func (t *tool) tokenRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke ID...", Short: "Make tokens useless; who has joined stays", Example: "  orchctl token revoke i6g3q25j", Args: usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
			defer cancel()
			list, err := t.tokens(ctx)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var ids []string
			for _, k := range list {
				ids = append(ids, k.GetId())
			}
			return without(ids, given), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, ids []string) error {
			client, err := t.connect(cmd.Context(), "revoke token", true)
			if err != nil {
				return err
			}
			for _, id := range ids {
				if _, err := change(cmd.Context(), t, "revoke token "+id, admin, func(ctx context.Context) (*orchv1.RevokeTokenResponse, error) {
					return client.RevokeToken(ctx, &orchv1.RevokeTokenRequest{Id: id})
				}); err != nil {
					return err
				}
				if err := t.printf("token %s revoked\n", id); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// usesOf tells how often a token was used, of how often it may be.
func usesOf(k *orchv1.Token) string {
	if k.GetMaxUses() == 0 {
		return strconv.FormatInt(k.GetUses(), 10)
	}
	return fmt.Sprintf("%d of %d", k.GetUses(), k.GetMaxUses())
}

// stateOf tells whether anybody can join with a token.
func (t *tool) stateOf(k *orchv1.Token) string {
	switch {
	case k.GetExpires() != nil && !t.Now().Before(k.GetExpires().AsTime()):
		return "expired"
	case k.GetMaxUses() > 0 && k.GetUses() >= k.GetMaxUses():
		return "used up"
	}
	return "good"
}

func (t *tool) tokens(ctx context.Context) ([]*orchv1.Token, error) {
	client, err := t.connect(ctx, "list tokens", false)
	if err != nil {
		return nil, err
	}
	answer, err := read(ctx, t, "list tokens", admin, func(ctx context.Context) (*orchv1.ListTokensResponse, error) {
		return client.ListTokens(ctx, &orchv1.ListTokensRequest{})
	})
	return answer.GetTokens(), err
}

// until gives the time left: "in 23h", "expired".
func (t *tool) until(at *timestamppb.Timestamp) string {
	if at == nil {
		return "never"
	}
	left := at.AsTime().Sub(t.Now())
	if left <= 0 {
		return "expired"
	}
	return "in " + age(at.AsTime(), t.Now())
}
