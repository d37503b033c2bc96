package preflight

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestLook looks at the machine that the test runs on, which runs the tests of the
// agent too: what these need must be found.
func TestLook(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	dir := t.TempDir()
	at := taken.Addr().String()
	f := Look(t.Context(), Ask{Node: true, Data: filepath.Join(dir, "a", "b"), Routes: true, Reach: []string{at, "127.0.0.1:1"},
		Ports:   []Port{{What: "taken", Network: "tcp", Address: at}, {What: "free", Network: "udp", Address: "127.0.0.1:0"}},
		Runtime: func(context.Context) (string, error) { return "containerd 1.6.20", nil },
	})
	for what, problem := range f.Features {
		if problem != "" {
			t.Errorf("%s: %s", what, problem)
		}
	}
	if len(f.Features) != 5 || f.Cgroups.Kind == "" || f.Kernel == "" || !f.Root || f.Files == 0 || !f.Clock.Asked {
		t.Errorf("found %+v", f)
	}
	if f.Programs["nft"] == "" || f.CNIBin == "" || len(f.Plugins) == 0 {
		t.Errorf("programs %v, plugins %v in %s: make deps installs them", f.Programs, f.Plugins, f.CNIBin)
	}
	self, _ := os.ReadFile("/proc/self/comm")
	if want := fmt.Sprintf("%s (pid %d)", strings.TrimSpace(string(self)), os.Getpid()); f.Ports[0].Problem != "in use" || f.Ports[0].Holder != want {
		t.Errorf("a port that this test holds: %+v, want holder %s", f.Ports[0], want)
	}
	if f.Ports[1].Problem != "" {
		t.Errorf("a free port: %+v", f.Ports[1])
	}
	if f.Disk.Problem != "" || f.Disk.Sync <= 0 || f.Disk.Slowest < f.Disk.Sync || f.Disk.Total == 0 {
		t.Errorf("disk %+v", f.Disk)
	}
	if f.Reached[at] != "" || f.Reached["127.0.0.1:1"] != "connection refused" {
		t.Errorf("reached %v", f.Reached)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if r := Agent(AgentSettings{Name: "n1"}, f); r.Err() != nil {
		t.Error(r.Err())
	}
}

// TestLookQuick: nothing is written, tried or connected.
func TestLookQuick(t *testing.T) {
	f := Look(t.Context(), Ask{Node: true, Data: t.TempDir(), Reach: []string{"127.0.0.1:1"}, Quick: true,
		Runtime: func(context.Context) (string, error) { return "", errors.New("away") }})
	if f.Reached != nil || f.Ports != nil || f.Clock.Asked || f.Disk.Sync != 0 || f.Features["nftables"] != "" {
		t.Errorf("found %+v", f)
	}
	if _, tried := f.Features["veth"]; tried {
		t.Error("a link was made")
	}
	if err := Agent(AgentSettings{Name: "n1"}, f).Err(); err == nil || !strings.Contains(err.Error(), "containerd: away") {
		t.Error(err)
	}
}

func TestDropsForwarded(t *testing.T) {
	const chain = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy %s;\n\t\tcounter packets 0 bytes 0 jump DOCKER-USER\n\t}\n}\n"
	if !dropsForwarded(fmt.Sprintf(chain, "drop")) || dropsForwarded(fmt.Sprintf(chain, "accept")) {
		t.Error("the policy of the chain is not understood")
	}
}

func TestReadSockets(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1B9E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:9C40 0100007F:1B9E 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 20 4 30 10 -1
`
	got := readSockets("tcp", table)
	if len(got) != 2 || got[0] != (socket{"tcp", netip.MustParseAddr("127.0.0.1"), 7070, "4711"}) || got[1].port != 53 || !got[1].address.IsUnspecified() {
		t.Fatalf("read %+v", got)
	}
	for _, c := range []struct {
		host, port string
		want       bool
	}{
		{"", "53", true}, {"10.0.0.1", "53", true}, {"", "7070", false}, {"127.0.0.1", "7070", true},
		{"0.0.0.0", "7070", true}, {"10.0.0.1", "7070", false}, {"", "9", false},
	} {
		if _, ok := got.find("tcp", c.host, c.port); ok != c.want {
			t.Errorf("%s:%s is in the way: %v", c.host, c.port, ok)
		}
	}
	const v6 = "h\n 0: 00000000000000000000000001000000:1F90 00000000000000000000000000000000:0000 07 0:0 0:0 0 0 0 9 1 0 0 0\n"
	if got := readSockets("udp", v6); len(got) != 1 || got[0].address != netip.IPv6Loopback() || got[0].port != 8080 {
		t.Errorf("read %+v", got)
	}
}

func TestCgroups(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c := cgroups(dir); c.Kind != "" {
		t.Errorf("an empty folder: %+v", c)
	}
	write("cpu,cpuacct/cgroup.procs", "")
	write("memory/cgroup.procs", "")
	write("systemd/cgroup.procs", "")
	if c := cgroups(dir); c.Kind != "v1" || strings.Join(c.Controllers, " ") != "cpu cpuacct memory" {
		t.Errorf("v1: %+v", c)
	}
	write("unified/cgroup.controllers", "")
	if c := cgroups(dir); c.Kind != "hybrid" {
		t.Errorf("hybrid: %+v", c)
	}
	write("cgroup.controllers", "cpu memory\n")
	if c := cgroups(dir); c.Kind != "v2" || strings.Join(c.Controllers, " ") != "cpu memory" {
		t.Errorf("v2: %+v", c)
	}
}
