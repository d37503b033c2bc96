package images

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
)

const (
	// lookEvery is how often it is looked for nodes that lack what was loaded.
	lookEvery = 5 * time.Second
	// againAfter is how soon an archive may be brought to the same node once more, doubled
	// with each time up to againMax: if what the node lacks is not in it, it helps nothing.
	againAfter = 5 * time.Minute
	againMax   = 12 * time.Hour
)

// Lack is an image that a node has not got, and wants.
type Lack struct{ Node, Ref string }

// Again brings nodes archives that they have cleaned away, or could not take up when they
// were offered, when they are needed. lacks tells what is wanted now, nodes which have a session.
// It returns when ctx ends, after its last goroutine.
func (s *Sender) Again(ctx context.Context, lacks func() []Lack, nodes func() map[string]*x509.Certificate) error {
	return s.again(ctx, lacks, nodes, s.bring)
}

func (s *Sender) again(ctx context.Context, lacks func() []Lack, nodes func() map[string]*x509.Certificate, bring func(context.Context, string, *x509.Certificate, []Image)) error {
	var bringing sync.WaitGroup
	defer bringing.Wait()
	past := &broughtAgain{}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if s.Shelf.empty() {
			continue
		}
		here := nodes()
		todo := map[string][]Image{}
		for _, l := range lacks() {
			if here[l.Node] == nil || s.isBusy(l.Node) {
				continue
			}
			for _, img := range s.Shelf.with(l.Ref) {
				if !slices.Contains(todo[l.Node], img) && past.may(l.Node, img, time.Now()) {
					todo[l.Node] = append(todo[l.Node], img)
				}
			}
		}
		for node, list := range todo {
			free := s.takeUp(node)
			bringing.Go(func() {
				defer free()
				bring(ctx, node, here[node], list)
			})
		}
	}
}

// Lacking lists what replicas wait for that their nodes have not got.
func Lacking(snap *view.Snapshot) []Lack {
	if snap == nil {
		return nil
	}
	var out []Lack
	snap.All(api.KindReplica, "", func(e core.Entry) bool {
		r := e.Object.(*api.Replica)
		if !lacks(r.Status.Reason) || r.Status.LastKnown {
			return true
		}
		o, ok := snap.Get(core.ViewKey{Kind: api.KindRevision, Namespace: r.Metadata.Namespace, Name: fmt.Sprintf("%s@%d", r.Spec.Service, r.Spec.Revision)})
		if !ok {
			return true
		}
		for _, spec := range o.(*api.Revision).Template.AllContainers() {
			waits := func(c api.ContainerStatus) bool { return c.Name == spec.Name && lacks(c.Reason) }
			if slices.ContainsFunc(r.Status.Containers, waits) {
				name, _, _ := strings.Cut(spec.Image, "@") // by its digest it is not known here
				out = append(out, Lack{r.Spec.Node, name})
			}
		}
		return true
	})
	return out
}

// lacks tells whether this is said of an image that is not there; its registry may be down.
func lacks(reason string) bool {
	return reason == api.ReasonImageMissing || reason == api.ReasonRegistryUnreachable
}

// broughtAgain remembers what was brought once more to whom; it is one goroutine's.
type broughtAgain struct {
	last map[broughtTo]brought
}

type broughtTo struct{ node, digest string }

type brought struct {
	at    time.Time
	pause time.Duration
}

// may tells whether an archive may be brought to a node now, and notes that it is.
func (b *broughtAgain) may(node string, img Image, now time.Time) bool {
	for k, x := range b.last { // it was of use, or nobody wants it any more
		if now.Sub(x.at) > 2*againMax {
			delete(b.last, k)
		}
	}
	k := broughtTo{node, img.Digest}
	x, was := b.last[k]
	if was && now.Sub(x.at) < x.pause {
		return false
	}
	if b.last == nil {
		b.last = map[broughtTo]brought{}
	}
	b.last[k] = brought{now, min(max(2*x.pause, againAfter), againMax)}
	return true
}

// bring sends archives one after the other.
func (s *Sender) bring(ctx context.Context, node string, cert *x509.Certificate, list []Image) {
	for _, img := range list {
		refs, err := s.Send(ctx, node, cert, img)
		if err != nil {
			s.Log.Warn("image not brought to node", "node", node, "image", img.Digest, "why", err)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		s.Log.Info("image brought to node", "node", node, "refs", refs)
	}
}

// takeUp has a node be brought something by one at a time, but for what is loaded just now.
func (s *Sender) takeUp(node string) (free func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy == nil {
		s.busy = map[string]int{}
	}
	s.busy[node]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.busy[node]--; s.busy[node] == 0 {
			delete(s.busy, node)
		}
	}
}

func (s *Sender) isBusy(node string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.busy[node] > 0
}

func (s *Shelf) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.notes) == 0
}

// with gives the archives with an image of that name, oldest first: the name means what the
// newest says.
func (s *Shelf) with(ref string) []Image {
	full := fullName(ref)
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(s.sorted(), func(i Image) bool { return !s.notes[i.Digest].has(full) })
}
