package core

import (
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// TestRestored: numbers go on beyond those that were given out after the backup, and the
// longest lease is waited for.
func TestRestored(t *testing.T) {
	lease := api.Duration(time.Minute)
	revision := func(n int64, x api.Template) store.KV {
		return store.KV{Key: revisionKey(api.Key{Namespace: "default", Name: "x"}, n), Value: object("Revision", &api.Revision{Number: n, Template: x})}
	}
	for name, c := range map[string]struct {
		kvs  []store.KV
		wait time.Duration
	}{
		"nothing":  {},
		"no lease": {kvs: []store.KV{revision(1, api.Template{})}},
		"leases":   {kvs: []store.KV{revision(1, api.Template{Exclusive: true, LeaseDuration: &lease}), revision(2, api.Template{OnPartition: api.PartitionStop})}, wait: time.Minute + 600*time.Millisecond},
	} {
		had := counters{epoch: 7, event: 9, subnet: 3, vip: 4}
		ops, wait, err := Restored(append(c.kvs, store.KV{Key: countersKey, Value: had.record()}))
		if err != nil || wait != c.wait || len(ops) != 1 || ops[0].Key != countersKey {
			t.Fatalf("%s: %v, wait %s, want %s: %v", name, ops, wait, c.wait, err)
		}
		var n orchv1.Counters
		if err := proto.Unmarshal(ops[0].Value, &n); err != nil {
			t.Fatal(err)
		}
		if n.Epoch != 7+restoredGap || n.Event != 9+restoredGap || n.Subnet != 3 || n.Vip != 4 {
			t.Errorf("%s: counters %+v", name, &n)
		}
	}
	if _, _, err := Restored([]store.KV{{Key: revisionPrefix + "default/x/1", Value: []byte("no envelope")}}); err == nil {
		t.Error("a revision that cannot be read was passed over")
	}
}
