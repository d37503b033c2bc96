package traffic

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// keeper is a saver beside what it is to keep.
type keeper struct {
	*saver
	picture *network.Picture
}

func newKeeper(path string) (*keeper, network.Update, bool, error) {
	k := &keeper{picture: network.NewPicture()}
	k.saver = &saver{path: path, logger: slog.New(slog.DiscardHandler), notify: make(chan struct{}, 1),
		all: func(also func()) network.Update { also(); return k.picture.All() }}
	u, last, ok, err := load(path)
	if ok {
		k.picture.Apply(u)
	}
	k.sequence = last
	return k, u, ok, err
}

func (k *keeper) take(u network.Update) {
	k.picture.Apply(u)
	k.keep(u)
}

// An agent that is killed at any moment finds on disk what it was told last, however
// many were killed before it.
func TestKilledAtAnyMoment(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "traffic")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path := filepath.Join(dir, "traffic.json")
		k, _, ok, err := newKeeper(path)
		if ok || err != nil {
			t.Fatalf("something was there: %v", err)
		}
		one := rapid.Custom(func(t *rapid.T) wire.Endpoint {
			r := api.ReplicaKey{Namespace: "default", Service: "web", Slot: rapid.IntRange(0, 5).Draw(t, "slot"), Epoch: uint64(rapid.IntRange(1, 3).Draw(t, "epoch"))}
			return wire.Endpoint{Replica: r, Node: "n1", IP: fmt.Sprintf("10.64.1.%d", r.Slot+2), NodeIP: "10.200.0.11", Ports: []api.Port{{Port: 80}}}
		})
		k.take(network.Update{Complete: true, Put: []wire.Endpoint{one.Draw(t, "first")}, Services: []wire.Service{{Key: api.Key{Namespace: "default", Name: "web"}, VIP: "10.128.0.10"}}})
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"put", "drop", "complete", "write", "torn", "killed"}).Draw(t, "step") {
			case "put":
				k.take(network.Update{Put: []wire.Endpoint{one.Draw(t, "put")}})
			case "drop":
				k.take(network.Update{Drop: []api.ReplicaKey{one.Draw(t, "drop").Replica}})
			case "complete":
				k.take(network.Update{Complete: true, Put: rapid.SliceOfN(one, 0, 4).Draw(t, "all")})
			case "write":
				k.write()
			case "torn": // killed between the turn and the write
				k.all(func() {
					if k.whole {
						k.turn()
					}
				})
				fallthrough
			case "killed":
				var u network.Update
				before := k.picture.All()
				if k, u, ok, err = newKeeper(path); !ok || err != nil {
					t.Fatalf("nothing is there: %v", err)
				}
				if !reflect.DeepEqual(u, before) {
					t.Fatalf("on disk lies\n%+v\nand it was told\n%+v", u, before)
				}
			}
		}
		if u, _, _, err := load(path); err != nil || !reflect.DeepEqual(u, k.picture.All()) {
			t.Fatalf("on disk lies\n%+v\nand it was told\n%+v, %v", u, k.picture.All(), err)
		}
	})
}

// A line that was not written whole ends a journal; what follows a gap is not taken.
func TestJournalIsHeldToItsOrder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "traffic.json")
	line := func(n int, slot int) string {
		return fmt.Sprintf(`{"sequence":%d,"update":{"Put":[{"Replica":{"namespace":"default","service":"web","slot":%d,"epoch":1},"IP":"10.64.1.%d"}]}}`+"\n", n, slot, slot+2)
	}
	for _, c := range []struct {
		name, one, two string
		slots          int
	}{
		{"whole", line(6, 1), line(7, 2), 2},
		{"torn", line(6, 1) + line(7, 2)[:40], "", 1},
		{"gap", line(6, 1), line(8, 2), 1},
		{"old", line(4, 1) + line(5, 2), line(6, 3), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, text := range map[string]string{path: `{"sequence":5}`, journals(path)[0]: c.one, journals(path)[1]: c.two} {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			u, _, ok, err := load(path)
			if err != nil || !ok || len(u.Put) != c.slots {
				t.Errorf("%d endpoints, want %d: %+v, %v", len(u.Put), c.slots, u, err)
			}
		})
	}
}
