package agent

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/netdev"
	"github.com/orchctl/orch/api"
)

// fakeRuntime is a containerd that outlives agents. Nothing in it takes time.
type fakeRuntime struct {
	mu         sync.Mutex
	containers map[string]*ctrd.Observed
	images     map[string]bool
	calls      []string // that change something
	events     []chan ctrd.Event
	down       error
	leases     map[string]ctrd.Lease
	bootTime   func() time.Duration
	leaseErr   error
}

func newFakeRuntime() *fakeRuntime {
	return &fakeRuntime{containers: map[string]*ctrd.Observed{}, images: map[string]bool{"web:1": true}, leases: map[string]ctrd.Lease{}}
}

func (f *fakeRuntime) note(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// took gives the calls since the last took.
func (f *fakeRuntime) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fakeRuntime) ids() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.containers))
}

// exit ends a container's process.
func (f *fakeRuntime) exit(id string, code int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o := f.containers[id]
	o.Running, o.Exit = false, &api.Exit{Code: code, Reason: api.ExitError, FinishedAt: time.Now()}
	for _, ch := range f.events {
		ch <- ctrd.Exited{ID: id, Exit: *o.Exit}
	}
}

func (f *fakeRuntime) Ping(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.down
}

func (f *fakeRuntime) List(context.Context) ([]ctrd.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []ctrd.Observed
	for _, id := range slices.Sorted(maps.Keys(f.containers)) {
		out = append(out, *f.containers[id])
	}
	return out, f.down
}

func (f *fakeRuntime) Events(ctx context.Context) <-chan ctrd.Event {
	in, out := make(chan ctrd.Event, 64), make(chan ctrd.Event)
	in <- ctrd.Reconnected{}
	f.mu.Lock()
	f.events = append(f.events, in)
	f.mu.Unlock()
	go func() {
		defer close(out)
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

func (f *fakeRuntime) EnsureImage(_ context.Context, ref string, progress func(string)) (ctrd.ImageInfo, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.images[ref] {
		return ctrd.ImageInfo{}, fmt.Errorf("%w: %s is not on this node", ctrd.ErrImageMissing, ref)
	}
	return ctrd.ImageInfo{ID: "sha256:" + ref, Ref: ref}, nil
}

func (f *fakeRuntime) ImportImage(_ context.Context, r io.Reader) ([]string, error) {
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.images[string(b)] = true
	return []string{string(b)}, nil
}

func (f *fakeRuntime) Start(_ context.Context, s ctrd.ContainerSpec) (ctrd.Observed, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	id := s.ID()
	if s.Lease != nil && s.Lease.Term <= f.bootTime() {
		f.note("refuse %s", id)
		return ctrd.Observed{}, fmt.Errorf("start %s: %w", id, ctrd.ErrLeaseOver)
	}
	f.note("start %s", id)
	o := f.containers[id]
	if o == nil {
		o = &ctrd.Observed{ID: id, Replica: s.Replica, Container: s.Container.Name, Revision: s.Revision, Incarnation: s.Incarnation, Attempt: s.Attempt,
			SpecHash: s.SpecHash, ImageID: s.ImageID, NetNS: s.NetNS, IP: s.IP, Grace: s.Grace, Running: true, StartedAt: time.Now()}
		f.containers[id] = o
		if s.Lease != nil {
			o.Leased = true
			f.leases[id] = *s.Lease
		}
	}
	return *o, nil
}

// SetLease never shortens one.
func (f *fakeRuntime) SetLease(_ context.Context, id string, l ctrd.Lease) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, had := f.containers[id], f.leases[id]
	if o == nil || !o.Leased {
		return fmt.Errorf("set lease of %s: %w", id, ctrd.ErrNotFound)
	}
	if f.leaseErr == nil && l.Kill > had.Kill {
		f.leases[id] = l
	}
	return f.leaseErr
}

func (f *fakeRuntime) setLeaseErr(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leaseErr = err
}

func (f *fakeRuntime) leaseOf(id string) ctrd.Lease {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.leases[id]
}

func (f *fakeRuntime) Stop(_ context.Context, id string, grace time.Duration, why string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("stop %s", id)
	if o := f.containers[id]; o != nil {
		o.Running, o.Exit = false, &api.Exit{Code: 143, Signal: 15, Reason: "Killed", FinishedAt: time.Now()}
	}
	return nil
}

func (f *fakeRuntime) Remove(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.note("remove %s", id)
	delete(f.containers, id)
	return nil
}

// Exec echoes its input and ends with the code 7.
func (f *fakeRuntime) Exec(_ context.Context, id string, e ctrd.ExecSpec) (int, error) {
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

// fakeNetwork gives every replica an address.
type fakeNetwork struct {
	mu   sync.Mutex
	have map[api.ReplicaKey]netip.Addr
	next netip.Addr
}

func newFakeNetwork() *fakeNetwork {
	return &fakeNetwork{have: map[api.ReplicaKey]netip.Addr{}, next: netip.MustParseAddr("127.0.0.1")}
}

func (f *fakeNetwork) Setup(_ context.Context, key api.ReplicaKey, _ []netdev.PortMapping) (netdev.Attachment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, ok := f.have[key]; !ok {
		f.have[key] = f.next
	}
	return netdev.Attachment{NetNS: "/run/" + key.Name(), IP: f.have[key]}, nil
}

func (f *fakeNetwork) Teardown(_ context.Context, key api.ReplicaKey) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.have, key)
	return nil
}

func (f *fakeNetwork) Prune(_ context.Context, keep func(api.ReplicaKey) bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.have, func(k api.ReplicaKey, _ netip.Addr) bool { return !keep(k) })
	return nil
}

func (f *fakeNetwork) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.have)
}
