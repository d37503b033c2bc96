package orchctl

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/api"
)

// TestWatchLive: the table is drawn in place, without clearing what stays, and a row that
// goes is marked before it does.
func TestWatchLive(t *testing.T) {
	f := newFake(replica("web", 0, 1, "n1", running(true)), replica("web", 1, 2, "n2", running(true)))
	in(t, f, func(t *testing.T, r *rig) {
		r.env.Screen = func() (int, int, bool) { return 120, 40, true }
		ctx, cancel := contextOf(t)
		var got result
		done := make(chan struct{})
		go func() {
			defer close(done)
			got = r.runCtx(ctx, "get", "replicas", "-w", "--live")
		}()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		f.put(replica("web", 1, 2, "n2", func(r *api.Replica) {
			r.Status.Phase, r.Status.Reason, r.Status.LastKnown = api.PhaseRunning, "NodeSuspect", true
		}))
		time.Sleep(2 * time.Second)
		synctest.Wait()
		f.drop(replica("web", 1, 2, "n2"))
		time.Sleep(time.Second)
		synctest.Wait()
		time.Sleep(2 * goneShown)
		synctest.Wait()
		cancel()
		<-done
		frames := strings.Split(got.out, "\x1b[J")
		last := frames[len(frames)-2]
		if got.code != 0 || !strings.Contains(got.out, "\x1b[3A") || !strings.Contains(got.out, "(last known)") || !strings.Contains(got.out, "(gone)") ||
			strings.Contains(last, "web-1") || !strings.Contains(last, "web-0") || strings.Count(last, "NAME") != 1 {
			t.Errorf("%q, exit %d, %s", last, got.code, got.err)
		}
	})
}
