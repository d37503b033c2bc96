package ctrd

import (
	"sync"
	"testing"

	"github.com/orchctl/orch/api"
)

// BenchmarkStart starts containers, eight at a time; more at once gains nothing
// on two cores. Each is its own replica, as that is the common and dearer case.
func BenchmarkStart(b *testing.B) {
	var mu sync.Mutex
	var ids []string
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			mu.Lock()
			s := spec("wait=0")
			s.Container.Resources.Limits = api.ResourceList{api.Memory: api.Whole(64 << 20)}
			ids = append(ids, s.ID())
			mu.Unlock()
			if o, err := env.r.Start(b.Context(), s); err != nil || !o.Running {
				b.Error(o, err)
			}
		}
	})
	b.StopTimer()
	for _, id := range ids {
		if err := env.r.Remove(b.Context(), id); err != nil {
			b.Error(err)
		}
	}
}
