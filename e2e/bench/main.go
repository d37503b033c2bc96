package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/lab"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	labName   = "bench"
	nodeCount = 4
	// capacity of each node is far beyond the machine's, so that only orch and
	// containerd set the pace.
	capacity = "cpu=64,memory=32Gi"
	image    = "orch.local/web:1.0"
	// settleMax is how long the fleet may take to come to rest between runs.
	settleMax = time.Minute
	downMax   = time.Minute
	// nodeLabel holds a node's name, so that a service can be put on it.
	nodeLabel = "name"
)

// measurements in the order in which they are taken: rest first, before
// anything has happened. A book is a file of figures.
var measurements = []struct {
	book, name string
	take       func(context.Context, *bench) error
}{
	{"fleet", "idle", idle},
	{"fleet", "crash", crash},
	{"fleet", "start", start},
	{"failover", "powercut", powerCut},
	{"failover", "busy", powerCutBusy},
	{"failover", "wrongful", wrongful},
	{"failover", "partition", partition},
	{"net", "vip", netVIP},
	{"net", "throughput", netThroughput},
	{"net", "dns", netDNS},
	{"net", "reachable", netReachable},
	{"net", "change", netChange},
	{"net", "lost", netLost},
	{"net", "nodeloss", netNodeLoss},
	{"images", "cold", cold},
	{"rollout", "rolls", rolls},
	{"rollout", "rollback", rollsBack},
	{"rollout", "probes", probed},
	{"metrics", "metrics", metered},
}

// bench is a run: the fleet and where the figures go.
type bench struct {
	*rig.Fleet
	book  *report.Book
	nodes []string
	quick bool
}

func main() {
	var names, books []string
	for _, m := range measurements {
		names = append(names, m.name)
		if !slices.Contains(books, m.book) {
			books = append(books, m.book)
		}
	}
	book := flag.String("book", "fleet", "which figures to take: "+strings.Join(books, " or "))
	only := flag.String("run", "", "regular expression of the measurements to take, of: "+strings.Join(names, ", "))
	quick := flag.Bool("quick", false, "few repetitions: shows that it works, not how well")
	dir := flag.String("out", filepath.Join(rig.Root(), "out", "bench"), "folder for the figures")
	flag.Parse()
	pattern, err := regexp.Compile(*only)
	if err != nil || flag.NArg() > 0 || !slices.Contains(books, *book) {
		fmt.Fprintln(os.Stderr, "bench: want -book", strings.Join(books, " or "), "and -run with a regular expression, and no arguments:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err = run(ctx, *book, pattern, *quick, *dir)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run takes the measurements of a book that match, all of them even if some fail.
func run(ctx context.Context, program string, pattern *regexp.Regexp, quick bool, dir string) (err error) {
	b := &bench{quick: quick}
	for i := range nodeCount {
		b.nodes = append(b.nodes, fmt.Sprintf("n%d", i+1))
	}
	// The same node fails again and again, which is no flapping here.
	limits := []string{"flap-half-life=1s"}
	labels := map[string]map[string]string{}
	for _, n := range b.nodes {
		labels[n] = map[string]string{nodeLabel: n}
	}
	if b.Fleet, err = rig.Up(ctx, lab.Config{Name: labName, Nodes: nodeCount, Capacity: capacity, Labels: labels, Limits: limits,
		AgentArgs: []string{"--insecure-registry", hubAddress}, ControllerArgs: []string{"--insecure-registry", hubAddress}}); err != nil {
		return err
	}
	defer func() {
		down, cancel := context.WithTimeout(context.WithoutCancel(ctx), downMax)
		defer cancel()
		err = errors.Join(err, b.Down(down))
	}()
	for _, archive := range []string{"web.tar", "web2.tar"} {
		if err := b.LoadImage(ctx, archive); err != nil {
			return err
		}
	}
	if err := b.RouteReplicas(ctx); err != nil {
		return err
	}
	name := program
	if quick {
		name += "-quick" // never in the place of figures that mean something
	}
	if b.book, err = report.Open(dir, name, os.Stdout); err != nil {
		return err
	}
	failed := b.book.Header()
	for _, m := range measurements {
		if m.book != program || !pattern.MatchString(m.name) {
			continue
		}
		began := time.Now()
		if err := m.take(ctx, b); err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", m.name, err))
			if ctx.Err() != nil {
				break
			}
			b.Dump(ctx, os.Stderr)
		}
		b.note("%s took %s", m.name, time.Since(began).Round(time.Second))
	}
	if missed := b.book.Missed(); len(missed) > 0 {
		b.note("aims missed: %s", strings.Join(missed, ", "))
	}
	return errors.Join(failed, b.book.Close())
}

// note tells whoever waits how far we are.
func (b *bench) note(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "bench: "+format+"\n", args...)
}

// runs gives how often to repeat.
func (b *bench) runs(full, quick int) int {
	if b.quick {
		return quick
	}
	return full
}

// add writes a figure down; load is from before the measurement.
func (b *bench) add(name, unit string, samples []float64, load float64, aim report.Aim) error {
	f, err := report.Of(name, unit, samples, load)
	if err != nil {
		return err
	}
	return b.book.Add(f, aim)
}

// service makes a service of the web image; probed ones are ready only when
// they answer over HTTP.
func service(name string, replicas int, probed bool) *api.Service {
	c := api.Container{Name: "main", Image: image}
	if probed {
		c.Ports = []api.Port{{Name: "http", Port: 8080}}
		c.ReadinessProbe = &api.Probe{HTTP: &api.HTTPProbe{Path: "/healthz", Port: "http"}}
	}
	s := &api.Service{TypeMeta: api.TypeMeta{APIVersion: api.Version, Kind: api.KindService}, Metadata: api.Metadata{Name: name, Namespace: api.DefaultNamespace}}
	s.Spec.Replicas = &replicas
	s.Spec.Template.Containers = []api.Container{c}
	return s
}

// apply sends a service to the controller, without waiting for it.
func (b *bench) apply(ctx context.Context, s *api.Service) error {
	text, err := json.Marshal(s)
	if err != nil {
		return err
	}
	_, err = b.Orch.Apply(ctx, &orchv1.ApplyRequest{Objects: []*orchv1.Object{{Kind: api.KindService, Json: text}}})
	return err
}

// with runs measure while a service is up, and leaves the fleet at rest.
func (b *bench) with(ctx context.Context, s *api.Service, measure func() error) error {
	err := b.apply(ctx, s)
	if err == nil {
		err = b.WaitReady(ctx, s.Metadata.Name, *s.Spec.Replicas, settleMax)
	}
	if err == nil {
		err = measure()
	}
	return errors.Join(err, b.remove(context.WithoutCancel(ctx), s.Metadata.Name))
}

// remove deletes a service and waits until no node holds anything of it.
func (b *bench) remove(ctx context.Context, name string) error {
	_, err := b.Orch.Delete(ctx, &orchv1.DeleteRequest{IgnoreMissing: true,
		Refs: []*orchv1.Ref{{Kind: api.KindService, Namespace: api.DefaultNamespace, Name: name}}})
	if err != nil {
		return fmt.Errorf("delete %s: %w", name, err)
	}
	return rig.Until(ctx, settleMax, "nodes to hold nothing of "+name, func() error {
		services, err := rig.List[api.Service](ctx, b.Fleet, api.KindService, api.DefaultNamespace)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(services, func(s api.Service) bool { return s.Metadata.Name == name }) {
			return fmt.Errorf("service %s is still there", name)
		}
		for _, n := range b.nodes {
			left, err := b.Leftovers(ctx, n)
			if err != nil {
				return err
			}
			// Another service may be up around this one.
			left = slices.DeleteFunc(left, func(s string) bool { return !strings.Contains(s, "."+name+"-") })
			if len(left) > 0 {
				return fmt.Errorf("%s holds %s", n, strings.Join(left, ", "))
			}
		}
		return nil
	})
}

// truly checks that containerd of each node runs what the leader says.
func (b *bench) truly(ctx context.Context, replicas map[int]api.Replica) error {
	var nodes []string
	seen := map[string]bool{}
	for _, r := range replicas {
		if !seen[r.Spec.Node] {
			seen[r.Spec.Node] = true
			nodes = append(nodes, r.Spec.Node)
		}
	}
	running, err := b.AllContainers(ctx, nodes...)
	if err != nil {
		return err
	}
	for _, r := range replicas {
		for _, c := range r.Status.Containers {
			if running[c.ID].Node != r.Spec.Node {
				return fmt.Errorf("the leader says that %s runs on %s, but containerd there does not run %q", r.Metadata.Name, r.Spec.Node, c.ID)
			}
		}
		if len(r.Status.Containers) == 0 {
			return fmt.Errorf("%s runs on %s without any container", r.Metadata.Name, r.Spec.Node)
		}
	}
	return nil
}

// rest waits, unless ctx ends.
func rest(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
