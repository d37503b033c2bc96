// Package drills is the chaos suite: a folder of scripts that anybody can run
// with orchctl drill and read. Here each is a test.
package drills

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/drill"
)

// drillMax is the longest that a drill may take, its lab included: two minutes of
// faults, and as much until everything is at rest.
const drillMax = 5 * time.Minute

// atOnce drills run side by side: most of their time they wait. Those in alone take all
// cores, which the bounds of others do not forgive.
const atOnce = 2

var alone = []string{"cores-burning"}

func TestDrills(t *testing.T) {
	all, err := drill.Load([]string{"."})
	if err != nil {
		t.Fatal(err)
	}
	places := make(chan struct{}, atOnce)
	for _, d := range all {
		t.Run(d.Name, func(t *testing.T) {
			if !slices.Contains(alone, d.Name) {
				t.Parallel() // begins when those that are alone have ended
				places <- struct{}{}
				defer func() { <-places }()
			}
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
