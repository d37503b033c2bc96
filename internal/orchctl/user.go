package orchctl

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/internal/pki"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func (t *tool) userCmd() *cobra.Command {
	return group("user", "Make, list and remove the people who may use the cluster", `  orchctl user create alice --role viewer
  orchctl user list
  orchctl user remove alice`,
		t.userCreate(), t.userList(), t.userRemove())
}

var roles = []string{string(pki.Viewer), string(pki.Operator), string(pki.Admin)}

// userFlags are what `user create` was told.
type userFlags struct {
	role, out, contextName string
	life                   time.Duration
	replace                bool
}

func (t *tool) userCreate() *cobra.Command {
	f := userFlags{life: pki.UserValidity}
	cmd := &cobra.Command{
		Use:   "create NAME --role ROLE",
		Short: "Make a user, and the context file to come in with",
		Long: `Make a user, and the context file to come in with. The key is made here and goes to no
controller. A viewer may look at everything but the values of Secrets, an operator may
also change what runs, an admin may also admit nodes and users.

The file is all that the user needs: NAME.yaml in this folder, or --out. Send it over a
safe way, for it holds the key, and remove it here.`,
		Example: `  orchctl user create alice --role viewer
  orchctl --config alice.yaml get nodes                 # what alice does then
  orchctl user create ci --role operator --expires 30d --out /etc/ci/orch.yaml
  orchctl user create alice --role viewer --replace     # a new file; the old one is worth nothing`,
		Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return t.createUser(cmd.Context(), args[0], f) },
	}
	fl := cmd.Flags()
	fl.StringVar(&f.role, "role", "", "what the user may do: viewer, operator or admin")
	fl.Var(lifetime{&f.life}, "expires", "how long the certificate lasts, as 365d or 12h")
	fl.StringVar(&f.out, "out", "", "`file` to write the context to (default NAME.yaml), - for the output")
	fl.StringVar(&f.contextName, "context-name", "", "`name` of the context in that file (default: the name of the one used now)")
	fl.BoolVar(&f.replace, "replace", false, "make a new certificate for a user who exists; the old one is worth nothing then")
	t.complete(cmd, "role", cobra.FixedCompletions(roles, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) createUser(ctx context.Context, name string, f userFlags) error {
	doing := "create user " + name
	id := pki.Identity{Kind: pki.User, Name: name, Role: pki.Role(f.role)}
	switch {
	case f.role == "":
		return usagef("say what %s may do: --role viewer, operator or admin", name)
	case !id.Role.Allows(pki.Viewer):
		return usagef("--role %s: want viewer, operator or admin", f.role)
	case f.life <= 0:
		return usagef("--expires %s: want a time from now, such as 365d", f.life)
	}
	if err := id.Validate(); err != nil {
		return usagef("%s", strings.TrimPrefix(err.Error(), pki.ErrIdentity.Error()+": "))
	}
	out := f.out
	if out == "" {
		out = name + ".yaml"
	}
	if _, err := os.Stat(out); err == nil && !f.replace {
		return fmt.Errorf("%s: there is a file %s already: choose another with --out, or say --replace to make a new certificate for %s, after which the old one is worth nothing", doing, out, name)
	} else if err == nil && !isFileOf(out, name) {
		return fmt.Errorf("%s: %s is there already, and is not just the context file of %s: choose another with --out, or remove it", doing, out, name)
	}
	cluster, err := t.useCluster()
	if err != nil {
		return err
	}
	key, err := pki.NewKey(rand.Reader)
	if err != nil {
		return err
	}
	csr, err := pki.CSR(key, id)
	if err != nil {
		return err
	}
	keyPEM, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	client, err := t.connect(ctx, doing, true)
	if err != nil {
		return err
	}
	expires := timestamppb.New(t.Now().Add(f.life))
	answer, err := change(ctx, t, doing, admin, func(ctx context.Context) (*orchv1.CreateUserResponse, error) {
		return client.CreateUser(ctx, &orchv1.CreateUserRequest{Name: name, Role: f.role, Expires: expires, Csr: csr, Replace: f.replace})
	})
	if err != nil {
		return err
	}
	contextName := f.contextName
	if contextName == "" {
		contextName = cluster.Name
	}
	file := &clientconfig.Config{CurrentContext: contextName, Contexts: []clientconfig.Context{{Name: contextName, Controllers: cluster.Addresses,
		CA: string(answer.GetCa()), Certificate: string(answer.GetCertificate()), Key: string(keyPEM)}}}
	if out == "-" {
		text, err := manifests.Marshal(file)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(text)
		return err
	}
	if err := file.Save(out); err != nil {
		return fmt.Errorf("%w; the user is made: say it again with --replace, and with --out where it can be written", err)
	}
	if err := t.printf("user %s is made, with the role %s, until %s\n", name, f.role, expires.AsTime().UTC().Format(time.DateOnly)); err != nil {
		return err
	}
	return t.printf("%s holds the key: send it to the user over a safe way, and remove it here. It is used like this:\n  orchctl --config %s get nodes\nor put in the place of ~/.config/orch/config.yaml\n", out, out)
}

// isFileOf tells whether a file holds nothing but one context of that user, so that it may
// be replaced: it could be a manifest, or have the only keys to other clusters.
func isFileOf(path, user string) bool {
	c, err := clientconfig.Load(path)
	if err != nil || len(c.Contexts) != 1 {
		return false
	}
	cert, err := pki.ParseCert([]byte(c.Contexts[0].Certificate))
	if err != nil {
		return false
	}
	id, err := pki.IdentityOf(cert)
	return err == nil && id.Kind == pki.User && id.Name == user
}

func (t *tool) userList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List users", Example: "  orchctl user list", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := t.users(cmd.Context())
			if err != nil {
				return err
			}
			if len(list) == 0 {
				t.warnNone("users")
				return nil
			}
			var rows [][]string
			for _, u := range list {
				by := u.GetBy()
				if by == "" {
					by = "a controller's start"
				}
				rows = append(rows, []string{u.GetName(), u.GetRole(), age(t.Now(), u.GetCreated().AsTime()), t.until(u.GetExpires()), by})
			}
			return newTable("NAME", "ROLE", "AGE", "EXPIRES", "BY").print(t.Out, "", rows...)
		},
	}
}

func (t *tool) userRemove() *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME...", Aliases: []string{"rm", "delete"}, Short: "Remove users: their certificates are worth nothing from then on, and what they have open ends",
		Example: "  orchctl user remove alice", Args: usageArgs(cobra.MinimumNArgs(1)),
		ValidArgsFunction: func(cmd *cobra.Command, given []string, _ string) ([]string, cobra.ShellCompDirective) {
			ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
			defer cancel()
			list, err := t.users(ctx)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, u := range list {
				names = append(names, u.GetName())
			}
			return without(names, given), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, names []string) error {
			client, err := t.connect(cmd.Context(), "remove user", true)
			if err != nil {
				return err
			}
			for _, name := range names {
				if _, err := change(cmd.Context(), t, "remove user "+name, admin, func(ctx context.Context) (*orchv1.RemoveUserResponse, error) {
					return client.RemoveUser(ctx, &orchv1.RemoveUserRequest{Name: name})
				}); err != nil {
					return err
				}
				if err := t.printf("user %s removed\n", name); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

func (t *tool) users(ctx context.Context) ([]*orchv1.User, error) {
	client, err := t.connect(ctx, "list users", false)
	if err != nil {
		return nil, err
	}
	answer, err := read(ctx, t, "list users", admin, func(ctx context.Context) (*orchv1.ListUsersResponse, error) {
		return client.ListUsers(ctx, &orchv1.ListUsersRequest{})
	})
	return answer.GetUsers(), err
}

// expiryWarning is how long before its end a certificate is warned of.
const expiryWarning = 30 * 24 * time.Hour

// warnOfExpiry says that the context's certificate ends soon: within a month, and with a
// third of its life left.
func (t *tool) warnOfExpiry(c *Cluster) {
	if c.Certificate == nil || t.warned {
		return
	}
	t.warned = true
	cert, left := c.Certificate, c.Certificate.NotAfter.Sub(t.Now())
	if left <= 0 || left > expiryWarning || left > cert.NotAfter.Sub(cert.NotBefore)/3 {
		return // one that is over is refused, with words
	}
	id, err := pki.IdentityOf(cert)
	if err != nil {
		return
	}
	t.warnf("your certificate ends in %s: an admin makes a new one with `orchctl user create %s --role %s --replace`", age(cert.NotAfter, t.Now()), id.Name, id.Role)
}
