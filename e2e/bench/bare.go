package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/pkg/cio"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/pkg/oci"
	"golang.org/x/sync/errgroup"

	"github.com/orchctl/orch/e2e/rig"
)

const (
	// bareNamespace keeps these containers from the agents, which own all in theirs.
	bareNamespace = "bare"
	// bareAtOnce containers are started in parallel in the whole fleet: more
	// gain nothing on the two cores that these machines have.
	bareAtOnce = 8
)

// loadBare brings the image to containerd's namespace for bare containers.
func (b *bench) loadBare(ctx context.Context) error {
	ctx = namespaces.WithNamespace(ctx, bareNamespace)
	for _, n := range b.nodes {
		c, err := b.bareClient(n)
		if err != nil {
			return err
		}
		defer c.Close()
		archive, err := os.Open(filepath.Join(rig.Root(), "out", "images", "web.tar"))
		if err != nil {
			return err
		}
		defer archive.Close()
		if _, err := c.Import(ctx, archive); err != nil {
			return fmt.Errorf("import image on %s: %w", n, err)
		}
		img, err := c.GetImage(ctx, image)
		if err != nil {
			return fmt.Errorf("import image on %s: %w", n, err)
		}
		if err := img.Unpack(ctx, ""); err != nil {
			return fmt.Errorf("unpack image on %s: %w", n, err)
		}
	}
	return nil
}

func (b *bench) bareClient(node string) (*containerd.Client, error) {
	sock, err := b.Lab.ContainerdSocket(node)
	if err != nil {
		return nil, err
	}
	return containerd.New(sock, containerd.WithDefaultNamespace(bareNamespace))
}

// startBare gives the time in which so many containers of the same image start
// on the same nodes by containerd alone: a file system, an empty network
// namespace, output to a file, and nothing else. They are removed afterwards.
func (b *bench) startBare(ctx context.Context, count int) (took time.Duration, err error) {
	return b.startBareOf(ctx, image, count)
}

// startBareOf is startBare with another image.
func (b *bench) startBareOf(ctx context.Context, image string, count int) (took time.Duration, err error) {
	ctx = namespaces.WithNamespace(ctx, bareNamespace)
	status, err := b.Lab.Status(ctx)
	if err != nil {
		return 0, err
	}
	type place struct {
		client *containerd.Client
		image  containerd.Image
		cgroup string
	}
	places := make([]place, len(status.Nodes))
	for i, n := range status.Nodes {
		c, err := b.bareClient(n.Name)
		if err != nil {
			return 0, err
		}
		defer c.Close()
		img, err := c.GetImage(ctx, image)
		if err != nil {
			return 0, err
		}
		places[i] = place{c, img, n.CgroupParent}
	}
	tasks := make([]containerd.Task, count)
	containers := make([]containerd.Container, count)
	defer func() {
		err = errors.Join(err, removeBare(context.WithoutCancel(ctx), containers, tasks))
	}()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(bareAtOnce)
	began := time.Now()
	for i := range count {
		group.Go(func() (err error) {
			p, id := places[i%len(places)], fmt.Sprintf("bare-%d", i)
			containers[i], err = p.client.NewContainer(gctx, id,
				containerd.WithImage(p.image), containerd.WithNewSnapshot(id, p.image),
				containerd.WithNewSpec(oci.WithImageConfig(p.image), oci.WithCgroup(filepath.Join(p.cgroup, id)),
					// As confined as ours: loading a filter is a good part of what runc does.
					oci.WithNoNewPrivileges, seccomp.WithDefaultProfile()))
			if err != nil {
				return fmt.Errorf("create %s: %w", id, err)
			}
			if tasks[i], err = containers[i].NewTask(gctx, cio.LogFile("/run/bare/"+id+".log")); err != nil {
				return fmt.Errorf("create task of %s: %w", id, err)
			}
			if err := tasks[i].Start(gctx); err != nil {
				return fmt.Errorf("start %s: %w", id, err)
			}
			return nil
		})
	}
	err = group.Wait()
	return time.Since(began), err
}

func removeBare(ctx context.Context, containers []containerd.Container, tasks []containerd.Task) error {
	var group errgroup.Group
	group.SetLimit(bareAtOnce)
	for i := range containers {
		group.Go(func() error {
			if tasks[i] != nil {
				if _, err := tasks[i].Delete(ctx, containerd.WithProcessKill); err != nil {
					return err
				}
			}
			if containers[i] == nil {
				return nil
			}
			return containers[i].Delete(ctx, containerd.WithSnapshotCleanup)
		})
	}
	return group.Wait()
}
