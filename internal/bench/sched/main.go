package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/scheduler"
)

func main() {
	nodes := flag.Int("nodes", 5000, "nodes in the fleet")
	services := flag.Int("services", 500, "services, each of its own shape")
	replicas := flag.Int("replicas", 50000, "replicas of all services together")
	runs := flag.Int("runs", 20, "runs, each on a new fleet")
	dir := flag.String("out", "out/bench", "folder for the figures")
	flag.Parse()
	if *nodes < 1 || *services < 1 || *replicas < *services || *runs < 1 {
		fmt.Fprintln(os.Stderr, "sched: want at least one node, service and run, and a replica for each service")
		os.Exit(2)
	}
	if err := bench(*nodes, *services, *replicas, *runs, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "sched:", err)
		os.Exit(1)
	}
}

func bench(nodes, services, replicas, runs int, dir string) error {
	runtime.GOMAXPROCS(1) // the figure is for one core, collecting garbage included
	load, err := report.Load()
	if err != nil {
		return err
	}
	groups := makeGroups(services, replicas)
	var first []scheduler.Placement
	rates := make([]float64, runs)
	for i := range rates {
		f := makeFleet(nodes)
		runtime.GC()
		start := time.Now()
		placed, refused := scheduler.Place(f, groups)
		rates[i] = float64(len(placed)) / time.Since(start).Seconds()
		if len(refused) > 0 {
			return fmt.Errorf("place %s: refused: %s", refused[0].Key, refused[0].Reason)
		}
		if first == nil {
			first = placed
		} else if !slices.Equal(first, placed) {
			return fmt.Errorf("run %d placed otherwise than run 0", i)
		}
	}
	figure, err := report.Of("sched.basic", "1/s", rates, load)
	if err != nil {
		return err
	}
	book, err := report.Open(dir, "sched", os.Stdout)
	if err != nil {
		return err
	}
	aim := report.AtLeast(100_000, "Nomad 5,200, kube-scheduler with its API server 260")
	return errors.Join(book.Header(), book.Add(figure, aim), book.Close())
}

// makeFleet gives nodes of three sizes, so that loads differ.
func makeFleet(n int) *scheduler.Fleet {
	f := scheduler.NewFleet()
	for i := range n {
		cores := int64(16 << (i % 3))
		f.SetNode(scheduler.Node{
			Name: fmt.Sprintf("node-%05d", i), Verdict: api.VerdictHealthy,
			Labels:   map[string]string{"zone": strconv.Itoa(i % 10)},
			Capacity: api.ResourceList{api.CPU: api.Whole(cores), api.Memory: api.Whole(cores * 4 << 30)},
		})
	}
	return f
}

// makeGroups gives services that differ in what they request; every tenth is
// bound to a zone.
func makeGroups(services, replicas int) []scheduler.Group {
	groups := make([]scheduler.Group, services)
	for i := range groups {
		t := api.Template{Containers: []api.Container{{Name: "main", Image: "web:1", Resources: api.Resources{Requests: api.ResourceList{
			api.CPU: api.Quantity(100 + i%400), api.Memory: api.Whole(int64(64+i%700) << 20),
		}}}}}
		if i%10 == 9 {
			t.NodeSelector = map[string]string{"zone": strconv.Itoa(i / 10 % 10)}
		}
		key := api.Key{Namespace: api.DefaultNamespace, Name: fmt.Sprintf("service-%05d", i)}
		groups[i] = scheduler.Group{Service: key, Shape: scheduler.NewShape(t)}
	}
	for i := range replicas {
		g := &groups[i%services]
		g.Slots = append(g.Slots, scheduler.Slot{Key: api.ReplicaKey{Namespace: g.Service.Namespace, Service: g.Service.Name, Slot: i / services, Epoch: uint64(i) + 1}})
	}
	return groups
}
