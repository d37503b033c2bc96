// Package drills is the chaos suite: a folder of scripts that anybody can run
// with orchctl drill and read. Here each is a test.
package drills

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/drill"
)

// drillMax is the longest that a drill may take, its lab included: two minutes of
// faults, and as much until everything is at rest.
const drillMax = 5 * time.Minute

func TestDrills(t *testing.T) {
	all, err := drill.Load([]string{"."})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		t.Run(d.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), drillMax)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(rig.Root(), "bin", "orchctl"), "drill", "-f", d.File)
			cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // so that it takes its lab down
			cmd.WaitDelay = time.Minute
			out, err := cmd.CombinedOutput()
			t.Logf("%s", out)
			if err != nil {
				t.Fatal(err)
			}
		})
	}
}
