package images

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/orchctl/orch/internal/controller/session"
	"github.com/orchctl/orch/internal/pki"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// sendsMax is how many nodes are sent to at a time: more only share the
	// leader's link.
	sendsMax = 8
	// chunkBytes is one frame of an archive.
	chunkBytes = 256 << 10
	// stallDefault is how long an agent may take no frame before its turn is
	// given to others: a slow disk syncs a large layer in less.
	stallDefault = 5 * time.Minute
	// takeUpMax is how long it may unpack what it has got; agents give a pull as
	// much.
	takeUpMax = 30 * time.Minute
	// backMax is how long Deliver waits for a node whose session ended in the middle: a busy
	// one dials again within a second or two. After breaksMax such ends it gives up.
	backMax   = 5 * time.Second
	breaksMax = 3
	backEvery = 200 * time.Millisecond
	// reasonMax is how long a broken stream's reason is waited for.
	reasonMax = time.Second
)

// ErrRefusedByAgent: the agent read the archive and could not take it up.
var ErrRefusedByAgent = errors.New("the node could not load it")

// errStalled: the agent is there, and nothing moves.
var errStalled = errors.New("its agent takes nothing more")

// errBroken: the agent's session ended, or the agent did.
var errBroken = errors.New("the connection to its agent broke off; it gets the image when it is back")

// Relays opens relays to agents; see session.Server.
type Relays interface {
	Open(ctx context.Context, node string, what *orchv1.OpenRelay) (*session.Relay, error)
}

// Sender brings images to nodes.
type Sender struct {
	Shelf  *Shelf
	Relays func() Relays
	Log    *slog.Logger
	// Stall is how long an agent may take no frame; 0 means 5 minutes.
	Stall time.Duration

	slots chan struct{}

	mu   sync.Mutex
	busy map[string]int // nodes that are being brought what they lack
}

// NewSender makes a sender. relays is asked at each send: it may be made later.
func NewSender(s *Shelf, relays func() Relays, log *slog.Logger) *Sender {
	return &Sender{Shelf: s, Relays: relays, Log: log, slots: make(chan struct{}, sendsMax)}
}

// Deliver is Send for somebody who waits: where the node's session ends in the middle, it
// sends again to the next one, unless that was offered the image meanwhile.
func (s *Sender) Deliver(ctx context.Context, node string, cert *x509.Certificate, img Image) ([]string, error) {
	holder := pki.PublicKeyHash(cert)
	_, had := s.Shelf.refsAt(img, holder)
	tick := time.NewTicker(backEvery)
	defer tick.Stop()
	var back time.Time // when it is to be back at the latest; zero: nothing broke off yet
	for breaks := 0; ; {
		refs, err := s.Send(ctx, node, cert, img)
		switch {
		case errors.Is(err, errBroken):
			if breaks++; breaks == breaksMax {
				return nil, err
			}
			back = time.Now().Add(backMax)
		case errors.Is(err, session.ErrAway) && time.Now().Before(back):
		case errors.Is(err, session.ErrAway) && !back.IsZero():
			return nil, fmt.Errorf("send image to %s: %w", node, errBroken)
		default:
			return refs, err
		}
		for wait := true; wait; wait = s.isBusy(node) {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if refs, has := s.Shelf.refsAt(img, holder); has && !had {
			return refs, nil
		}
	}
}

// Send brings an image to a node and notes it; it gives the references that the
// archive holds. It waits for its turn.
func (s *Sender) Send(ctx context.Context, node string, cert *x509.Certificate, img Image) (refs []string, err error) {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the relay
	relay, err := s.Relays().Open(ctx, node, &orchv1.OpenRelay{Request: &orchv1.OpenRelay_Image{Image: &orchv1.ImageOpen{Name: img.Digest}}})
	if err != nil {
		return nil, err
	}
	defer relay.Close()
	// One node that hangs must not keep its turn for ever.
	var stalled atomic.Bool
	stall := cmp.Or(s.Stall, stallDefault)
	watch := time.AfterFunc(stall, func() { stalled.Store(true); relay.Close() })
	defer watch.Stop()
	fail := func(err error) ([]string, error) {
		if stalled.Load() {
			err = errStalled
		}
		return nil, fmt.Errorf("send image to %s: %w", node, err)
	}
	if err := s.stream(relay, img, func() { watch.Reset(stall) }); err != nil {
		// The agent may have ended it with a reason; that says more. Where the
		// archive could not be read it says nothing.
		defer time.AfterFunc(reasonMax, relay.Close).Stop()
		if _, why := await(relay); errors.Is(why, ErrRefusedByAgent) {
			err = why
		}
		return fail(err)
	}
	watch.Reset(takeUpMax)
	if refs, err = await(relay); err != nil {
		return fail(err)
	}
	return refs, s.Shelf.Note(img, pki.PublicKeyHash(cert), refs)
}

// stream sends the archive; moved is called after each frame.
func (s *Sender) stream(relay *session.Relay, img Image, moved func()) error {
	f, err := os.Open(s.Shelf.path(img.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, chunkBytes)
	for {
		n, err := f.Read(buf)
		if n > 0 {
			if relay.Send(&orchv1.Frame{Frame: &orchv1.Frame_Data{Data: buf[:n]}}) != nil {
				return errBroken
			}
			moved()
		}
		if err == io.EOF {
			if relay.Send(&orchv1.Frame{Frame: &orchv1.Frame_DataEnd{DataEnd: true}}) != nil {
				return errBroken
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func await(relay *session.Relay) ([]string, error) {
	for {
		f, err := relay.Recv()
		if err != nil { // io.EOF too: without a word
			return nil, errBroken
		}
		if end := f.GetEnd(); end != nil {
			if end.GetError() != "" {
				return nil, fmt.Errorf("%w: %s", ErrRefusedByAgent, end.GetError())
			}
			return end.GetRefs(), nil
		}
	}
}

// Offer brings a node whatever it has not got; it runs beside the node's session.
func (s *Sender) Offer(ctx context.Context, node string, cert *x509.Certificate) {
	defer s.takeUp(node)()
	s.bring(ctx, node, cert, s.Shelf.Missing(pki.PublicKeyHash(cert)))
}
