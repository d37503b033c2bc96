package orchctl

import (
	"context"
	"runtime"

	"github.com/spf13/cobra"

	"github.com/orchctl/orch/internal/version"
	"github.com/orchctl/orch/manifests"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// versions is what `version -o json` prints.
type versions struct {
	Client     string             `json:"client"`
	Go         string             `json:"go"`
	Platform   string             `json:"platform"`
	Controller *controllerVersion `json:"controller,omitempty"`
}

type controllerVersion struct {
	Version     string `json:"version"`
	Leader      string `json:"leader,omitempty"`
	Term        uint64 `json:"term"`
	Incarnation string `json:"incarnation,omitempty"`
	Nodes       int32  `json:"nodes"`
}

func (t *tool) versionCmd() *cobra.Command {
	var clientOnly bool
	var output string
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Show the versions of orchctl and of the controller",
		Example: "  orchctl version\n  orchctl version --client",
		Args:    usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output != "" && output != "json" && output != "yaml" {
				return usagef("-o %s: want json or yaml", output)
			}
			v := versions{Client: version.String(), Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
			var failed error
			if !clientOnly {
				v.Controller, failed = t.controllerVersion(cmd.Context())
			}
			if err := t.showVersions(v, output); err != nil {
				return err
			}
			return failed
		},
	}
	cmd.Flags().BoolVar(&clientOnly, "client", false, "of orchctl only: ask no controller")
	cmd.Flags().StringVarP(&output, "output", "o", "", "json or yaml; lines without it")
	t.complete(cmd, "output", cobra.FixedCompletions([]string{"json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (t *tool) controllerVersion(ctx context.Context) (*controllerVersion, error) {
	client, err := t.connect(ctx, "ask the controller's version", false)
	if err != nil {
		return nil, err
	}
	v, err := read(ctx, t, "ask the controller's version", viewer, func(ctx context.Context) (*orchv1.VersionResponse, error) {
		return client.Version(ctx, &orchv1.VersionRequest{})
	})
	if err != nil {
		return nil, err
	}
	return &controllerVersion{v.GetVersion(), v.GetLeader(), v.GetTerm(), v.GetIncarnation(), v.GetNodes()}, nil
}

func (t *tool) showVersions(v versions, output string) error {
	switch output {
	case "json":
		return t.writeJSON(v)
	case "yaml":
		text, err := manifests.Marshal(v)
		if err != nil {
			return err
		}
		_, err = t.Out.Write(text)
		return err
	}
	if err := t.printf("Client:      %s (%s, %s)\n", v.Client, v.Go, v.Platform); err != nil || v.Controller == nil {
		return err
	}
	c := v.Controller
	return t.printf("Controller:  %s\nLeader:      %s, term %d\nCluster:     %s, %s\n", cleanText(c.Version), orDash(cleanText(c.Leader)), c.Term,
		orDash(cleanText(c.Incarnation)), count(int(c.Nodes), "node"))
}
