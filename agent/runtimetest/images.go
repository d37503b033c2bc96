package runtimetest

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
)

// imageBytes is what each image takes of the disk.
const imageBytes = 1 << 20

// OnPull is asked before an image is given that somebody may ask registries for; by default
// there is none. It must not call the Runtime.
func (r *Runtime) OnPull(f func(w ctrd.ImageWant, progress func(ctrd.Progress)) error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.registry = f
}

// SetDisk is the disk of images from now on; removals free some of it.
func (r *Runtime) SetDisk(d images.Disk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.disk = d
}

// Images implements agent.Runtime, as do the methods below: each image that was brought is
// under one name, and pulled.
func (r *Runtime) Images(context.Context) ([]images.Image, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []images.Image
	for ref := range r.images {
		out = append(out, images.Image{Digest: r.idOf(ref), Refs: []string{full(ref)}, Size: imageBytes, Origin: images.Pulled})
	}
	slices.SortFunc(out, func(a, b images.Image) int { return strings.Compare(a.Digest, b.Digest) })
	return out, r.down
}

func (r *Runtime) idOf(ref string) string {
	if _, pinned, ok := strings.Cut(ref, "@"); ok {
		return pinned
	}
	return "sha256:" + ref // as EnsureImage has it
}

func full(ref string) string {
	if strings.Contains(ref, "/") {
		return ref
	}
	return "docker.io/library/" + ref
}

// Pulling gives none: pulls take no time.
func (r *Runtime) Pulling() []string { return nil }

// RemoveImage removes it unless a container was made from it.
func (r *Runtime) RemoveImage(_ context.Context, digest string, _ time.Time) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for id, o := range r.containers {
		if o.ImageID == digest {
			return fmt.Errorf("remove image %s: %w: container %s", digest, ctrd.ErrImageInUse, id)
		}
	}
	for ref := range r.images {
		if r.idOf(ref) == digest {
			r.note("remove image %s", ref)
			delete(r.images, ref)
			r.disk.Free += imageBytes
		}
	}
	return nil
}

// Untag is RemoveImage: there is one name.
func (r *Runtime) Untag(ctx context.Context, digest, _ string, decided time.Time) error {
	return r.RemoveImage(ctx, digest, decided)
}

// SweepPulls finds nothing.
func (r *Runtime) SweepPulls(context.Context, time.Time) error { return nil }

// Disk is what SetDisk said.
func (r *Runtime) Disk(context.Context) (size, free int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.disk.Size, r.disk.Free, nil
}
