package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// presencePrefix holds a key per controller that lives.
	presencePrefix = "/orch/controllers/"
	// presenceTTL is how long a controller that died, or cannot reach etcd, still
	// counts as there, in seconds.
	presenceTTL = 10
	// presenceEvery is how often it says so.
	presenceEvery = 3 * time.Second
)

// Present keeps a key in etcd that says that the controller of this name lives, until
// ctx ends. Nothing rests on it but which controller tries to lead: what keeps two
// leaders apart is the fence of each transaction.
//
// Each round takes a new lease; the last one ends by itself. etcd's client can keep one
// alive on a stream, but with etcd's users it logs in for each try of that stream, and
// after a restart of etcd hardly gets through for it.
func (s *Store) Present(ctx context.Context, name string) error {
	var last clientv3.LeaseID
	for ctx.Err() == nil && s.closed.Err() == nil {
		// An error is etcd's absence, which the leader's own writes tell of.
		if lease, err := s.present(ctx, name); err == nil {
			last = lease
		}
		s.pause(ctx, presenceEvery)
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_, _ = s.client.Revoke(bye, last) // else it ends by itself
	return ctx.Err()
}

func (s *Store) present(ctx context.Context, name string) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, presenceEvery)
	defer cancel()
	lease, err := s.client.Grant(ctx, presenceTTL)
	if err != nil {
		return 0, err
	}
	_, err = s.client.Put(ctx, presencePrefix+name, "", clientv3.WithLease(lease.ID))
	return lease.ID, err
}

// IsPresent tells whether the controller of this name lives.
func (s *Store) IsPresent(ctx context.Context, name string) (bool, error) {
	resp, err := s.get(ctx, presencePrefix+name, clientv3.WithCountOnly())
	if err != nil {
		return false, fmt.Errorf("look for controller %s: %w", name, err)
	}
	return resp.Count > 0, nil
}
