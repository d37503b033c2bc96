package orchctl

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// sighting is one piece of news from a feed.
type sighting struct {
	news news
	o    object
	err  error
}

// feed merges what several watches tell.
type feed struct {
	ch   chan sighting
	n    int // watches
	done chan struct{}
}

// wait returns when every watch has ended; end their context first.
func (f *feed) wait() { <-f.done }

// all tells see what is there, until each watch has told all of it or enough comes;
// nil waits for all.
func (f *feed) all(ctx context.Context, enough <-chan time.Time, see func(sighting)) error {
	for left := f.n; left > 0; {
		select {
		case s := <-f.ch:
			switch {
			case s.err != nil:
				return s.err
			case s.news == synced:
				left--
			default:
				see(s)
			}
		case <-enough:
			return nil
		case <-ctx.Done():
			return errors.New("interrupted: nothing was sent to the controller")
		}
	}
	return nil
}

// listsOf are the objects of some kinds in some namespaces; of services and replicas
// where no kinds are named.
func listsOf(namespaces []string, kinds ...string) []*orchv1.ListRequest {
	if len(kinds) == 0 {
		kinds = []string{api.KindService, api.KindReplica}
	}
	var out []*orchv1.ListRequest
	for _, ns := range slices.Compact(slices.Sorted(slices.Values(namespaces))) {
		for _, kind := range kinds {
			out = append(out, &orchv1.ListRequest{Kind: kind, Namespace: ns})
		}
	}
	return out
}

// feed watches several lists.
func (t *tool) feed(ctx context.Context, client orchv1.OrchClient, lists []*orchv1.ListRequest) *feed {
	f := &feed{ch: make(chan sighting), n: len(lists), done: make(chan struct{})}
	ended := make(chan struct{})
	for _, list := range lists {
		go func() {
			defer func() { ended <- struct{}{} }()
			tell := func(s sighting) error {
				select {
				case f.ch <- s:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			}
			err := t.follow(ctx, client, list, func(n news, o object) error { return tell(sighting{n, o, nil}) })
			if ctx.Err() == nil {
				_ = tell(sighting{err: err})
			}
		}()
	}
	go func() {
		for range f.n {
			<-ended
		}
		close(f.done)
	}()
	return f
}
