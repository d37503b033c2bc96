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

// restoredGap is how far a counter goes on after a restore where no clock helps: more
// replicas and events than a fleet has between two backups.
const restoredGap = 10_000_000

// Restored gives what has to change in a store that was restored from a backup, of which
// kvs are all that lies below Prefix. Numbers that were given out after the backup must
// not be given again: a container of that time may still run under its epoch, and what
// it writes to may have seen it. Nor may those of another restore of the same backup: so
// epochs go on from the time of the restore, in milliseconds, which no fleet overtakes by
// counting. wait is how long from the end of the cluster's last leader the leases last
// that the backup knows of; 0: there are none.
func Restored(kvs []store.KV, now time.Time) (ops []store.Op, wait time.Duration, err error) {
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
	if at := uint64(max(0, now.UnixMilli())); at > max(n.Epoch, restoredGap) {
		n.Epoch = at
	} else { // this machine's clock is behind
		n.Epoch += restoredGap
	}
	n.Event += restoredGap
	return []store.Op{store.Put(countersKey, message(n))}, wait, nil
}
