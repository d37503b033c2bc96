package ctrd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/orchctl/orch/internal/registry"
)

// ImageWant is an image that somebody wants.
type ImageWant struct {
	// Ref is a name, with or without a digest, or a digest.
	Ref string
	// Never: no registry is asked.
	Never bool
	// Registry: what the registry says counts, whatever the node has by that name. For
	// Resolve alone.
	Registry bool
	// Logins to registries; the node's own come after them.
	Logins []registry.Login
}

// imageMeta is what starting a container needs to know of an image.
type imageMeta struct {
	id      string
	parent  string // the snapshot of its topmost layer
	config  ocispec.ImageConfig
	health  *Healthcheck
	present client.Image
}

// EnsureImage finds the image on this node, by reference or by digest, or
// pulls and unpacks it. A reference with a digest is never answered by another
// image, whatever its tag means here, and its image is kept on this node when the
// tag moves on. Concurrent calls for one reference share one pull. progress, which
// may be nil, is told how far the pull is. Errors are ErrImageMissing, ErrRegistryUnreachable
// and ErrImageError; ErrNoSpace comes with the latter.
func (r *Runtime) EnsureImage(ctx context.Context, w ImageWant, progress func(Progress)) (ImageInfo, error) {
	ctx = r.in(ctx)
	ref := w.Ref
	img, err := r.findAndUse(ctx, ref)
	if errors.Is(err, ErrImageMissing) && !isDigest(ref) {
		if w.Never {
			err = fmt.Errorf("%w, and pullPolicy is never: load it with `orchctl image load`", err)
			return ImageInfo{}, r.otherThanPinned(ctx, ref, err)
		}
		if img, err = r.pull(ctx, w, progress); err != nil {
			failed := err
			if img, err = r.findAndUse(ctx, ref); err != nil { // else it was brought meanwhile
				err = r.otherThanPinned(ctx, ref, failed)
			}
		}
	}
	if err != nil {
		return ImageInfo{}, err
	}
	if err := r.pin(ctx, ref, img); err != nil {
		return ImageInfo{}, err
	}
	if err := r.noteTag(ctx, ref); err != nil {
		return ImageInfo{}, err
	}
	if err := r.unpack(ctx, img); err != nil {
		return ImageInfo{}, err
	}
	return ImageInfo{ID: img.Target().Digest.String(), Ref: img.Name(), CreatedAt: img.Metadata().CreatedAt}, nil
}

// Resolve gives the digest that a reference means now: that of the image which this
// node has by that name, unless the registry's word is wanted, else the registry's. Nothing
// is pulled. Errors are those of EnsureImage.
func (r *Runtime) Resolve(ctx context.Context, w ImageWant) (string, error) {
	ctx = r.in(ctx)
	if _, dgst := splitPinned(w.Ref); dgst != "" {
		return dgst, nil
	}
	if !w.Registry || w.Never {
		img, err := r.find(ctx, w.Ref)
		if err == nil {
			return img.Target().Digest.String(), nil
		}
		if !errors.Is(err, ErrImageMissing) || w.Never {
			return "", err
		}
	}
	full, err := normalize(w.Ref)
	if err != nil {
		return "", err
	}
	_, desc, err := r.registries.Resolver(w.Logins).Resolve(ctx, full)
	if err != nil {
		return "", pullError(full, err)
	}
	return desc.Digest.String(), nil
}

// ImportImage reads an OCI or docker archive and unpacks this platform's image
// of it. It returns the references under which the images are now known.
func (r *Runtime) ImportImage(ctx context.Context, rd io.Reader) ([]string, error) {
	ctx = r.in(ctx)
	// The lease keeps the blobs until an image refers to them.
	ctx, done, err := r.client.WithLease(ctx)
	if err != nil {
		return nil, fmt.Errorf("import image: %w", err)
	}
	defer done(context.WithoutCancel(ctx))
	imported, err := r.client.Import(ctx, rd, client.WithImageRefTranslator(normalizeOrEmpty), client.WithImageLabels(map[string]string{labelLoaded: "true"}))
	if err != nil {
		return nil, fmt.Errorf("import image: %w: %w", ErrImageError, err)
	}
	var refs []string
	for _, i := range imported {
		img := client.NewImage(r.client, i)
		if err := r.unpack(ctx, img); err != nil {
			return refs, err
		}
		refs = append(refs, i.Name)
	}
	if len(refs) == 0 {
		return nil, fmt.Errorf("import image: %w: the archive names no image", ErrImageError)
	}
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// normalize gives the full form of a reference: registry, path and tag are
// filled in as everyone's tools do, so that "web:1" is found however it came.
func normalize(ref string) (string, error) {
	named, err := reference.ParseDockerRef(ref)
	if err != nil {
		return "", fmt.Errorf("image %q: %w: %w", ref, ErrImageError, err)
	}
	return named.String(), nil
}

// normalizeOrEmpty leaves out names that are none, such as a bare digest.
func normalizeOrEmpty(ref string) string {
	full, err := normalize(ref)
	if err != nil {
		return ""
	}
	return full
}

func isDigest(ref string) bool {
	_, err := digest.Parse(ref)
	return err == nil
}

// find looks on this node only. A reference with a digest is also found under
// any other name of the same digest.
func (r *Runtime) find(ctx context.Context, ref string) (client.Image, error) {
	dgst := ""
	if isDigest(ref) {
		dgst = ref
	} else {
		full, err := normalize(ref)
		if err != nil {
			return nil, err
		}
		_, dgst = splitPinned(full)
		img, err := r.client.GetImage(ctx, full)
		if err == nil && (dgst == "" || img.Target().Digest.String() == dgst) {
			return img, nil
		}
		if err != nil && !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("look up image %s: %w", ref, err)
		}
	}
	if dgst != "" {
		list, err := r.client.ListImages(ctx, "target.digest=="+dgst)
		if err != nil {
			return nil, fmt.Errorf("look up image %s: %w", ref, err)
		}
		if len(list) > 0 {
			return list[0], nil
		}
	}
	return nil, fmt.Errorf("%w: %s is not on this node", ErrImageMissing, ref)
}

// splitPinned cuts a reference into what stands before its digest and the digest,
// which is empty where there is none.
func splitPinned(ref string) (name, dgst string) {
	if isDigest(ref) {
		return "", ref
	}
	if name, dgst, ok := strings.Cut(ref, "@"); ok && isDigest(dgst) {
		return name, dgst
	}
	return ref, ""
}

// pin gives an image that was found by its digest a name by that digest: the tag
// under which it was found may be given to another image at any time, and
// containerd deletes what has no name, so that a container could not be restarted.
func (r *Runtime) pin(ctx context.Context, ref string, img client.Image) error {
	name, dgst := splitPinned(ref)
	if name == "" || dgst == "" {
		return nil
	}
	full, err := normalize(ref) // keeps the digest and drops the tag
	if err != nil || full == img.Name() {
		return err
	}
	_, err = r.client.ImageService().Create(ctx, images.Image{Name: full, Target: img.Target(), Labels: map[string]string{labelPinned: "true"}})
	if err != nil && !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("keep image %s: %w", full, err)
	}
	return nil
}

// noteTag keeps with the name by digest that an image was wanted by a tag, too: containerd
// drops it, and people know images by their tags.
func (r *Runtime) noteTag(ctx context.Context, ref string) error {
	tag, dgst := splitPinned(ref)
	if tag == "" || dgst == "" {
		return nil
	}
	full, err := normalize(ref)
	if err != nil {
		return err
	}
	if tag, err = normalize(tag); err != nil {
		return err
	}
	service := r.client.ImageService()
	img, err := service.Get(ctx, full)
	if errdefs.IsNotFound(err) || err == nil && img.Labels[labelTag] == tag {
		return nil // it is here by other names, or it is noted
	}
	if err == nil {
		_, err = service.Update(ctx, images.Image{Name: full, Labels: map[string]string{labelTag: tag}}, "labels."+labelTag)
	}
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("note the tag of image %s: %w", full, err)
	}
	return nil
}

// Labels on names of images.
const (
	labelPinned = "orch/pinned" // we gave it, so that the image is kept; it goes with the image
	labelLoaded = "orch/loaded" // an archive brought it, and not a registry
	labelTag    = "orch/tag"    // the tag by which it was wanted, on a name by digest
)

// otherThanPinned says of an image that cannot be had what this node has in its stead.
func (r *Runtime) otherThanPinned(ctx context.Context, ref string, why error) error {
	kind := ErrImageMissing
	if !errors.Is(why, kind) {
		if kind = ErrRegistryUnreachable; !errors.Is(why, kind) {
			return why
		}
	}
	name, dgst := splitPinned(ref)
	if name == "" || dgst == "" {
		return why
	}
	img, err := r.find(ctx, name)
	if err != nil {
		return why
	}
	return &otherImageError{why, fmt.Sprintf("%s: image %s%s is %s, the revision wants %s; %s", kind, name, onNode(r.cfg.Node),
		short(img.Target().Digest.String()), short(dgst), strings.TrimPrefix(why.Error(), kind.Error()+": "))}
}

// otherImageError: the tag means another image on this node. It is also what kept the right
// one from being had.
type otherImageError struct {
	error
	text string
}

func (e *otherImageError) Error() string { return e.text }

func (e *otherImageError) Unwrap() error { return e.error }

// onNode says where; a node without a name is this one.
func onNode(node string) string { return " on " + orDefault(node, "this node") }

// short is a digest as people compare it.
func short(dgst string) string {
	const enough = len("sha256:") + 12
	return dgst[:min(len(dgst), enough)]
}

// unpack makes the image's snapshots, unless they are there.
func (r *Runtime) unpack(ctx context.Context, img client.Image) error {
	ok, err := img.IsUnpacked(ctx, r.cfg.Snapshotter)
	if err == nil && !ok {
		err = img.Unpack(ctx, r.cfg.Snapshotter)
	}
	if err != nil {
		return imageError(img.Name(), "unpack", err)
	}
	return nil
}

// imageError keeps a containerd that is away apart from an image that is bad.
func imageError(name, verb string, err error) error {
	if errdefs.IsUnavailable(err) || errdefs.IsCanceled(err) || errdefs.IsDeadlineExceeded(err) {
		return fmt.Errorf("%s image %s: %w", verb, name, err)
	}
	if errdefs.IsNotFound(err) {
		return fmt.Errorf("%w: %s image %s: parts of it are missing, or it has none for this platform: %w", ErrImageError, verb, name, err)
	}
	if noSpace(err) {
		return fmt.Errorf("%w: %w: %s image %s: the disk on which containerd keeps images is full: make room, or lower --image-gc-high", ErrImageError, ErrNoSpace, verb, name)
	}
	return fmt.Errorf("%w: %s image %s: %w", ErrImageError, verb, name, err)
}

// meta reads what the image holds, once per digest.
func (r *Runtime) meta(ctx context.Context, img client.Image) (imageMeta, error) {
	id := img.Target().Digest.String()
	r.mu.Lock()
	m, ok := r.metas[id]
	r.mu.Unlock()
	if ok {
		m.present = img
		return m, nil
	}
	desc, err := img.Config(ctx)
	if err != nil {
		return imageMeta{}, imageError(img.Name(), "read", err)
	}
	b, err := content.ReadBlob(ctx, img.ContentStore(), desc)
	if err != nil {
		return imageMeta{}, imageError(img.Name(), "read", err)
	}
	var spec struct {
		RootFS ocispec.RootFS `json:"rootfs"`
		Config struct {
			ocispec.ImageConfig
			Healthcheck *healthConfig
			Shell       []string
		} `json:"config"`
	}
	if err := json.Unmarshal(b, &spec); err != nil {
		return imageMeta{}, fmt.Errorf("%w: read image %s: its config: %w", ErrImageError, img.Name(), err)
	}
	m = imageMeta{id: id, parent: identity.ChainID(spec.RootFS.DiffIDs).String(), config: spec.Config.ImageConfig,
		health: healthcheckOf(spec.Config.Healthcheck, spec.Config.Shell), present: img}
	r.mu.Lock()
	r.metas[id] = m
	r.mu.Unlock()
	return m, nil
}
