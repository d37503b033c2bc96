package ctrd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/semaphore"

	"github.com/orchctl/orch/internal/registry"
)

// The limits of pulling.
const (
	maxPulls      = 3                      // images at once, if nothing is said: more only share one line
	pullLayers    = 3                      // layers fetched at once, per image
	progressEvery = 500 * time.Millisecond // between two reports
	pullMax       = time.Hour              // a pull that nobody waits for any more ends, too
)

// Progress is how far the pull of one image is.
type Progress struct {
	// Done and Total are the image's own bytes as they are fetched; Total 0: not known yet.
	Done, Total int64
	// Waits: for other pulls; nothing is fetched yet.
	Waits bool
	// Message says it in words.
	Message string
}

// pull fetches the image from its registry.
func (r *Runtime) pull(ctx context.Context, w ImageWant, progress func(Progress)) (client.Image, error) {
	full, err := normalize(w.Ref)
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(Progress) {}
	}
	p, first := r.pullOf(full)
	if first {
		// The shared pull must not end with the first caller's context.
		shared, cancel := context.WithTimeout(context.WithoutCancel(ctx), pullMax)
		go func() {
			defer cancel()
			img, err := r.fetch(shared, p, w.Logins)
			r.pullOver(p, img, err)
		}()
	}
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	told := Progress{Message: "pulling " + p.name}
	progress(told)
	for {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("pull %s: %w", full, ctx.Err())
		case <-p.over:
			return p.img, p.err
		case <-tick.C:
			if now := p.progress(ctx, r.client.ContentStore()); now != told && now.Message != "" {
				told = now
				progress(now)
			}
		}
	}
}

// pulling is one pull under way, as those see it who wait for it.
type pulling struct {
	full, name string // name is as people write it
	mu         sync.Mutex
	parts      map[string]part // by the key of its ingest
	waits      int             // for so many other pulls

	over chan struct{} // closed when img and err are set
	img  client.Image
	err  error
}

type part struct {
	size int64
	done bool
}

// pullOf gives the pull of a reference, which may be under way; first: it is not, and the
// caller begins it.
func (r *Runtime) pullOf(full string) (p *pulling, first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p := r.pullsNow[full]; p != nil {
		return p, false
	}
	p = &pulling{over: make(chan struct{}), full: full, name: reference.FamiliarString(mustNamed(full)), parts: map[string]part{}}
	if name, dgst := splitPinned(p.name); dgst != "" {
		p.name = name + "@" + short(dgst)
	}
	if r.pullsNow == nil {
		r.pullsNow = map[string]*pulling{}
	}
	r.pullsNow[full] = p
	return p, true
}

// pullOver ends a pull for all who wait; who comes later begins another. It is one step: a
// pull that were listed and that nobody carries out would keep its image for ever.
func (r *Runtime) pullOver(p *pulling, img client.Image, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.pullsNow, p.full)
	p.img, p.err = img, err
	close(p.over)
}

// Pulling gives the full references of the images that are being pulled.
func (r *Runtime) Pulling() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.pullsNow))
}

// fetch takes its turn, and pulls.
func (r *Runtime) fetch(ctx context.Context, p *pulling, logins []registry.Login) (client.Image, error) {
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	if err := r.turns.take(ctx, tick.C, p.waitsFor); err != nil {
		return nil, fmt.Errorf("pull %s: %w", p.full, err)
	}
	defer r.turns.give()
	p.waitsFor(0)
	held, err := r.holdParts(ctx, p.full)
	if err != nil {
		return nil, pullError(p.full, err)
	}
	img, err := r.transfer(held, p, logins)
	own := func(full string) bool { return full == p.full }
	if err == nil {
		r.letGo(ctx, own)
		return img, nil
	}
	if useless(err) {
		r.abortParts(ctx, p)
		r.letGo(ctx, own)
	}
	if noSpace(err) {
		r.letGoIdle(ctx)
	}
	return nil, pullError(p.full, err)
}

// transfer has containerd fetch the image and unpack it.
func (r *Runtime) transfer(ctx context.Context, p *pulling, logins []registry.Login) (client.Image, error) {
	began := time.Now()
	img, err := r.client.Pull(ctx, p.full, client.WithPullUnpack,
		client.WithPullSnapshotter(r.cfg.Snapshotter),
		client.WithResolver(r.registries.Resolver(logins)),
		client.WithImageHandlerWrapper(func(h images.Handler) images.Handler { return r.watched(p, h) }))
	if err != nil {
		r.cfg.Counts.Pulled(pullOutcome(err), 0, time.Since(began))
		return nil, err
	}
	r.cfg.Counts.Pulled("ok", p.size(), time.Since(began))
	r.use(img.Target().Digest.String())
	return img, nil
}

// pullOutcome is why a pull failed, in a word.
func pullOutcome(err error) string {
	switch {
	case errors.Is(err, registry.ErrMissing):
		return "missing"
	case errors.Is(err, registry.ErrDenied):
		return "denied"
	case errors.Is(err, registry.ErrUnreachable):
		return "unreachable"
	}
	return "error"
}

// size of all parts, in bytes.
func (p *pulling) size() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, x := range p.parts {
		n += x.size
	}
	return n
}

// watched notes an image's parts as they are met, and refuses one for other platforms before
// its layers are fetched.
func (r *Runtime) watched(p *pulling, h images.Handler) images.Handler {
	store, layers := r.client.ContentStore(), semaphore.NewWeighted(pullLayers)
	read := func(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
		return content.ReadBlob(ctx, store, d)
	}
	fits := func(ctx context.Context, d ocispec.Descriptor) error {
		built, err := registry.Platforms(ctx, d, read)
		if err != nil {
			return nil // who fetches it says what is wrong
		}
		return wrongPlatform(p.name, built)
	}
	return images.HandlerFunc(func(ctx context.Context, d ocispec.Descriptor) ([]ocispec.Descriptor, error) {
		if err := readable(p.name, d); err != nil {
			return nil, err
		}
		key := remotes.MakeRefKey(ctx, d)
		p.note(key, d.Size, false)
		if images.IsLayerType(d.MediaType) { // the library fetches all at once
			if err := layers.Acquire(ctx, 1); err != nil {
				return nil, err
			}
			defer layers.Release(1)
		}
		children, err := h.Handle(ctx, d)
		switch {
		case images.IsIndexType(d.MediaType):
			if wrong := fits(ctx, d); wrong != nil { // the library says only that nothing was found
				return nil, wrong
			}
		case err == nil && images.IsManifestType(d.MediaType):
			for _, c := range children {
				p.note(remotes.MakeRefKey(ctx, c), c.Size, false)
				if !images.IsConfigType(c.MediaType) {
					continue
				}
				if err := readable(p.name, c); err != nil {
					return nil, err
				}
				if _, err := h.Handle(ctx, c); err != nil { // before the layers: it says for which platform they are
					return nil, err
				}
			}
			if wrong := fits(ctx, d); wrong != nil {
				return nil, wrong
			}
		}
		if err != nil {
			return nil, err
		}
		p.note(key, d.Size, true)
		return children, nil
	})
}

// tooLargeError: what is read as a whole, into memory, is not what a registry says it is.
type tooLargeError struct {
	name string
	size int64
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("image %s has a manifest or config of %d bytes, at most %d are read: it is broken, or meant to do harm", e.name, e.size, registry.ManifestMax)
}

// readable refuses what is too large to be read as a whole.
func readable(name string, d ocispec.Descriptor) error {
	whole := images.IsIndexType(d.MediaType) || images.IsManifestType(d.MediaType) || images.IsConfigType(d.MediaType)
	if whole && (d.Size < 0 || d.Size > registry.ManifestMax) {
		return &tooLargeError{name, d.Size}
	}
	return nil
}

// platformError: the image is for others.
type platformError struct{ words string }

func (e *platformError) Error() string { return e.words }

// wrongPlatform says that an image for these platforms cannot run here; nil: it can, or
// nobody said what it is for.
func wrongPlatform(name string, built []string) error {
	if len(built) == 0 {
		return nil
	}
	here := platforms.Default()
	arch := ""
	for _, b := range built {
		p, err := platforms.Parse(b)
		if err != nil || here.Match(p) {
			return nil
		}
		if arch == "" {
			arch = p.Architecture
		}
	}
	own := platforms.DefaultSpec()
	return &platformError{fmt.Sprintf("image %s is for %s, this node is %s/%s: build it for that, or say nodeSelector orch/arch: %s",
		name, strings.Join(built, ", "), own.OS, own.Architecture, arch)}
}

func (p *pulling) note(key string, size int64, done bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.parts[key] = part{size: size, done: done || p.parts[key].done}
}

func (p *pulling) waitsFor(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waits = n
}

// progress adds up what there is of the image's parts.
func (p *pulling) progress(ctx context.Context, store content.Store) Progress {
	p.mu.Lock()
	waits, parts := p.waits, maps.Clone(p.parts)
	p.mu.Unlock()
	if waits > 0 {
		return Progress{Waits: true, Message: fmt.Sprintf("waiting for %d other %s before %s", waits, plural(waits, "pull"), p.name)}
	}
	if len(parts) == 0 {
		return Progress{}
	}
	statuses, err := store.ListStatuses(ctx)
	if err != nil {
		return Progress{}
	}
	offsets := map[string]int64{}
	for _, s := range statuses {
		offsets[s.Ref] = s.Offset
	}
	var out Progress
	left := 0
	for key, x := range parts {
		out.Total += x.size
		if x.done {
			out.Done += x.size
		} else {
			out.Done += min(offsets[key], x.size)
			left++
		}
	}
	out.Message = fmt.Sprintf("pulling %s: %s of %s", p.name, mib(out.Done), mib(out.Total)+" MiB")
	if left == 0 {
		out.Message = fmt.Sprintf("pulling %s: unpacking %s MiB", p.name, mib(out.Total))
	}
	return out
}

// mib is bytes in MiB: small ones with a digit, so that something moves.
func mib(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.1f", float64(n)/(1<<20))
	}
	return fmt.Sprint(n >> 20)
}

func plural(n int, word string) string {
	if n == 1 {
		return word
	}
	return word + "s"
}

func wrongBytes(err error) bool {
	return errdefs.IsFailedPrecondition(err) || strings.Contains(err.Error(), "unexpected commit") || strings.Contains(err.Error(), "failed size validation")
}

func noSpace(err error) bool {
	return strings.Contains(err.Error(), "no space left on device") || strings.Contains(err.Error(), "disk quota exceeded")
}

// nowhere tells whether a registry's no is for good: a rollout is taken back for that, and
// not for a registry that is down.
func nowhere(said *registry.Error) bool {
	return errors.Is(said, registry.ErrMissing) || errors.Is(said, registry.ErrDenied) || errors.Is(said, registry.ErrUnknownHost)
}

// pullError says whether the image is missing or something is wrong with it.
func pullError(full string, err error) error {
	host := reference.Domain(mustNamed(full))
	var said *registry.Error
	var platform *platformError
	var large *tooLargeError
	switch {
	case errors.As(err, &large):
		return fmt.Errorf("%w: %w", ErrImageError, large)
	case errors.As(err, &platform):
		return fmt.Errorf("%w: %w", ErrImageError, platform)
	case noSpace(err):
		return fmt.Errorf("%w: %w: pull %s: the disk on which containerd keeps images is full: make room, or lower --image-gc-high", ErrImageError, ErrNoSpace, full)
	case errors.As(err, &said) && nowhere(said):
		return fmt.Errorf("%w: %s is not on this node, and %w", ErrImageMissing, full, said)
	case errors.As(err, &said) && errors.Is(said, registry.ErrUnreachable):
		return fmt.Errorf("%w: %s is not on this node, and %w", ErrRegistryUnreachable, full, said)
	case errors.As(err, &said):
		return fmt.Errorf("%w: pull %s: %w", ErrImageError, full, said)
	case errors.Is(err, io.ErrUnexpectedEOF) || strings.Contains(err.Error(), "short read"):
		return fmt.Errorf("%w: pull %s: registry %s ended in the middle of a layer, again and again: what came is kept, and the next try goes on from there", ErrImageError, full, host)
	case wrongBytes(err):
		return fmt.Errorf("%w: pull %s: registry %s gives other bytes than their digest says, or too few (%s): it, or something on the way to it, is broken; push the image anew", ErrImageError, full, host, mismatch(err))
	}
	return fmt.Errorf("%w: pull %s: %w", ErrImageError, full, err)
}

// mismatch leaves the digests of the library's words.
func mismatch(err error) string {
	text := err.Error()
	if i := strings.Index(text, "unexpected commit"); i >= 0 {
		text = text[i:]
	}
	return strings.TrimSuffix(text, ": failed precondition")
}

func mustNamed(full string) reference.Named {
	named, err := reference.ParseDockerRef(full)
	if err != nil {
		panic(err) // full came from normalize
	}
	return named
}
