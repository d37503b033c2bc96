package main

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"github.com/orchctl/orch/internal/daemon"
	"github.com/orchctl/orch/internal/network"
)

// What is wrong with the network is told before anything starts, by the flag.
func TestNetworkFlags(t *testing.T) {
	for _, c := range []struct {
		flags string
		want  string // in the error
	}{
		{"--cluster-cidr=10.0.0.0", `--cluster-cidr "10.0.0.0": want an IPv4 range, such as`},
		{"--cluster-cidr=10.70.3.9/16", "--cluster-cidr 10.70.3.9/16: an address within a range; the range is 10.70.0.0/16"},
		{"--service-cidr=10.128", `--service-cidr "10.128": want an IPv4 range, such as 10.128.0.0/14`},
		{"--cluster-cidr=fd00::/48", "--cluster-cidr fd00::/48: want an IPv4 range"},
		{"--cluster-cidr=127.0.0.0/8", "--cluster-cidr 127.0.0.0/8: want an IPv4 range"},
		{"--cluster-cidr=0.0.0.0/0", "--cluster-cidr 0.0.0.0/0: want"},
		{"--service-cidr=224.0.0.0/8", "--service-cidr 224.0.0.0/8: want an IPv4 range"},
		{"--service-cidr=10.128.0.0/29", "--service-cidr 10.128.0.0/29: want a /28 or wider"},
		{"--service-cidr=10.64.3.0/24", "--cluster-cidr 10.64.0.0/10 and --service-cidr 10.64.3.0/24 overlap"},
		{"--node-cidr-mask-size=30", "--node-cidr-mask-size 30: want 16 to 28; 24 gives each node 256 addresses"},
		{"--cluster-cidr=10.70.0.0/24 --node-cidr-mask-size=20", "--node-cidr-mask-size 20: a subnet of that size is larger than --cluster-cidr 10.70.0.0/24"},
		{"--kept-ports=ssh", `--kept-ports "ssh": want ports such as 22/TCP`},
		{"--kept-ports=22,0/udp", `--kept-ports "0/udp": want`},
		{"--kept-ports=22/sctp", `--kept-ports "22/sctp": want`},
		{"--routes=bgp", `--routes "bgp": want auto, direct or vxlan`},
	} {
		cmd := command()
		cmd.SetArgs(append(strings.Fields(c.flags), "--data", filepath.Join(t.TempDir(), "data")))
		if err := cmd.Execute(); !errors.As(err, new(daemon.UsageError)) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.flags, err, c.want)
		}
	}
}

func TestNetworkOfFlags(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"", "10.64.0.0/10 24 10.128.0.0/14 auto"},
		{"--cluster-cidr=10.70.0.0/16 --node-cidr-mask-size=26 --service-cidr=10.71.0.0/20 --routes=vxlan", "10.70.0.0/16 26 10.71.0.0/20 vxlan"},
	} {
		cmd, n := command(), networkFlags{}
		cmd.ResetFlags()
		n.addTo(cmd.Flags())
		if err := cmd.ParseFlags(strings.Fields(c.flags)); err != nil {
			t.Fatal(err)
		}
		if err := n.complete(); err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range n.cluster.Differences(network.Cluster{}) {
			got = append(got, d.This)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.flags, got, c.want)
		}
	}
}

func TestKeptPorts(t *testing.T) {
	for _, c := range []struct{ flags, want string }{
		{"", "22/TCP 4789/UDP 7070/TCP 7946/TCP 7946/UDP"},
		{"--kept-ports=2222,500/udp --advertise=10.0.0.1:7443 --gossip-addr=off", "2222/TCP 4789/UDP 500/UDP 7443/TCP"},
		{"--kept-ports=", "4789/UDP 7070/TCP 7946/TCP 7946/UDP"},
	} {
		var conf config
		f := pflag.NewFlagSet("controller", pflag.ContinueOnError)
		conf.network.addTo(f)
		f.StringVar(&conf.listen, "listen", ":7070", "")
		f.StringVar(&conf.advertise, "advertise", "", "")
		f.StringVar(&conf.gossipAddr, "gossip-addr", "", "")
		if err := errors.Join(f.Parse(strings.Fields(c.flags)), conf.network.complete(), conf.completeAddresses()); err != nil {
			t.Fatal(err)
		}
		var got []string
		for p := range conf.keptPorts() {
			got = append(got, p.String())
		}
		slices.Sort(got)
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: got %v, want %s", c.flags, got, c.want)
		}
	}
}
