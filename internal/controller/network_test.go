package controller

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/orchctl/orch/internal/network"
	"github.com/orchctl/orch/internal/wire"
)

// Where the store's network is another than the flags', each difference is told.
func TestWarnOfAnotherNetwork(t *testing.T) {
	stored := network.DefaultCluster()
	stored.Nodes, stored.Routes = netip.MustParsePrefix("10.70.0.0/16"), wire.RoutesVXLAN
	for _, c := range []struct {
		said, stored network.Cluster
		want         []string
	}{
		{network.DefaultCluster(), network.DefaultCluster(), nil},
		{network.Cluster{}, stored, nil},                   // no flags
		{network.DefaultCluster(), network.Cluster{}, nil}, // the first leader
		{network.DefaultCluster(), stored, []string{"flag=--cluster-cidr says=10.64.0.0/10 holds=10.70.0.0/16", "flag=--routes says=auto holds=vxlan"}},
	} {
		var out bytes.Buffer
		ctl := &Controller{cfg: Config{Network: c.said, Log: slog.New(slog.NewTextHandler(&out, nil))}}
		ctl.warnOfNetwork(c.stored)
		if n := strings.Count(out.String(), "level=WARN"); n != len(c.want) {
			t.Errorf("%d warnings, want %d: %s", n, len(c.want), &out)
		}
		for _, w := range c.want {
			if !strings.Contains(out.String(), w) {
				t.Errorf("%s is not told: %s", w, &out)
			}
		}
	}
}
