package orchctl

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/clientconfig"
	"github.com/orchctl/orch/manifests"
)

func (t *tool) configCmd() *cobra.Command {
	contexts := &cobra.Command{
		Use: "get-contexts", Aliases: []string{"contexts"}, Short: "List the clusters that the context file knows", Example: "  orchctl config get-contexts", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return t.getContexts() },
	}
	use := &cobra.Command{
		Use: "use-context NAME", Aliases: []string{"use"}, Short: "Choose the cluster that is meant where none is named", Example: "  orchctl config use-context staging", Args: usageArgs(cobra.ExactArgs(1)),
		ValidArgsFunction: beginning(t.completeContexts),
		RunE:              func(_ *cobra.Command, args []string) error { return t.useContext(args[0]) },
	}
	view := &cobra.Command{
		Use: "view", Short: "Show the context file without its keys", Example: "  orchctl config view", Args: usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error { return t.viewConfig() },
	}
	return group("config", "Show and choose the cluster to talk to", `  orchctl config get-contexts
  orchctl config use-context staging
  orchctl config view`, contexts, use, view)
}

func (t *tool) getContexts() error {
	file, err := loadConfig(t.config)
	if err != nil {
		return err
	}
	if len(file.Contexts) == 0 {
		t.warnNone("contexts")
		return nil
	}
	current, _ := file.Context(t.context) // none is current: no mark
	var rows [][]string
	for _, c := range file.Contexts {
		mark := ""
		if c.Name == current.Name {
			mark = "*"
		}
		rows = append(rows, []string{mark, c.Name, strings.Join(c.Controllers, ","), orDefault(c.Namespace), t.certificate(c.Certificate)})
	}
	return newTable("CURRENT", "NAME", "CONTROLLERS", "NAMESPACE", "CERTIFICATE").print(t.Out, "", rows...)
}

func orDefault(ns string) string {
	if ns == "" {
		return "default"
	}
	return ns
}

// certificate tells who a certificate is for and how long it lasts.
func (t *tool) certificate(text string) string {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return "none"
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return "unreadable"
	}
	who := cert.Subject.CommonName
	if len(cert.URIs) > 0 && cert.URIs[0].RawQuery != "" {
		who = strings.TrimSpace(who + " " + cert.URIs[0].RawQuery)
	}
	if t.Now().After(cert.NotAfter) {
		return fmt.Sprintf("%s, expired %s ago", who, age(t.Now(), cert.NotAfter))
	}
	return fmt.Sprintf("%s, expires in %s", who, age(cert.NotAfter, t.Now()))
}

func (t *tool) useContext(name string) error {
	file, err := loadConfig(t.config)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(file.Contexts, func(c clientconfig.Context) bool { return c.Name == name }) {
		_, err := file.Context(name)
		return err
	}
	file.CurrentContext = name
	if err := file.Save(t.config); err != nil {
		return err
	}
	return t.printf("context %s is the current one now\n", name)
}

func (t *tool) viewConfig() error {
	file, err := loadConfig(t.config)
	if err != nil {
		return err
	}
	for i := range file.Contexts {
		c := &file.Contexts[i]
		c.Certificate = "(" + t.certificate(c.Certificate) + ")"
		c.CA = "(" + t.certificate(c.CA) + ")"
		if c.Key != "" {
			c.Key = "(not shown)"
		}
	}
	text, err := manifests.Marshal(file)
	if err != nil {
		return err
	}
	_, err = t.Out.Write(text)
	return err
}

// warnNone says on Err that there are none.
func (t *tool) warnNone(what string) { fmt.Fprintf(t.Err, "No %s.\n", what) }
