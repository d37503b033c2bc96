package core

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// restoredGap is how far the counters go on after a restore: more replicas and events than
// a fleet has between two backups.
const restoredGap = 10_000_000

// Restored gives what has to change in a store that was restored from a backup, of which
// kvs are all that lies below Prefix. Numbers that were given out after the backup must
// not be given again: a container of that time may still run under its epoch. wait is how
// long from the end of the cluster's last leader the leases last that it may have granted;
// 0: there are none.
func Restored(kvs []store.KV) (ops []store.Op, wait time.Duration, err error) {
	n := &orchv1.Counters{}
	for _, kv := range kvs {
		switch {
		case kv.Key == countersKey:
			if err := proto.Unmarshal(kv.Value, n); err != nil {
				return nil, 0, fmt.Errorf("read %s: %w", kv.Key, err)
			}
		case strings.HasPrefix(kv.Key, revisionPrefix):
			var r api.Revision
			if err := openEnvelope(kv.Value, &r); err != nil {
				return nil, 0, fmt.Errorf("read %s: %w", kv.Key, err)
			}
			if lease := r.Template.Lease(); lease > 0 {
				wait = max(wait, lease+api.LeaseDrift(lease))
			}
		}
	}
	n.Epoch, n.Event = n.Epoch+restoredGap, n.Event+restoredGap
	return []store.Op{store.Put(countersKey, message(n))}, wait, nil
}
