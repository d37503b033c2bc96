package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/follow"
)

// demo is one run of it.
type demo struct {
	*talk
	fleet *rig.Fleet // nil until there is one
	url   string     // of a replica that answers
}

// play does all steps but the last.
func (d *demo) play(ctx context.Context) error {
	steps := []func(context.Context) error{d.up, d.image, d.apply, d.answers, d.cut, d.back}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) up(ctx context.Context) error {
	d.heading("A fleet on this machine")
	d.say("One controller with its own etcd inside, and %d nodes. Each node has its own network, mounts, process tree and boot id, its own containerd and its own agent; to orch they are %d servers.", nodeCount, nodeCount)
	if err := d.orchctl(ctx, "lab", "up", "--name", labName, "--nodes", fmt.Sprint(nodeCount)); err != nil {
		return err
	}
	fleet, err := rig.Open(ctx, labName, nodeCount)
	if err != nil {
		return err
	}
	d.fleet, d.config = fleet, fleet.Lab.AdminContext()
	if err := d.fleet.RouteReplicas(ctx); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "\n$ export ORCH_CONFIG=%s\n", d.config)
	return d.orchctl(ctx, "get", "nodes")
}

func (d *demo) image(ctx context.Context) error {
	d.heading("An image, on every node")
	d.say("There is no registry here. `image load` brings an OCI archive to all nodes, through the controller.")
	return d.orchctl(ctx, "image", "load", "out/images/web.tar")
}

func (d *demo) apply(ctx context.Context) error {
	d.heading("A web service from a file")
	d.say("%s asks for %d replicas of a small web server, with a readiness probe. `apply` waits until they are ready and says how long each phase took.", manifest, replicas)
	if err := d.orchctl(ctx, "apply", "-f", manifest); err != nil {
		return err
	}
	return d.orchctl(ctx, "get", "replicas", "-o", "wide")
}

func (d *demo) answers(ctx context.Context) error {
	d.heading("They answer")
	d.say("Asked over HTTP from a machine beside the nodes, each replica says who it is:")
	all, err := d.fleet.Replicas(ctx, service)
	if err != nil {
		return err
	}
	if len(all) != replicas {
		return fmt.Errorf("%s has %d replicas, want %d", service, len(all), replicas)
	}
	fmt.Fprintln(d.out)
	for _, r := range all {
		if err := d.ask(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// ask gets / from a replica and checks that it is the one that we think.
func (d *demo) ask(ctx context.Context, r api.Replica) error {
	d.url = fmt.Sprintf("http://%s:8080/", r.Status.IP)
	body, err := d.fleet.Fetch(ctx, d.url)
	if err != nil {
		return err
	}
	said := map[string]string{}
	for line := range strings.Lines(body) {
		if word, value, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			said[word] = value
		}
	}
	for word, want := range map[string]string{"replica": r.Metadata.Name, "node": r.Spec.Node, "epoch": fmt.Sprint(r.Spec.Epoch)} {
		if said[word] != want {
			return fmt.Errorf("%s should be %s %s, and says:\n%s", d.url, word, want, body)
		}
	}
	fmt.Fprintf(d.out, "  GET %-24s replica %s, epoch %s, on %s, version %s\n", d.url, said["replica"], said["epoch"], said["node"], said["version"])
	return nil
}

// backMax is how long the service may take to be whole again before the demo
// has failed.
const backMax = 30 * time.Second

func (d *demo) cut(ctx context.Context) error {
	all, err := d.fleet.Replicas(ctx, service)
	if err != nil {
		return err
	}
	lost := all[len(all)/2]
	victim := lost.Spec.Node

	d.heading("A power cut")
	d.say("%s runs %s. Its power goes now: every process of it is gone at once and its link is down; nobody is told.", victim, lost.Metadata.Name)
	w, err := d.fleet.Follow(ctx)
	if err != nil {
		return err
	}
	defer w.Close()
	start := time.Now() // before the command starts, so the times include it
	if err := d.orchctl(ctx, "lab", "kill", "--name", labName, victim); err != nil {
		return err
	}
	away, err := w.Until(ctx, backMax, "traffic to leave "+victim, func(v *follow.View) error {
		for _, r := range v.Replicas {
			if r.Spec.Node == victim && r.Status.Ready {
				return fmt.Errorf("%s there still counts as ready", r.Metadata.Name)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	back, err := w.Until(ctx, backMax, fmt.Sprintf("%d ready replicas without %s", replicas, victim), func(v *follow.View) error {
		if n := len(running(v, victim)); n != replicas {
			return fmt.Errorf("%d are ready", n)
		}
		return nil
	})
	if err != nil {
		return err
	}
	now := running(&w.View, victim)
	for _, slot := range slices.Sorted(maps.Keys(now)) {
		if err := d.ask(ctx, now[slot]); err != nil {
			return err
		}
	}
	asked := time.Now()
	d.box(
		fmt.Sprintf("%d of %d replicas ready again   %s after the power cut", replicas, replicas, seconds(back.Sub(start))),
		fmt.Sprintf("  traffic away from %s        %s", victim, seconds(away.Sub(start))),
		fmt.Sprintf("  all answered over HTTP      %s", seconds(asked.Sub(start))),
		"",
		"The same cut with others' defaults, as we measured it on the same",
		"kind of machine: Docker Swarm 21 s, Nomad 17 s.",
	)
	d.say("What happened: the beats of %s stopped. The leader asked the other nodes whether the host answers; it did not, so %s became suspect. That harms nobody: traffic leaves it, and a spare takes its slot elsewhere, with a higher epoch. Only a hard fact will declare it dead.", victim, victim)
	if err := d.orchctl(ctx, "get", "nodes"); err != nil {
		return err
	}
	if err := d.orchctl(ctx, "get", "replicas", "-o", "wide"); err != nil {
		return err
	}
	d.heading("What the events tell")
	d.say("Every decision is kept with its reason:")
	return d.orchctl(ctx, "events", "-A")
}

// running gives what runs of the service by slot, leaving a node out.
func running(v *follow.View, without string) map[int]api.Replica {
	out := v.Running(service)
	maps.DeleteFunc(out, func(_ int, r api.Replica) bool { return r.Spec.Node == without })
	return out
}

func (d *demo) back(ctx context.Context) error {
	nodes, err := rig.List[api.Node](ctx, d.fleet, api.KindNode, "")
	if err != nil {
		return err
	}
	i := slices.IndexFunc(nodes, func(n api.Node) bool { return n.Status.Verdict != api.VerdictHealthy })
	if i < 0 {
		return fmt.Errorf("every node counts as healthy, though one has no power")
	}
	victim := nodes[i].Metadata.Name
	before, err := d.alive(ctx, victim)
	if err != nil {
		return err
	}

	d.heading("The node comes back")
	d.say("%s gets its power again, and finds its old disk. On it containerd remembers a container that was replaced meanwhile: nobody wants it any more, and the agent clears it away.", victim)
	start := time.Now()
	if err := d.orchctl(ctx, "lab", "start", "--name", labName, victim); err != nil {
		return err
	}
	stale, err := d.fleet.Leftovers(ctx, victim)
	if err != nil {
		return err
	}
	for _, s := range stale {
		fmt.Fprintf(d.out, "  %s holds %s\n", victim, s)
	}
	if err := d.fleet.WaitNodes(ctx, nodeCount); err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  %d healthy nodes %s after that command began\n", nodeCount, seconds(time.Since(start)))
	err = rig.Until(ctx, backMax, "the stale containers of "+victim+" to go", func() error {
		left, err := d.fleet.Leftovers(ctx, victim)
		if err == nil && len(left) > 0 {
			err = fmt.Errorf("there are %s", strings.Join(left, ", "))
		}
		return err
	})
	if err != nil {
		return err
	}
	fmt.Fprintf(d.out, "  %s holds no container and no snapshot any more\n", victim)
	if err := d.fleet.WaitReady(ctx, service, replicas, backMax); err != nil {
		return err
	}
	after, err := d.alive(ctx, victim)
	if err != nil {
		return err
	}
	if !maps.Equal(before, after) {
		return fmt.Errorf("containers on the other nodes were touched: %v before, %v after", before, after)
	}
	d.say("")
	d.say("The %d replicas on the other nodes ran on in the same processes: a node that returns is no reason to move anything.", replicas)
	if err := d.orchctl(ctx, "get", "nodes"); err != nil {
		return err
	}
	return d.orchctl(ctx, "get", "services")
}

// alive gives what runs on all nodes but one, as their containerds say.
func (d *demo) alive(ctx context.Context, without string) (map[string]rig.Running, error) {
	var nodes []string
	for i := range nodeCount {
		if n := fmt.Sprintf("n%d", i+1); n != without {
			nodes = append(nodes, n)
		}
	}
	return d.fleet.AllContainers(ctx, nodes...)
}
