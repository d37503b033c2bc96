package gossip_test

import (
	"bytes"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/orchctl/orch/internal/gossip"
	"github.com/orchctl/orch/internal/gossip/gossiptest"
)

// The key changes in three steps, which reach members at different times: nobody is held
// for dead, and who has only the old key is kept out afterwards.
func TestTheKeyChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &gossiptest.Network{}
		ms := fleet(t, network)
		next := bytes.Repeat([]byte{9}, 32)
		for _, keys := range [][][]byte{{key, next}, {next, key}, {next}} {
			for _, m := range ms {
				if err := m.SetKeys(keys); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second) // one after the other
			}
		}
		time.Sleep(20 * time.Second)
		for _, m := range ms {
			if got := names(m.Members()); got != "n1 n2 n3 n4 n5" {
				t.Errorf("members: %s", got)
			}
			for n, alive := range m.heard() {
				if !alive {
					t.Errorf("%s was held for dead", n)
				}
			}
		}
		late := start(t, network, "late", key)
		defer endBubble(append(ms, late))
		if n, err := late.Join(t.Context(), []string{ms[0].transport.Addr()}); n != 0 || err == nil {
			t.Errorf("joined with the old key: %d, %v", n, err)
		}
		if err := late.SetKeys([][]byte{next}); err != nil {
			t.Fatal(err)
		}
		if n, err := late.Join(t.Context(), []string{ms[0].transport.Addr()}); n != 1 || err != nil {
			t.Errorf("joined with the new key: %d, %v", n, err)
		}
	})
}

func TestKeysRefused(t *testing.T) {
	g, err := gossip.New(gossip.Config{Name: "a", SecretKey: key, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range [][][]byte{nil, {nil}, {key, key[:16]}} {
		if err := g.SetKeys(bad); err == nil {
			t.Errorf("%d keys are taken", len(bad))
		}
	}
}
