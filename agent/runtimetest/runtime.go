package runtimetest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/images"
	"github.com/orchctl/orch/api"
)

// eventsMax is how many events may wait for a subscriber; more are lost, and it
// is told that it has to list.
const eventsMax = 64

// Runtime is a containerd with its containers. Make it with New.
type Runtime struct {
	mu         sync.Mutex
	containers map[string]*ctrd.Observed
	specs      map[string]ctrd.ContainerSpec
	images     map[string]bool
	digests    map[string]string            // by reference, where Retag said so
	health     map[string]*ctrd.Healthcheck // by reference
	calls      []string                     // that change something
	events     map[chan ctrd.Event]bool
	down       error
	leases     map[string]ctrd.Lease
	leaseErr   error
	bootTime   func() time.Duration
	registry   func(w ctrd.ImageWant, progress func(ctrd.Progress)) error
	disk       images.Disk
	exec       func(id string, e ctrd.ExecSpec) (int, error)
}

// New makes a runtime without containers that has these images.
func New(images ...string) *Runtime {
	r := &Runtime{containers: map[string]*ctrd.Observed{}, specs: map[string]ctrd.ContainerSpec{}, images: map[string]bool{}, digests: map[string]string{}, health: map[string]*ctrd.Healthcheck{},
		events: map[chan ctrd.Event]bool{}, leases: map[string]ctrd.Lease{}}
	for _, ref := range images {
		r.images[ref] = true
	}
	return r
}

// OnExec replaces what commands in containers do: by default they echo their
// input and end with the code 7.
func (r *Runtime) OnExec(f func(id string, e ctrd.ExecSpec) (int, error)) { r.exec = f }

// SetBootTime is what leases are measured by; to be called before any.
func (r *Runtime) SetBootTime(f func() time.Duration) { r.bootTime = f }

// SetLeaseErr makes SetLease fail with err; nil ends that.
func (r *Runtime) SetLeaseErr(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leaseErr = err
}

// LeaseOf is the lease that a container's watchdog has; zero without one.
func (r *Runtime) LeaseOf(id string) ctrd.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leases[id]
}

func (r *Runtime) note(format string, args ...any) {
	r.calls = append(r.calls, fmt.Sprintf(format, args...))
}

// Note adds to what Took gives, as for a command that OnExec carries out.
func (r *Runtime) Note(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note(format, args...)
}

// Took gives the calls since the last Took.
func (r *Runtime) Took() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

// IDs of all containers, those that ended too.
func (r *Runtime) IDs() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Sorted(maps.Keys(r.containers))
}

// All gives the containers by id.
func (r *Runtime) All() []ctrd.Observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all()
}

func (r *Runtime) all() []ctrd.Observed {
	var out []ctrd.Observed
	for _, id := range slices.Sorted(maps.Keys(r.containers)) {
		out = append(out, *r.containers[id])
	}
	return out
}

// Get gives one container.
func (r *Runtime) Get(id string) (ctrd.Observed, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o := r.containers[id]; o != nil {
		return *o, true
	}
	return ctrd.Observed{}, false
}

// SpecOf is what a container was made from.
func (r *Runtime) SpecOf(id string) ctrd.ContainerSpec {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.specs[id]
}

// SetDown makes Ping and List fail with err; nil ends that.
func (r *Runtime) SetDown(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.down = err
}

// AddImage brings an image to the node.
func (r *Runtime) AddImage(ref string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[ref] = true
}

// Retag makes a reference on this node mean another image; see DigestOf.
func (r *Runtime) Retag(ref, digest string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.images[ref], r.digests[ref] = true, digest
}

// SetHealthcheck gives an image a HEALTHCHECK.
func (r *Runtime) SetHealthcheck(ref string, h *ctrd.Healthcheck) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.health[ref] = h
}

// DigestOf is the digest of the image that a reference means unless Retag said
// otherwise, the same on every node.
func DigestOf(ref string) string {
	sum := sha256.Sum256([]byte(ref))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func (r *Runtime) digest(ref string) string {
	if d, ok := r.digests[ref]; ok {
		return d
	}
	return DigestOf(ref)
}

// Exit ends a container's process with a code, by itself.
func (r *Runtime) Exit(id string, code int) {
	r.End(id, api.Exit{Code: code, Reason: api.ExitError})
}

// End ends a container's process and tells the subscribers; false: it did not run.
func (r *Runtime) End(id string, how api.Exit) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end(id, how)
}

func (r *Runtime) end(id string, how api.Exit) bool {
	o := r.containers[id]
	if o == nil || !o.Running {
		return false
	}
	how.FinishedAt = time.Now()
	o.Running, o.Exit = false, &how
	for ch := range r.events {
		select {
		case ch <- ctrd.Exited{ID: id, Exit: how}:
		default: // its reader is stuck: an agent that is killed, as like as not
		}
	}
	return true
}

// PowerLost ends everything without a word to anybody.
func (r *Runtime) PowerLost() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.containers {
		if o.Running {
			o.Running, o.Exit = false, &api.Exit{Code: 255, Reason: api.ExitError, Message: "lost with its supervisor", FinishedAt: time.Now()}
		}
	}
	clear(r.events)
}

// Ping implements agent.Runtime, as do the methods below.
func (r *Runtime) Ping(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.down
}

// List gives the containers by id.
func (r *Runtime) List(context.Context) ([]ctrd.Observed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.all(), r.down
}

// Events begin with Reconnected.
func (r *Runtime) Events(ctx context.Context) <-chan ctrd.Event {
	in, out := make(chan ctrd.Event, eventsMax), make(chan ctrd.Event)
	in <- ctrd.Reconnected{}
	r.mu.Lock()
	r.events[in] = true
	r.mu.Unlock()
	go func() {
		defer close(out)
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			delete(r.events, in)
		}()
		for {
			select {
			case <-ctx.Done():
				return
			case e := <-in:
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return out
}

// Reconnect has the subscribers look anew.
func (r *Runtime) Reconnect() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ch := range r.events {
		select {
		case ch <- ctrd.Reconnected{}:
		default:
		}
	}
}

// Resolve gives the digest of an image that was brought.
func (r *Runtime) Resolve(_ context.Context, w ctrd.ImageWant) (string, error) {
	ref := w.Ref
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.images[ref] {
		return "", fmt.Errorf("%w: %s is not on this node", ctrd.ErrImageMissing, ref)
	}
	return r.digest(ref), nil
}

// EnsureImage knows the images that were brought; one that is wanted by its digest has
// to be that one.
func (r *Runtime) EnsureImage(_ context.Context, w ctrd.ImageWant, progress func(ctrd.Progress)) (ctrd.ImageInfo, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.registry != nil && !w.Never {
		if err := r.registry(w, progress); err != nil {
			return ctrd.ImageInfo{}, err
		}
	}
	ref := w.Ref
	name, digest, pinned := strings.Cut(ref, "@")
	switch {
	case r.images[ref]:
	case pinned && r.images[name] && r.digest(name) == digest:
	case pinned && r.images[name]:
		return ctrd.ImageInfo{}, fmt.Errorf("%w: image %s is %s, the revision wants %s", ctrd.ErrImageMissing, name, r.digest(name), digest)
	default:
		return ctrd.ImageInfo{}, fmt.Errorf("%w: %s is not on this node", ctrd.ErrImageMissing, ref)
	}
	if pinned {
		return ctrd.ImageInfo{ID: digest, Ref: ref}, nil
	}
	return ctrd.ImageInfo{ID: "sha256:" + ref, Ref: ref}, nil
}

// ImportImage takes an archive that holds nothing but its reference.
func (r *Runtime) ImportImage(_ context.Context, archive io.Reader) ([]string, error) {
	b, err := io.ReadAll(archive)
	if err != nil {
		return nil, err
	}
	r.AddImage(string(b))
	return []string{string(b)}, nil
}

// Start gives a container that is there as it is.
func (r *Runtime) Start(_ context.Context, s ctrd.ContainerSpec) (ctrd.Observed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	id := s.ID()
	if s.Lease != nil && s.Lease.Term <= r.bootTime() {
		r.note("refuse %s", id)
		return ctrd.Observed{}, fmt.Errorf("start %s: %w", id, ctrd.ErrLeaseOver)
	}
	r.note("start %s", id)
	o := r.containers[id]
	if o == nil {
		o = &ctrd.Observed{ID: id, Replica: s.Replica, Container: s.Container.Name, Revision: s.Revision, Incarnation: s.Incarnation, Attempt: s.Attempt,
			SpecHash: s.SpecHash, ImageID: s.ImageID, NetNS: s.NetNS, IP: s.IP, Grace: s.Grace, Running: true, StartedAt: time.Now()}
		image, _, _ := strings.Cut(s.Container.Image, "@")
		o.Healthcheck = r.health[image]
		r.containers[id] = o
		r.specs[id] = s
		if s.Lease != nil {
			o.Leased = true
			r.leases[id] = *s.Lease
		}
	}
	return *o, nil
}

// SetLease never shortens one.
func (r *Runtime) SetLease(_ context.Context, id string, l ctrd.Lease) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	o, had := r.containers[id], r.leases[id]
	if o == nil || !o.Leased {
		return fmt.Errorf("set lease of %s: %w", id, ctrd.ErrNotFound)
	}
	if r.leaseErr == nil && l.Kill > had.Kill {
		r.leases[id] = l
	}
	return r.leaseErr
}

// Stop ends it at once.
func (r *Runtime) Stop(_ context.Context, id string, _ time.Duration, why string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("stop %s", id)
	r.end(id, api.Exit{Code: 143, Signal: 15, Reason: exitKilled, Message: why})
	return nil
}

// exitKilled is how the runtime calls an end that it was asked for.
const exitKilled = "Killed"

// Remove removes it, running or not.
func (r *Runtime) Remove(_ context.Context, id string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.note("remove %s", id)
	delete(r.containers, id)
	delete(r.leases, id)
	delete(r.specs, id)
	return nil
}

// Exec runs what OnExec says. To attach is refused where the manifest does not say stdin,
// and looks like a command of that name otherwise.
func (r *Runtime) Exec(_ context.Context, id string, e ctrd.ExecSpec) (int, error) {
	if e.Attach {
		if !r.SpecOf(id).Container.Stdin {
			return -1, fmt.Errorf("exec in %s: %w", id, ctrd.ErrNoAttach)
		}
		e.Args = []string{"attach"}
	}
	if r.exec != nil {
		return r.exec(id, e)
	}
	if _, err := fmt.Fprintf(e.Stdout, "%s in %s: ", e.Args[0], id); err != nil {
		return -1, err
	}
	if e.Stdin != nil {
		if _, err := io.Copy(e.Stdout, e.Stdin); err != nil {
			return -1, err
		}
	}
	return 7, nil
}
