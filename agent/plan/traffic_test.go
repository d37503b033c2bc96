package plan

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// traffic is a kernel that is told whom to lead traffic to; what it has outlives
// the agent, what waits does not.
type traffic struct {
	waiting []Balance
	mark    uint64
	now     map[api.ReplicaKey]wire.Endpoint
}

func (x *traffic) take(b Balance) { x.waiting = append(x.waiting, b) }

func (x *traffic) list() []wire.Endpoint {
	var out []wire.Endpoint
	for _, k := range slices.SortedFunc(maps.Keys(x.now), compareKeys) {
		out = append(out, x.now[k])
	}
	return out
}

// program puts the first n that wait in force.
func (x *traffic) program(n int) {
	for _, b := range x.waiting[:n] {
		if b.Complete || x.now == nil {
			x.now = map[api.ReplicaKey]wire.Endpoint{}
		}
		for _, e := range b.Put {
			x.now[e.Replica] = e
		}
		for _, k := range b.Drop {
			delete(x.now, k)
		}
		x.mark = b.Mark
	}
	x.waiting = x.waiting[n:]
}

// TestAcknowledgedIsInForce: whatever comes in whatever order, what is acknowledged
// in a session was said in that session and is in the kernel, as that session said
// it; acks rise; and once all is programmed the last version is acknowledged.
func TestAcknowledgedIsInForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.Custom(func(t *rapid.T) api.ReplicaKey {
			return api.ReplicaKey{Namespace: "default", Service: "web", Slot: rapid.IntRange(0, 3).Draw(t, "slot"), Epoch: rapid.Uint64Range(1, 2).Draw(t, "epoch")}
		})
		core := New(Config{})
		var kernel traffic
		now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		connected, whole := false, false
		var version, acked uint64                             // of this session
		told := map[api.ReplicaKey]wire.Endpoint{}            // by all sessions: what the agent is to know
		said := map[uint64]map[api.ReplicaKey]wire.Endpoint{} // by version: what this session wants in force then
		serial := 0
		step := func(ev Event) {
			for _, e := range core.Step(ev, now) {
				switch e := e.(type) {
				case Balance:
					kernel.take(e)
				case Ack:
					if !connected {
						t.Fatalf("an ack without a session: %+v", e)
					}
					if e.EndpointVersion < acked {
						t.Fatalf("acknowledged %d after %d", e.EndpointVersion, acked)
					}
					if acked = e.EndpointVersion; acked == 0 {
						continue
					}
					want, ok := said[acked]
					if !ok {
						t.Fatalf("version %d is acknowledged, which this session never said", acked)
					}
					if !maps.EqualFunc(kernel.now, want, func(a, b wire.Endpoint) bool { return a.IP == b.IP }) {
						t.Fatalf("version %d is acknowledged with %v in force, want %v", acked, kernel.now, want)
					}
				}
			}
		}
		step(Started{})
		t.Repeat(map[string]func(*rapid.T){
			"connect": func(t *rapid.T) {
				if connected {
					connected = false
					step(Disconnected{})
				}
				connected, whole, version, acked, said = true, false, uint64(rapid.IntRange(0, 3).Draw(t, "version")), 0, map[uint64]map[api.ReplicaKey]wire.Endpoint{}
				step(Connected{})
			},
			"disconnect": func(t *rapid.T) {
				if connected {
					connected = false
					step(Disconnected{})
				}
			},
			"say": func(t *rapid.T) {
				set := wire.EndpointSet{Complete: rapid.Float64Range(0, 1).Draw(t, "complete") < 0.3, Version: version + 1,
					Drop: rapid.SliceOfN(key, 0, 2).Draw(t, "drop")}
				for _, k := range rapid.SliceOfN(key, 0, 3).Draw(t, "put") {
					if !slices.Contains(set.Drop, k) {
						serial++
						set.Put = append(set.Put, wire.Endpoint{Replica: k, IP: fmt.Sprint(serial)})
					}
				}
				if set.Complete {
					set.Keep, set.Drop = rapid.SliceOfN(key, 0, 3).Draw(t, "keep"), nil
				}
				if connected && (whole || set.Complete) {
					whole = true
					version++
					next := map[api.ReplicaKey]wire.Endpoint{}
					if set.Complete {
						for _, k := range set.Keep {
							if e, ok := told[k]; ok {
								next[k] = e
							}
						}
					} else {
						next = maps.Clone(told)
					}
					for _, e := range set.Put {
						next[e.Replica] = e
					}
					for _, k := range set.Drop {
						delete(next, k)
					}
					told, said[version] = next, next
				}
				step(Endpoints{Set: set})
			},
			"program": func(t *rapid.T) {
				if len(kernel.waiting) == 0 {
					return
				}
				kernel.program(rapid.IntRange(1, len(kernel.waiting)).Draw(t, "n"))
				step(Programmed{Mark: kernel.mark})
			},
			"program again": func(*rapid.T) {
				if kernel.mark > 0 {
					step(Programmed{Mark: kernel.mark})
				}
			},
		})
		if n := len(kernel.waiting); n > 0 {
			kernel.program(n)
			step(Programmed{Mark: kernel.mark})
		}
		if connected && whole && acked != version {
			t.Fatalf("all is in force and version %d is acknowledged, want %d", acked, version)
		}
		if got := core.Endpoints(); len(got) != len(told) {
			t.Fatalf("it knows %v, want %v", got, told)
		}
	})
}
