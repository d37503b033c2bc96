package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/wire"
)

// kernel counts what is taken from it.
type kernel struct {
	took   []string
	fail   error
	opened bool
}

func (k *kernel) open() (Leaver, error) {
	k.opened = true
	return k, nil
}

func (k *kernel) Leave(context.Context) error {
	k.took = append(k.took, "network")
	return k.fail
}

func (k *kernel) LeaveMemory() error {
	k.took = append(k.took, "memory")
	return nil
}

func (k *kernel) Remove(context.Context) error {
	k.took = append(k.took, "rules")
	return nil
}

func TestPurgeLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t)
		r.start()
		l := r.next(10)
		l.assign(t, wire.AssignmentSet{Complete: true, Put: []wire.Assignment{web(web0)}})
		l.hear(ready)
		time.Sleep(time.Second)
		r.runtime.Took()

		var k kernel
		var said []string
		left := Leftovers{Data: r.dir, Runtime: r.runtime, Network: k.open, Rules: &k, Memory: &k, Say: func(format string, args ...any) { said = append(said, fmt.Sprintf(format, args...)) }}
		if err := left.Purge(t.Context()); err == nil || !strings.Contains(err.Error(), "another agent uses it") {
			t.Errorf("beside an agent: %v", err)
		}
		r.wantTook()
		if k.opened {
			t.Error("the network was opened beside an agent")
		}
		r.stop()

		// A fault leaves the rest for the next time.
		k.fail = errors.New("the device is busy")
		if err := left.Purge(t.Context()); !errors.Is(err, k.fail) {
			t.Errorf("purge: %v", err)
		}
		r.wantTook("stop default.web-0.1.main", "remove default.web-0.1.main")
		if entries, err := os.ReadDir(r.dir); err != nil || len(entries) == 0 {
			t.Errorf("the folder is emptied though something is left: %v", err)
		}
		k.fail = nil
		if err := left.Purge(t.Context()); err != nil {
			t.Error(err)
		}
		if want := []string{"memory", "rules", "network", "memory", "rules", "network"}; !slices.Equal(k.took, want) {
			t.Errorf("took %v, want %v", k.took, want)
		}
		if entries, err := os.ReadDir(r.dir); err != nil || len(entries) != 0 {
			t.Errorf("the folder holds %v, %v", entries, err)
		}
		if want := []string{"container default.web-0.1.main is gone", "rules, routes and devices are gone", r.dir + " is empty"}; !slices.Equal(said, want) {
			t.Errorf("said %q, want %q", said, want)
		}
	})
}
