package ctrd

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/client"
	cimages "github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"

	"github.com/orchctl/orch/agent/images"
)

// findAndUse is find for somebody who wants to run the image: who removes images meanwhile
// leaves this one.
func (r *Runtime) findAndUse(ctx context.Context, ref string) (client.Image, error) {
	r.removing.RLock()
	defer r.removing.RUnlock()
	img, err := r.find(ctx, ref)
	if err == nil {
		r.use(img.Target().Digest.String())
	}
	return img, err
}

func (r *Runtime) use(dgst string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.used[dgst] = time.Now()
}

func (r *Runtime) usedSince(dgst string, at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used[dgst].After(at)
}

// Images lists the images on this node, in orch's namespace of containerd alone, by digest.
func (r *Runtime) Images(ctx context.Context) ([]images.Image, error) {
	ctx = r.in(ctx)
	list, err := r.client.ListImages(ctx)
	if err != nil {
		return nil, fmt.Errorf("list images: %w", err)
	}
	at := map[string]int{}
	var out []images.Image
	for _, img := range list {
		id, m := img.Target().Digest, img.Metadata()
		i, known := at[id.String()]
		if !known {
			size, err := img.Size(ctx)
			if err != nil && !errdefs.IsNotFound(err) { // other platforms' parts are absent
				return nil, fmt.Errorf("size of image %s: %w", img.Name(), err)
			}
			i = len(out)
			at[id.String()] = i
			out = append(out, images.Image{Digest: id.String(), Size: size, Created: m.CreatedAt, Origin: r.origin(ctx, id)})
		}
		x := &out[i]
		x.Refs = append(x.Refs, img.Name())
		if tag := m.Labels[labelTag]; tag != "" {
			x.Tags = append(x.Tags, tag)
		}
		if m.CreatedAt.Before(x.Created) {
			x.Created = m.CreatedAt
		}
		if m.Labels[labelLoaded] != "" { // it goes last, whoever has it too
			x.Origin = images.Loaded
		}
	}
	for i := range out {
		slices.Sort(out[i].Refs)
		slices.Sort(out[i].Tags)
	}
	slices.SortFunc(out, func(a, b images.Image) int { return strings.Compare(a.Digest, b.Digest) })
	return out, nil
}

// origin tells by the mark that containerd's client leaves on what it pulled.
func (r *Runtime) origin(ctx context.Context, id digest.Digest) images.Origin {
	info, err := r.client.ContentStore().Info(ctx, id)
	if err != nil {
		return images.Unknown
	}
	for k := range info.Labels {
		if strings.HasPrefix(k, labels.LabelDistributionSource) {
			return images.Pulled
		}
	}
	return images.Unknown
}

// RemoveImage removes an image with all its names, and returns after its content is
// gone from the disk, as far as no other image has it. It is ErrImageInUse if a container
// was made from it, or if somebody wanted to run it after decided.
func (r *Runtime) RemoveImage(ctx context.Context, dgst string, decided time.Time) error {
	return r.removeNames(ctx, dgst, decided, func(string) bool { return true })
}

// Untag removes one name of an image, and with the last one the image; see RemoveImage.
func (r *Runtime) Untag(ctx context.Context, dgst, name string, decided time.Time) error {
	full, err := normalize(name)
	if err != nil {
		return err
	}
	return r.removeNames(ctx, dgst, decided, func(have string) bool { return have == full })
}

func (r *Runtime) removeNames(ctx context.Context, dgst string, decided time.Time, which func(name string) bool) error {
	ctx = r.in(ctx)
	r.letGoIdle(ctx)
	r.removing.Lock()
	defer r.removing.Unlock()
	list, err := r.client.ImageService().List(ctx, "target.digest=="+dgst)
	if err != nil {
		return fmt.Errorf("remove image %s: %w", short(dgst), err)
	}
	var leave, stay []string
	for _, i := range list {
		switch {
		case which(i.Name):
			leave = append(leave, i.Name)
		case i.Labels[labelPinned] == "":
			stay = append(stay, i.Name)
		}
	}
	if len(stay) == 0 { // names that only we gave keep nothing
		leave = leave[:0]
		for _, i := range list {
			leave = append(leave, i.Name)
		}
		if err := r.unneeded(ctx, dgst, decided); err != nil {
			return err
		}
	}
	if len(leave) == 0 {
		return fmt.Errorf("remove image %s: %w: it is not on this node", short(dgst), ErrImageMissing)
	}
	for n, name := range leave {
		var opts []cimages.DeleteOpt
		if n == len(leave)-1 {
			opts = append(opts, cimages.SynchronousDelete())
		}
		if err := r.client.ImageService().Delete(ctx, name, opts...); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("remove image %s: %w", name, err)
		}
	}
	if len(stay) == 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.metas, dgst)
		delete(r.used, dgst)
	}
	return nil
}

// unneeded makes sure that nobody has come who needs an image.
func (r *Runtime) unneeded(ctx context.Context, dgst string, decided time.Time) error {
	if r.usedSince(dgst, decided) {
		return fmt.Errorf("remove image %s: %w: it was wanted just now", short(dgst), ErrImageInUse)
	}
	list, err := r.client.ContainerService().List(ctx, fmt.Sprintf("labels.%q==%s", labelImageID, dgst))
	if err != nil {
		return fmt.Errorf("remove image %s: %w", short(dgst), err)
	}
	if len(list) > 0 {
		return fmt.Errorf("remove image %s: %w: container %s was made from it", short(dgst), ErrImageInUse, list[0].ID)
	}
	return nil
}
