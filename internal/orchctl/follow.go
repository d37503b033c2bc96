package orchctl

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// news is one message of a followed list.
type news int

const (
	put    news = iota // there, or changed
	gone               // no longer there
	synced             // all that is there has been told
)

// follow keeps telling what a list holds until ctx ends or on answers an error,
// which follow returns. It outlives its connection: after a break it asks
// again, and tells as gone what went meanwhile.
func (t *tool) follow(ctx context.Context, client orchv1.OrchClient, list *orchv1.ListRequest, on func(news, object) error) error {
	f := &follower{known: map[string]object{}, on: on}
	wait, lastGood := backOffMin, t.Now()
	for {
		heard, err := f.once(ctx, client, list)
		if _, limited := ctx.Deadline(); limited && status.Code(err) == codes.DeadlineExceeded {
			<-ctx.Done() // the controller has the same deadline, and may be first to see it pass
		}
		switch {
		case f.stopped:
			return err
		case ctx.Err() != nil:
			return ctx.Err()
		case heard && status.Code(err) == codes.ResourceExhausted: // we were too slow: ask again
		case !transient(err) || (!heard && t.Now().Sub(lastGood)+wait > streamPatience):
			return t.failed(err, "watch "+words(list.GetKind()), viewer)
		}
		if heard {
			wait, lastGood = backOffMin, t.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait = min(2*wait, backOffMax)
	}
}

type follower struct {
	known   map[string]object
	on      func(news, object) error
	stopped bool // on answered an error
}

func (f *follower) tell(n news, o object) error {
	err := f.on(n, o)
	f.stopped = f.stopped || err != nil
	return err
}

// once follows one stream to its end; heard tells whether anything came.
func (f *follower) once(ctx context.Context, client orchv1.OrchClient, list *orchv1.ListRequest) (heard bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := client.Watch(ctx, &orchv1.WatchRequest{List: list})
	if err != nil {
		return false, err
	}
	fresh := map[string]bool{} // told by this stream before it was in step
	inStep := false
	for {
		ev, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // a watch has no end of its own
			}
			return heard, err
		}
		heard = true
		switch ev.GetType() {
		case orchv1.WatchEvent_SYNCED:
			inStep = true
			for key, o := range f.known {
				if !fresh[key] {
					delete(f.known, key)
					if err := f.tell(gone, o); err != nil {
						return heard, err
					}
				}
			}
			if err := f.tell(synced, object{}); err != nil {
				return heard, err
			}
		case orchv1.WatchEvent_PUT, orchv1.WatchEvent_GONE:
			o, err := decode(ev.GetObject())
			if err != nil {
				f.stopped = true
				return heard, err
			}
			if err := f.take(ev.GetType() == orchv1.WatchEvent_GONE, o, fresh, inStep); err != nil {
				return heard, err
			}
		}
	}
}

func (f *follower) take(isGone bool, o object, fresh map[string]bool, inStep bool) error {
	key := o.key()
	if isGone {
		if old, ok := f.known[key]; ok {
			o = old // a message of a departure need not carry the whole object
		}
		delete(f.known, key)
		return f.tell(gone, o)
	}
	if !inStep {
		fresh[key] = true
	}
	f.known[key] = o
	return f.tell(put, o)
}
