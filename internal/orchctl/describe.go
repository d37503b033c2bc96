package orchctl

import "github.com/spf13/cobra"

func (t *tool) describeCmd() *cobra.Command { return &cobra.Command{Use: "describe"} }
