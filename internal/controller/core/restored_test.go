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
	lease, at := api.Duration(time.Minute), time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
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
		ops, wait, err := Restored(append(c.kvs, store.KV{Key: countersKey, Value: had.record()}), at)
		if err != nil || wait != c.wait || len(ops) != 1 || ops[0].Key != countersKey {
			t.Fatalf("%s: %v, wait %s, want %s: %v", name, ops, wait, c.wait, err)
		}
		var n orchv1.Counters
		if err := proto.Unmarshal(ops[0].Value, &n); err != nil {
			t.Fatal(err)
		}
		if n.Epoch != uint64(at.UnixMilli()) || n.Event != 9+restoredGap || n.Subnet != 3 || n.Vip != 4 {
			t.Errorf("%s: counters %+v", name, &n)
		}
	}
	if _, _, err := Restored([]store.KV{{Key: revisionPrefix + "default/x/1", Value: []byte("no envelope")}}, at); err == nil {
		t.Error("a revision that cannot be read was passed over")
	}
}

// TestRestoredTwice: epochs of one restore are given out by no other, whatever backup it is
// of: a replica's epoch is what its writes are told apart by.
func TestRestoredTwice(t *testing.T) {
	first := time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)
	restored := func(epoch uint64, at time.Time) uint64 {
		had := counters{epoch: epoch}
		ops, _, err := Restored([]store.KV{{Key: countersKey, Value: had.record()}}, at)
		if err != nil {
			t.Fatal(err)
		}
		var n orchv1.Counters
		if err := proto.Unmarshal(ops[0].Value, &n); err != nil {
			t.Fatal(err)
		}
		return n.Epoch
	}
	const placed = 100_000 // between one restore and the next
	one := restored(7, first)
	again := restored(7, first.Add(10*time.Minute))        // the same backup
	later := restored(again+20, first.Add(time.Hour))      // one of the restored cluster
	twice := restored(again+20, first.Add(2*time.Hour))    // that once more
	oldest := restored(3, first.Add(3*time.Hour))          // an older one than all
	behind := restored(oldest+9, first.Add(-24*time.Hour)) // by a clock that is behind
	for i, x := range [][2]uint64{{7, one}, {one, again}, {again, later}, {later, twice}, {twice, oldest}, {oldest, behind}} {
		if x[1] <= x[0]+placed {
			t.Errorf("restore %d goes on from %d, that before gave out more than %d", i, x[1], x[0])
		}
	}
}
