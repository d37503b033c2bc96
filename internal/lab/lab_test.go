package lab

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
)

func TestRuleset(t *testing.T) {
	for _, test := range []struct {
		name   string
		faults []Fault
		want   []string // "hook: rule", in order
	}{
		{"none", nil, nil},
		{"node from everybody", []Fault{{Node: "n1"}},
			[]string{`prerouting: iifname "n1" drop`, `postrouting: oifname "n1" drop`}},
		{"node unheard", []Fault{{Node: "n1", OneWay: true}},
			[]string{`prerouting: iifname "n1" drop`}},
		{"pair", []Fault{{Node: "n1", Peer: "n2"}},
			[]string{`forward: iifname "n1" oifname "n2" drop`, `forward: iifname "n2" oifname "n1" drop`}},
		{"pair one way", []Fault{{Node: "n2", Peer: "n1", OneWay: true}},
			[]string{`forward: iifname "n2" oifname "n1" drop`}},
		{"node from controller", []Fault{{Node: "n1", Peer: "controller"}},
			[]string{`input: iifname "n1" drop`, `output: oifname "n1" drop`}},
		{"controller unheard by node", []Fault{{Node: "controller", Peer: "n1", OneWay: true}},
			[]string{`output: oifname "n1" drop`}},
		{"controller from everybody", []Fault{{Node: "controller"}},
			[]string{`input: meta protocol != 0 drop`, `output: meta protocol != 0 drop`}},
		{"loss", []Fault{{Node: "n3", Percent: 30}},
			[]string{`prerouting: iifname "n3" numgen random mod 100 < 30 drop`, `postrouting: oifname "n3" numgen random mod 100 < 30 drop`}},
		{"loss of all", []Fault{{Node: "n3", Percent: 100}},
			[]string{`prerouting: iifname "n3" meta protocol != 0 drop`, `postrouting: oifname "n3" meta protocol != 0 drop`}},
		{"two faults", []Fault{{Node: "n1", OneWay: true}, {Node: "n2", OneWay: true}},
			[]string{`prerouting: iifname "n1" drop`, `prerouting: iifname "n2" drop`}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			hook := ""
			for line := range strings.Lines(ruleset(test.faults)) {
				f := strings.TrimSpace(line)
				if name, ok := strings.CutPrefix(f, "chain "); ok {
					hook = strings.TrimSuffix(name, " {")
				}
				if strings.HasSuffix(f, " drop") {
					got = append(got, hook+": "+f)
				}
			}
			if strings.Join(got, "\n") != strings.Join(test.want, "\n") {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(test.want, "\n"))
			}
		})
	}
}

// TestLimitsArePassedOn: to the controller, before arguments that may overrule them.
func TestLimitsArePassedOn(t *testing.T) {
	c := Config{BinDir: "/b", Nodes: 1, Limits: []string{"dead-after=90s", "mass-min=3"}, ControllerArgs: []string{"--log-level", "debug"}}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	got := strings.Join(controllerArgs(&c, host{}), " ")
	if !strings.HasSuffix(got, " --limit dead-after=90s --limit mass-min=3 --log-level debug") {
		t.Errorf("got %s", got)
	}
	data, err := json.Marshal(c)
	var back Config
	if err != nil || json.Unmarshal(data, &back) != nil || strings.Join(controllerArgs(&back, host{}), " ") != got {
		t.Errorf("a controller that is started again is given others: %s", data)
	}
}

func TestConfigRefuses(t *testing.T) {
	for _, test := range []struct {
		name   string
		config Config
		want   string
	}{
		{"name", Config{Name: "My Lab"}, `lab name "My Lab"`},
		{"name climbs", Config{Name: "../x"}, `lab name "../x"`},
		{"nodes", Config{Nodes: NodesMax + 1}, "want 0 to 200"},
		{"negative nodes", Config{Nodes: -1}, "want 0 to 200"},
		{"root", Config{Dir: "/"}, "cannot be a lab's own"},
		{"long folder", Config{Dir: "/" + strings.Repeat("x", 90)}, "choose a shorter folder"},
		{"no binaries", Config{}, "no folder of built binaries"},
		{"subnet", Config{BinDir: "b", Subnet: netip.MustParsePrefix("10.0.0.0/16")}, "want an IPv4 /24"},
		{"subnet v6", Config{BinDir: "b", Subnet: netip.MustParsePrefix("fd00::/24")}, "want an IPv4 /24"},
		{"replicas", Config{BinDir: "b", Replicas: netip.MustParsePrefix("10.1.2.0/25")}, "want an IPv4 /24"},
		{"routes", Config{BinDir: "b", Routes: "bgp"}, `routes "bgp": want auto, direct or vxlan`},
		{"limit", Config{BinDir: "b", Limits: []string{"dead-after"}}, `limit "dead-after": want name=value`},
		{"overlap", Config{BinDir: "b", Subnet: netip.MustParsePrefix("10.64.9.0/24")}, "overlaps"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := test.config.check()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestConfigDefaults(t *testing.T) {
	t.Setenv("ORCH_LAB_DIR", "/srv/labs")
	c := Config{BinDir: "/b"}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"Name":"default","Dir":"/srv/labs/default","Nodes":0,"BinDir":"/b","Subnet":"10.200.0.0/24","Replicas":"10.64.0.0/16","Containerd":"","CNIBin":"","Capacity":"","Labels":null,"AgentArgs":null,"ControllerArgs":null,"Daemons":0}`
	if string(got) != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCommandLines(t *testing.T) {
	c := Config{
		Name: "x", Dir: "/l/x", BinDir: "/b", CNIBin: "/cni", Capacity: "cpu=2",
		Labels:    map[string]map[string]string{"n2": {"zone": "b", "disk": "ssd"}},
		AgentArgs: []string{"--more"}, Routes: "vxlan",
	}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	n := &nodeState{Name: "n2", Address: address(c.Subnet, addressOffset+2)}
	got := strings.Join(agentArgs(&c, n, hostOf(&c, "n2")), " ")
	want := "/b/agent --name n2 --data /l/x/nodes/n2/agent --containerd /run/containerd/containerd.sock" +
		" --join 10.200.0.1:7070 --token-file /l/x/node-token --address 10.200.0.12 --shim /b/shim --cni-bin /cni" +
		" --cgroup-parent /orchlab/x/n2/replicas --boot-id-file /l/x/nodes/n2/boot-id --image-gc-high 0" +
		" --capacity cpu=2 --label disk=ssd --label zone=b --more"
	if got != want {
		t.Errorf("agent: got\n%s\nwant\n%s", got, want)
	}
	got = strings.Join(controllerArgs(&c, hostOf(&c, controllerName)), " ")
	want = "/b/controller --data /l/x/controller/data --listen 10.200.0.1:7070 --socket /l/x/controller.sock" +
		" --write-admin-context /l/x/admin.yaml --node-token-file /l/x/node-token --cluster-cidr 10.64.0.0/16 --routes vxlan"
	if got != want {
		t.Errorf("controller: got\n%s\nwant\n%s", got, want)
	}
}

// TestContainerdConfig guards against a trap: behind a table, the list of
// disabled plugins would silently belong to that table.
func TestContainerdConfig(t *testing.T) {
	text := containerdConfig("/data")
	disabled, table := strings.Index(text, "disabled_plugins"), strings.Index(text, "\n[")
	if disabled < 0 || table < 0 || disabled > table {
		t.Errorf("disabled_plugins must stand before any table:\n%s", text)
	}
}

func TestDirFor(t *testing.T) {
	t.Setenv("ORCH_LAB_DIR", "")
	if got := DirFor("x"); got != "/var/lib/orch/lab/x" {
		t.Errorf("got %s", got)
	}
}
