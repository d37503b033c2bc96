package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/daemon"
)

// good is a command line that is accepted as far as it can be on any machine.
func good() flags {
	return flags{name: "n1", join: []string{"10.0.0.1:7070"}, address: "10.0.0.2", logLevel: "info", metricsAddr: "127.0.0.1:7074", gossipPort: 7946, maxPulls: 3, imageGCHigh: 85, imageGCLow: 75}
}

func TestBadFlags(t *testing.T) {
	for name, x := range map[string]struct {
		change func(*flags)
		want   string
	}{
		"name":       {func(f *flags) { f.name = "N_1" }, `--name: "N_1" is not a name`},
		"no join":    {func(f *flags) { f.join = nil }, "--join is required"},
		"join":       {func(f *flags) { f.join = []string{"c1"} }, `--join "c1": want host:port`},
		"level":      {func(f *flags) { f.logLevel = "loud" }, `--log-level "loud": want debug`},
		"cidr":       {func(f *flags) { f.replicaCIDR = "10.64.1.0/24" }, `the controller gives each node a subnet`},
		"cluster":    {func(f *flags) { f.clusterCIDR = "10.64.0.0/10" }, `leave them out`},
		"address6":   {func(f *flags) { f.address = "fd00::1" }, `--address fd00::1: replicas have IPv4 addresses`},
		"address":    {func(f *flags) { f.address = "0.0.0.0" }, `--address: "0.0.0.0": want this node's own IP`},
		"label":      {func(f *flags) { f.labels = []string{"disk"} }, `--label "disk": want key=value`},
		"bad label":  {func(f *flags) { f.labels = []string{"disk=a b"} }, `--label: `},
		"capacity":   {func(f *flags) { f.capacity = []string{"cpu=two"} }, `--capacity "cpu=two": want name=quantity`},
		"slip":       {func(f *flags) { f.capacity = []string{"gpus=2"} }, `others go with --resource`},
		"resource":   {func(f *flags) { f.resources = []string{"cpu=2"} }, `want a resource other than cpu`},
		"bind":       {func(f *flags) { f.allowBind = []string{"/srv/data", "data"} }, `--allow-bind "data": want an absolute path`},
		"metrics":    {func(f *flags) { f.metricsAddr = "7074" }, `--metrics-addr "7074": want host:port, such as 127.0.0.1:7073, or "off"`},
		"gossipport": {func(f *flags) { f.gossipPort = 70000 }, `--gossip-port 70000: want`},
	} {
		f := good()
		x.change(&f)
		_, err := f.check()
		var usage daemon.UsageError
		if err == nil || !strings.Contains(err.Error(), x.want) || !errors.As(err, &usage) {
			t.Errorf("%s: got %v, want %q", name, err, x.want)
		}
	}
}

func TestCapacityAndLabels(t *testing.T) {
	list, err := readCapacity([]string{"cpu=1500m", "memory=4Gi"}, []string{"gpus=2"})
	if err != nil || list[api.CPU] != 1500 || list[api.Memory] != api.Whole(4<<30) || list["gpus"] != api.Whole(2) {
		t.Errorf("capacity %v, %v", list, err)
	}
	list, err = readCapacity(nil, nil)
	if err != nil || list[api.CPU] < 1000 || list[api.Memory] <= 0 {
		t.Errorf("detected %v, %v", list, err)
	}
	labels, err := readLabels([]string{"disk=ssd"}, "n1")
	if err != nil || labels["disk"] != "ssd" || labels[hostnameLabel] != "n1" {
		t.Errorf("labels %v, %v", labels, err)
	}
}
