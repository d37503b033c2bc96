package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/hub"
	"github.com/orchctl/orch/e2e/rig"
	"github.com/orchctl/orch/internal/bench/report"
	"github.com/orchctl/orch/internal/follow"
	"github.com/orchctl/orch/internal/ociimage"
)

const (
	// hubAddress is where the registry of these measurements answers, without TLS, beside
	// the controller.
	hubAddress = "10.200.0.1:5000"
	// coldReplicas start from an image that no node has, of coldBytes that do not get
	// smaller, beside the program itself.
	coldReplicas, coldBytes = 20, 32 << 20
	coldRuns                = 5
)

// cold takes the time from an apply to so many running replicas of an image that is on
// no node, by phase; and beside it that of containerd alone, which pulls an image of the
// same size on every node and starts as many containers.
func cold(ctx context.Context, b *bench) error {
	load, err := report.Load()
	if err != nil {
		return err
	}
	l, err := b.Lab.Listen(ctx, "tcp", hubAddress)
	if err != nil {
		return err
	}
	h := hub.New()
	defer h.Serve(l, nil)()
	samples := map[string][]float64{}
	for i := range b.runs(coldRuns, 1) {
		one, err := b.coldOrch(ctx, h, i)
		if err != nil {
			return fmt.Errorf("run %d: %w", i+1, err)
		}
		bare, err := b.coldBare(ctx, h, i)
		if err != nil {
			return fmt.Errorf("run %d, containerd alone: %w", i+1, err)
		}
		b.note("cold start of %d, run %d: orch %.2f s, containerd alone %.2f s", coldReplicas, i+1, one.running.Seconds(), bare.Seconds())
		for name, d := range map[string]time.Duration{"answered": one.answered, "placed": one.placed, "pulled": one.pulled, "running": one.running, "ready": one.ready, "bare": bare} {
			samples[name] = append(samples[name], d.Seconds())
		}
		samples["rate"] = append(samples["rate"], 100*bare.Seconds()/one.running.Seconds())
	}
	for _, f := range []struct {
		name, unit string
		aim        report.Aim
	}{
		{"answered", "s", report.Aim{}}, {"placed", "s", report.Aim{}}, {"pulled", "s", report.Aim{}}, {"running", "s", report.Aim{}}, {"ready", "s", report.Aim{}},
		{"bare", "s", report.Aim{Beside: "containerd alone"}}, {"rate", "%", report.AtLeast(80, "of containerd alone")},
	} {
		err = errors.Join(err, b.add("cold."+f.name, f.unit, samples[f.name], load, f.aim))
	}
	return err
}

// coldStart is how far after its beginning a start was at what; each counts from before
// the apply until it is so of every replica.
type coldStart struct{ answered, placed, pulled, running, ready time.Duration }

// push makes an image that nobody has.
func (b *bench) push(ctx context.Context, h *hub.Hub, path string) (string, error) {
	program, err := os.ReadFile(filepath.Join(rig.Root(), "bin", "web"))
	if err != nil {
		return "", err
	}
	ballast := make([]byte, coldBytes)
	_, _ = rand.Read(ballast) // never fails
	img, err := ociimage.Image(ociimage.Options{Entrypoint: []string{"/bin/web"}, Env: []string{"PATH=/bin"}, User: "65534:65534",
		Files: map[string]ociimage.File{"/bin/web": {Data: program, Mode: 0o755}, "/ballast": {Data: ballast}}})
	if err != nil {
		return "", err
	}
	return hubAddress + "/" + path, h.Push(ctx, path, img)
}

func (b *bench) coldOrch(ctx context.Context, h *hub.Hub, run int) (one coldStart, err error) {
	ref, err := b.push(ctx, h, fmt.Sprintf("bench/orch:%d", run))
	if err != nil {
		return one, err
	}
	w, err := b.Follow(ctx)
	if err != nil {
		return one, err
	}
	defer w.Close()
	defer func() {
		err = errors.Join(err, b.remove(context.WithoutCancel(ctx), "cold"), b.Must(context.WithoutCancel(ctx), "image", "rm", ref, "--force"))
	}()
	var running map[int]api.Replica
	s := service("cold", coldReplicas, true)
	s.Spec.Template.Containers[0].Image = ref
	began := time.Now()
	if err := b.apply(ctx, s); err != nil {
		return one, err
	}
	one.answered = time.Since(began)
	for _, step := range []struct {
		what string
		took *time.Duration
		is   func(api.Replica) bool
	}{
		{"placed", &one.placed, func(r api.Replica) bool { return r.Spec.Node != "" }},
		{"have their image", &one.pulled, hasImage},
		{"run", &one.running, func(r api.Replica) bool { return r.Status.Phase == api.PhaseRunning }},
		{"be ready", &one.ready, func(r api.Replica) bool { return r.Status.Ready }},
	} {
		at, err := w.Until(ctx, startedMax, fmt.Sprintf("%d replicas to %s", coldReplicas, step.what), func(v *follow.View) error {
			n := 0
			running = v.Running("cold")
			for _, r := range v.Replicas {
				if r.Spec.Service == "cold" && step.is(r) {
					n++
				}
			}
			if n != coldReplicas {
				return fmt.Errorf("%d are", n)
			}
			return nil
		})
		if err != nil {
			return one, err
		}
		*step.took = at.Sub(began)
	}
	return one, b.truly(ctx, running)
}

// hasImage: its agent has told which image it starts the container from.
func hasImage(r api.Replica) bool {
	return len(r.Status.Containers) > 0 && r.Status.Containers[0].ImageID != ""
}

// coldBare is what a script with containerd's own tools would take.
func (b *bench) coldBare(ctx context.Context, h *hub.Hub, run int) (time.Duration, error) {
	ref, err := b.push(ctx, h, fmt.Sprintf("bench/bare:%d", run))
	if err != nil {
		return 0, err
	}
	pullCtx := namespaces.WithNamespace(ctx, bareNamespace)
	resolver := docker.NewResolver(docker.ResolverOptions{Hosts: docker.ConfigureDefaultRegistries(docker.WithPlainHTTP(docker.MatchAllHosts),
		docker.WithClient(&http.Client{Transport: &http.Transport{DialContext: b.Lab.Dial}}))})
	var group errgroup.Group
	began := time.Now()
	for _, n := range b.nodes {
		group.Go(func() error {
			c, err := b.bareClient(n)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Pull(pullCtx, ref, containerd.WithPullUnpack, containerd.WithResolver(resolver))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	pulled := time.Since(began)
	started, err := b.startBareOf(ctx, ref, coldReplicas)
	return pulled + started, err
}
