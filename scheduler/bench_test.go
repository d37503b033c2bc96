package scheduler_test

import (
	"fmt"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/scheduler"
)

// manyNodes makes a fleet of nodes with 32 cores, 128 Gi and one of ten zones.
func manyNodes(n int) *scheduler.Fleet {
	f := scheduler.NewFleet()
	for i := range n {
		f.SetNode(node(fmt.Sprintf("node-%05d", i), has("cpu", "32"), has("memory", "128Gi"), labelled("zone", fmt.Sprint(i%10))))
	}
	scheduler.Place(f, nil) // puts the ring in order
	return f
}

// manyGroups makes services of distinct shapes.
func manyGroups(services, replicas int, opts ...shapeOption) []scheduler.Group {
	groups := make([]scheduler.Group, services)
	for i := range groups {
		o := append([]shapeOption{requests("cpu", fmt.Sprintf("%dm", 100+i%400)), requests("memory", fmt.Sprintf("%dMi", 64+i%700))}, opts...)
		groups[i] = group(fmt.Sprintf("service-%05d", i), replicas, shape(o...))
	}
	return groups
}

func benchmarkPlace(b *testing.B, f *scheduler.Fleet, groups []scheduler.Group) {
	b.ReportAllocs()
	placements := 0
	for b.Loop() {
		placed, refused := scheduler.Place(f, groups)
		if len(refused) > 0 {
			b.Fatalf("%s: %s", refused[0].Key, refused[0].Reason)
		}
		b.StopTimer()
		placements += len(placed)
		for _, p := range placed {
			f.Unbind(p.Key)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(placements)/b.Elapsed().Seconds(), "placements/s")
}

// 50,000 replicas on 5,000 nodes, cut into services in different ways.
func BenchmarkPlace500x100(b *testing.B) { benchmarkPlace(b, manyNodes(5000), manyGroups(500, 100)) }
func BenchmarkPlace10000x5(b *testing.B) { benchmarkPlace(b, manyNodes(5000), manyGroups(10000, 5)) }
func BenchmarkPlace50000x1(b *testing.B) { benchmarkPlace(b, manyNodes(5000), manyGroups(50000, 1)) }
func BenchmarkPlace1x50000(b *testing.B) { benchmarkPlace(b, manyNodes(5000), manyGroups(1, 50000)) }
func BenchmarkPlaceSelector(b *testing.B) {
	benchmarkPlace(b, manyNodes(5000), manyGroups(1000, 5, selects("zone", "7")))
}

// Every replica of a service on the same node, which fills up: as many levels as replicas.
func BenchmarkPlacePinned(b *testing.B) {
	f := manyNodes(5000)
	scheduler.Place(f, manyGroups(500, 100))
	f.SetNode(node("pinned", has("cpu", "1000"), has("memory", "1Ti"), labelled("pin", "here")))
	benchmarkPlace(b, f, []scheduler.Group{group("pinned", 1000, shape(requests("cpu", "1m"), selects("pin", "here")))})
}

// One replica, on a fleet that is half full.
func BenchmarkPlaceSingle(b *testing.B) {
	f := manyNodes(5000)
	scheduler.Place(f, manyGroups(500, 100))
	benchmarkPlace(b, f, []scheduler.Group{group("single", 1, shape(requests("cpu", "500m")))})
}

// A thousand replicas of a lost node, each of its own service and not to go back.
func BenchmarkPlaceSpares(b *testing.B) {
	f := manyNodes(5000)
	groups := manyGroups(1000, 10)
	scheduler.Place(f, groups)
	spares := manyGroups(1000, 1)
	for i := range spares {
		spares[i].Slots[0].Key.Epoch = 99
		spares[i].Slots[0].Avoid = []string{"node-00000"}
	}
	benchmarkPlace(b, f, spares)
}

// A fleet without room: every node has to say no, once per group.
func BenchmarkPlaceRefused(b *testing.B) {
	f := manyNodes(5000)
	for i := range 5000 {
		f.Bind(api.ReplicaKey{Service: "full", Slot: i}, fmt.Sprintf("node-%05d", i), shape(requests("cpu", fmt.Sprintf("%dm", 31000+i%1000))))
	}
	groups := manyGroups(1, 100, requests("cpu", "2"))
	for b.Loop() {
		if _, refused := scheduler.Place(f, groups); len(refused) != 100 {
			b.Fatalf("%d refused", len(refused))
		}
	}
}

// What is free of a fleet that is half full, as the core asks before it places spares.
func BenchmarkFree(b *testing.B) {
	f := manyNodes(5000)
	scheduler.Place(f, manyGroups(500, 100))
	for b.Loop() {
		if f.Free()[api.CPU] <= 0 {
			b.Fatal("nothing is free")
		}
	}
}

// Whether there is a place for what fits nowhere, as the core asks in a drain.
func BenchmarkFits(b *testing.B) {
	f := manyNodes(5000)
	scheduler.Place(f, manyGroups(500, 100))
	s := shape(requests("cpu", "40"))
	for b.Loop() {
		if scheduler.Fits(f, s) {
			b.Fatal("it fits")
		}
	}
}
