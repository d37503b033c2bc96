package agent

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
)

// TestProbesTakeTurns: a node's commands are not run all at once, the wait for a turn
// is no failure, and those that hang hold up no others for long.
func TestProbesTakeTurns(t *testing.T) {
	const all, takes = 200, 300 * time.Millisecond
	probe := func(id string, timeout time.Duration) plan.StartProbe {
		return plan.StartProbe{ContainerID: id, Kind: plan.Liveness, Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"check"}}},
			Until: 24 * time.Hour, Interval: 24 * time.Hour, Timeout: timeout}
	}
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		now, most := 0, 0
		d := hookDriver(t, func(id string, e ctrd.ExecSpec) (int, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(takes)
			mu.Lock()
			now--
			mu.Unlock()
			return 0, nil
		})
		d.turns = newTurns(2)
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		for i := range all {
			d.startProbe(ctx, probe(fmt.Sprint(i), time.Second))
		}
		for range all {
			if ev := (<-d.inbox).(plan.Probed); !ev.OK {
				t.Fatalf("%+v", ev)
			}
		}
		if most != cap(d.turns) || time.Since(began) != all/8*takes {
			t.Errorf("%d at once, %s for all", most, time.Since(began))
		}
		cancel()
		d.work.Wait()
	})
	synctest.Test(t, func(t *testing.T) {
		d := hookDriver(t, func(id string, e ctrd.ExecSpec) (int, error) {
			if id != "well" {
				time.Sleep(time.Minute)
			}
			return 0, nil
		})
		d.turns = newTurns(1)
		ctx, cancel := context.WithCancel(t.Context())
		for i := range cap(d.turns) {
			d.startProbe(ctx, probe(fmt.Sprint(i), time.Hour))
		}
		synctest.Wait()
		began := time.Now()
		d.startProbe(ctx, probe("well", time.Second))
		if ev := (<-d.inbox).(plan.Probed); ev.ContainerID != "well" || !ev.OK || time.Since(began) != turnMax {
			t.Errorf("%+v after %s", ev, time.Since(began))
		}
		waits := 0
		for range 2 * cap(d.turns) { // some get no turn before the end
			waits++
			d.startProbe(ctx, probe(fmt.Sprint("more", waits), time.Hour))
		}
		synctest.Wait()
		cancel()
		d.work.Wait()
		if len(d.turns) != 0 {
			t.Errorf("%d turns were not given back", len(d.turns))
		}
	})
}
