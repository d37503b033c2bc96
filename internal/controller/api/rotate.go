package api

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/orchctl/orch/internal/controller/core"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

const (
	// resealList is how many versions are asked of the leader at once, and resealBytes
	// how much ciphertext is put back in one transaction: half of the smallest one that a
	// store takes. A larger version goes alone.
	resealList, resealBytes = 64, 512 << 10
	// resealTries is how often one version may come back before that is a fault of ours:
	// it may be changed in between.
	resealTries = 3
	// unreadNamed is how many secrets that cannot be read an answer names; the log has
	// all.
	unreadNamed = 5
)

// RotateSecretKey implements orch.v1.Orch. The old key stays in the file until nothing is
// sealed by it: after a crash, saying it again goes on where it was cut short, with the
// key that was new then.
func (s *Server) RotateSecretKey(ctx context.Context, _ *orchv1.RotateSecretKeyRequest) (*orchv1.RotateSecretKeyResponse, error) {
	s.rotating.Lock()
	defer s.rotating.Unlock()
	ring := s.cfg.Secrets
	if err := ring.Reread(); err != nil { // keys that the last refusal asked for may be there
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	var done resealed
	var err error
	if len(ring.IDs()) > 1 {
		if done, err = s.reseal(ctx); err != nil {
			return nil, err
		}
	}
	if done.count == 0 {
		id, err := ring.Rotate(time.Now())
		if err != nil {
			return nil, status.Error(codes.FailedPrecondition, err.Error())
		}
		s.cfg.Log.Info("there is a new key for secrets", "key", id, "by", callerName(ctx))
		if done, err = s.reseal(ctx); err != nil {
			return nil, err
		}
	}
	s.cfg.Log.Info("secrets are encrypted anew", "key", ring.Newest(), "versions", done.count, "unread", len(done.unread), "by", callerName(ctx))
	if n := len(done.unread); n > 0 {
		return nil, status.Error(codes.FailedPrecondition, fmt.Sprintf("key %s encrypts secrets now, and %d versions were encrypted anew, but %d could not be read: %s: put the keys that they need back into %s on the controller, or apply these secrets again; then rotate again",
			ring.Newest(), done.count, n, named(done.unread), ring.Path()))
	}
	return &orchv1.RotateSecretKeyResponse{Key: ring.Newest(), Versions: int32(done.count)}, nil
}

// named lists the first few.
func named(list []core.Sealed) string {
	out := ""
	for i, x := range list[:min(len(list), unreadNamed)] {
		if i > 0 {
			out += ", "
		}
		out += x.Version.String()
	}
	if len(list) > unreadNamed {
		out += ", ..."
	}
	return out
}

// useNewestKey lets Secrets be sealed until done is called. A rotation that was cut
// short is brought to its end first: beside versions of an older key, values that did not
// change would look as if they had.
func (s *Server) useNewestKey(ctx context.Context) (done func(), err error) {
	ring := s.cfg.Secrets
	for {
		s.rotating.RLock()
		if len(ring.IDs()) == 1 || s.rotated == ring.Newest() {
			return s.rotating.RUnlock, nil
		}
		s.rotating.RUnlock()
		s.rotating.Lock()
		_, err := s.reseal(ctx)
		s.rotating.Unlock()
		if err != nil {
			return nil, err
		}
	}
}

// resealed is what a pass over all versions came to.
type resealed struct {
	count  int           // sealed anew
	unread []core.Sealed // cannot be read, and stay as they are
}

// reseal seals by the newest key all that another sealed, and takes the keys out of the
// file that nothing needs any more. The caller holds rotating.
func (s *Server) reseal(ctx context.Context) (done resealed, err error) {
	ring := s.cfg.Secrets
	newest, tries := ring.Newest(), map[wire.ConfigKey]int{}
	for more := true; more; {
		// Those that cannot be read stay in the list, before others that can.
		most := resealList + len(done.unread)
		list, _, err := ask[[]core.Sealed](ctx, s, func(ticket uint64) core.Event {
			return core.ListSealed{Ticket: ticket, Except: newest, Max: most}
		})
		if err != nil {
			return done, err
		}
		var anew []core.Sealed
		done.unread = nil
		for _, x := range list {
			sealed, err := ring.Reseal(x.Version.Of().Key, x.Payload)
			if err != nil {
				done.unread = append(done.unread, x)
				continue
			}
			if tries[x.Version]++; tries[x.Version] > resealTries {
				return done, status.Error(codes.Internal, fmt.Sprintf("%s cannot be encrypted anew", x.Version))
			}
			anew = append(anew, core.Sealed{Version: x.Version, Payload: sealed.Payload, SealedBy: sealed.By, Digest: sealed.Digest})
		}
		for _, batch := range batches(anew) {
			if _, _, err := ask[any](ctx, s, func(ticket uint64) core.Event { return core.Reseal{Ticket: ticket, Secrets: batch} }); err != nil {
				return done, err
			}
			done.count += len(batch)
		}
		more = len(anew) > 0 || len(list) >= most
	}
	var keep []string
	for _, x := range done.unread {
		keep = append(keep, x.SealedBy)
		s.cfg.Log.Error("a secret cannot be read, and is not encrypted anew", "secret", x.Version.String(), "key", x.SealedBy, "file", ring.Path())
	}
	if err := ring.Retire(keep...); err != nil {
		return done, status.Error(codes.Internal, err.Error())
	}
	s.rotated = newest
	return done, nil
}

// batches cuts a list into what fits into a transaction each.
func batches(list []core.Sealed) (out [][]core.Sealed) {
	if len(list) == 0 {
		return nil
	}
	begin, size := 0, 0
	for i, x := range list {
		if size += len(x.Payload); size > resealBytes && i > begin {
			out = append(out, list[begin:i])
			begin, size = i, len(x.Payload)
		}
	}
	return append(out, list[begin:])
}
