// Command orchctl is the operator's side of orch; see internal/orchctl.
package main

import (
	"os"

	"github.com/orchctl/orch/internal/orchctl"
)

func main() { os.Exit(orchctl.Main()) }
