package images

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/controller/view"
	"github.com/orchctl/orch/internal/pki"
)

// TestAgain: a node that has cleaned away what was loaded gets it again when a replica waits
// for it, and not over and over where that does not help.
func TestAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shelf, err := Open(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		s := NewSender(shelf, nil, slog.New(slog.DiscardHandler))
		n1, n2 := &x509.Certificate{RawSubjectPublicKeyInfo: []byte("1")}, &x509.Certificate{RawSubjectPublicKeyInfo: []byte("2")}
		first, second, other := add(t, shelf, "first", 1), add(t, shelf, "second", 2), add(t, shelf, "other", 3)
		defer s.takeUp("n2")() // it is being offered what it has not got
		for img, ref := range map[Image]string{first: "web:1", second: "docker.io/library/web:1", other: "api:1"} {
			if err := shelf.Note(img, pki.PublicKeyHash(n1), []string{ref}); err != nil {
				t.Fatal(err)
			}
		}
		var mu sync.Mutex
		var told []string
		lacks := []Lack{{"n1", "web:1"}, {"n1", "web:1"}, {"n2", "api:1"}, {"n2", "web:2"}, {"n3", "web:1"}, {"n1", "unknown:1"}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		began := time.Now()
		go func() {
			done <- s.again(ctx, func() []Lack { return lacks }, func() map[string]*x509.Certificate { return map[string]*x509.Certificate{"n1": n1, "n2": n2} },
				func(_ context.Context, node string, _ *x509.Certificate, list []Image) {
					mu.Lock()
					told = append(told, fmt.Sprint(node, " ", slices.Equal(list, []Image{first, second}), " ", time.Since(began)))
					mu.Unlock()
					time.Sleep(time.Minute)
				})
		}()
		time.Sleep(time.Hour)
		synctest.Wait()
		mu.Lock()
		if want := []string{"n1 true 5s", "n1 true 5m5s", "n1 true 15m5s", "n1 true 35m5s"}; !slices.Equal(told, want) {
			t.Errorf("brought %q, want %q", told, want)
		}
		mu.Unlock()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestLacking(t *testing.T) {
	replica := func(slot int, reason, of string, last bool) core.Entry {
		r := &api.Replica{Metadata: api.Metadata{Namespace: "default", Name: fmt.Sprint("web-", slot)}, Spec: api.ReplicaSpec{Service: "web", Slot: slot, Revision: 2, Node: fmt.Sprint("n", slot)},
			Status: api.ReplicaStatus{Reason: reason, LastKnown: last, Containers: []api.ContainerStatus{{Name: of, Reason: reason}, {Name: "fine"}}}}
		return core.Entry{Key: core.ViewKey{Kind: api.KindReplica, Namespace: "default", Name: r.Metadata.Name}, Object: r}
	}
	v := view.New()
	v.Publish(core.Publish{Put: []core.Entry{
		{Key: core.ViewKey{Kind: api.KindRevision, Namespace: "default", Name: "web@2"}, Object: &api.Revision{Number: 2, Template: api.Template{
			InitContainers: []api.Container{{Name: "init", Image: "init:1@sha256:aa"}}, Containers: []api.Container{{Name: "main", Image: "web:2"}, {Name: "fine", Image: "fine:1"}}}}},
		replica(1, api.ReasonImageMissing, "main", false), replica(2, api.ReasonImageMissing, "init", false), replica(3, api.ReasonPulling, "main", false), replica(4, api.ReasonImageMissing, "main", true),
		replica(5, api.ReasonRegistryUnreachable, "main", false), replica(6, api.ReasonImageError, "main", false)}})
	if got, want := Lacking(v.Snapshot()), []Lack{{"n1", "web:2"}, {"n2", "init:1"}, {"n5", "web:2"}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got := Lacking(nil); got != nil {
		t.Errorf("a controller that does not lead knows of %v", got)
	}
}
