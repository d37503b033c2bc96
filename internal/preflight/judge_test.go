package preflight

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"
)

// good is a machine on which nothing is wrong.
func good() Facts {
	return Facts{
		Root: true, Kernel: "6.1.0-18-amd64", Pressure: true,
		Features: map[string]string{"overlayfs": "", "namespaces": "", "veth": "", "vxlan": "", "nftables": ""},
		Cgroups:  Cgroups{Kind: "v2", Controllers: []string{"cpuset", "cpu", "io", "memory", "pids"}},
		Programs: map[string]string{"runc": "/usr/sbin/runc", "nft": "/usr/sbin/nft"},
		CNIBin:   "/usr/lib/cni", Plugins: []string{"bridge", "host-local", "ptp"},
		Runtime: Runtime{Asked: true, Version: "containerd 1.6.20~ds1"},
		Ports:   []Port{{What: "gossip", Network: "udp", Address: "10.0.0.2:7946", Flag: "--gossip-port"}},
		Clock:   Clock{Asked: true, Synchronized: true},
		Disk:    Disk{Path: "/var/lib/orch", Free: 20 << 30, Total: 100 << 30, Sync: time.Millisecond, Slowest: 3 * time.Millisecond},
		Routes:  []Route{{netip.MustParsePrefix("0.0.0.0/0"), "eth0"}, {netip.MustParsePrefix("10.0.0.0/24"), "eth0"}},
		Files:   65536,
		Reached: map[string]string{"10.0.0.1:7070": ""},
	}
}

var usual = []netip.Prefix{netip.MustParsePrefix("10.64.0.0/10"), netip.MustParsePrefix("10.128.0.0/14")}

// bad gives what is not ok: "FAIL! clock: what -> remedy", with "!" where it is hard.
func bad(r Report) []string {
	var out []string
	for _, f := range r {
		if f.Level == OK {
			continue
		}
		level := string(f.Level)
		if f.Hard {
			level += "!"
		}
		out = append(out, level+" "+f.Check+": "+f.What+" -> "+f.Remedy)
	}
	return out
}

func TestAgent(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*AgentSettings, *Facts)
		want   []string // beginnings, with a further one after "..."
	}{
		"nothing wrong":     {func(*AgentSettings, *Facts) {}, nil},
		"no root":           {func(_ *AgentSettings, f *Facts) { f.Root = false }, []string{"FAIL! root: not run as root -> run it as root"}},
		"a bad name":        {func(s *AgentSettings, _ *Facts) { s.Name = "N_1" }, []string{`FAIL! name: "N_1" is not a name... -> say --name`}},
		"an old kernel":     {func(_ *AgentSettings, f *Facts) { f.Kernel = "4.19.0-5" }, []string{"FAIL! kernel: Linux 4.19.0-5 is too old -> upgrade to 5.4"}},
		"before binds":      {func(_ *AgentSettings, f *Facts) { f.Kernel = "5.4.0" }, []string{"warn kernel: Linux 5.4.0: bind mounts of replicas are refused -> upgrade to 5.6"}},
		"5.15 is after 5.6": {func(_ *AgentSettings, f *Facts) { f.Kernel = "5.15.0-91-generic" }, nil},
		"no overlayfs":      {func(_ *AgentSettings, f *Facts) { f.Features["overlayfs"] = "it is not there" }, []string{"FAIL! overlayfs: does not work: it is not there -> load it (modprobe overlay)"}},
		"no nftables":       {func(_ *AgentSettings, f *Facts) { f.Features["nftables"] = "no nft" }, []string{"FAIL! nftables: does not work: no nft -> apt-get install nftables"}},
		"no vxlan":          {func(_ *AgentSettings, f *Facts) { f.Features["vxlan"] = "not supported" }, []string{"warn vxlan: the kernel refuses it: not supported -> load it (modprobe vxlan)"}},
		"no pressure":       {func(_ *AgentSettings, f *Facts) { f.Pressure = false }, []string{"warn pressure: ... -> boot with psi=1"}},
		"no cgroups":        {func(_ *AgentSettings, f *Facts) { f.Cgroups = Cgroups{} }, []string{"FAIL! cgroups: no tree is mounted"}},
		"no memory v2": {func(_ *AgentSettings, f *Facts) { f.Cgroups.Controllers = []string{"cpu", "pids"} },
			[]string{"FAIL! cgroups: v2 without the controllers memory -> boot with cgroup_enable=memory"}},
		"v1": {func(_ *AgentSettings, f *Facts) {
			f.Cgroups = Cgroups{"v1", []string{"cpu", "cpuacct", "devices", "freezer", "memory", "pids"}}
		}, nil},
		"hybrid without devices": {func(_ *AgentSettings, f *Facts) {
			f.Cgroups = Cgroups{"hybrid", []string{"cpu", "freezer", "memory", "pids"}}
		}, []string{"FAIL! cgroups: hybrid without the controllers devices -> boot without cgroup_disable="}},
		"swap is only said": {func(_ *AgentSettings, f *Facts) { f.Swap = true }, nil},
		"no containerd": {func(_ *AgentSettings, f *Facts) { f.Runtime.Problem = "no such file" },
			[]string{"FAIL! containerd: no such file -> apt-get install containerd"}},
		"old containerd":      {func(_ *AgentSettings, f *Facts) { f.Runtime.Version = "containerd 1.5.9" }, []string{"FAIL! containerd: containerd 1.5.9 is too old -> upgrade to 1.6"}},
		"1.10 is after 1.6":   {func(_ *AgentSettings, f *Facts) { f.Runtime.Version = "containerd 1.10.1" }, nil},
		"2.x":                 {func(_ *AgentSettings, f *Facts) { f.Runtime.Version = "containerd v2.1.4" }, nil},
		"new containerd":      {func(_ *AgentSettings, f *Facts) { f.Runtime.Version = "containerd 3.0.0" }, []string{"warn containerd: containerd 3.0.0 is newer... -> if containers do not start, go back to 2.x"}},
		"nameless containerd": {func(_ *AgentSettings, f *Facts) { f.Runtime.Version = "containerd master" }, []string{"warn containerd: it does not say"}},
		"no runc":             {func(_ *AgentSettings, f *Facts) { f.Programs["runc"] = "" }, []string{"FAIL runc: not found in PATH -> apt-get install runc"}},
		"no nft":              {func(_ *AgentSettings, f *Facts) { f.Programs["nft"] = "" }, []string{"FAIL! nft: not found in PATH -> apt-get install nftables"}},
		"no plugins":          {func(_ *AgentSettings, f *Facts) { f.CNIBin, f.Plugins = "", nil }, []string{"FAIL! cni: no CNI plugins in /usr/lib/cni"}},
		"a plugin missing":    {func(_ *AgentSettings, f *Facts) { f.Plugins = []string{"ptp"} }, []string{"FAIL! cni: no host-local in /usr/lib/cni -> apt-get install containernetworking-plugins"}},
		"port held":           {func(_ *AgentSettings, f *Facts) { f.Ports[0].Problem, f.Ports[0].Holder = "in use", "consul (pid 7)" }, []string{"FAIL port: UDP 10.0.0.2:7946 (gossip): in use, held by consul (pid 7) -> stop who holds it (ss -lntup shows it), or choose another with --gossip-port"}},
		"port held by us":     {func(_ *AgentSettings, f *Facts) { f.Ports[0].Problem, f.Ports[0].Holder = "in use", "agent (pid 7)" }, nil},
		"names held": {func(_ *AgentSettings, f *Facts) {
			f.Ports[0] = Port{What: "names", Network: "udp", Address: ":53", Problem: "taken"}
		}, []string{"FAIL port: UDP :53 (names): taken -> let it listen at its own addresses only"}},
		"docker's firewall":  {func(_ *AgentSettings, f *Facts) { f.ForwardDrop = true }, []string{"warn forward: a firewall on this machine drops what is forwarded... -> let the cluster's range pass"}},
		"clock":              {func(_ *AgentSettings, f *Facts) { f.Clock.Synchronized = false }, []string{"warn clock: not synchronized... -> apt-get install systemd-timesyncd"}},
		"read-only":          {func(_ *AgentSettings, f *Facts) { f.Disk.Problem = "read-only file system" }, []string{"FAIL! data: read-only file system -> make the folder writable"}},
		"slow disk":          {func(_ *AgentSettings, f *Facts) { f.Disk.Sync = 30 * time.Millisecond }, []string{"warn disk: a write to /var/lib/orch takes 30ms to be on disk (the slowest 3ms) -> choose a faster disk"}},
		"a disk of no use":   {func(_ *AgentSettings, f *Facts) { f.Disk.Sync = time.Second }, []string{"FAIL disk: a write to /var/lib/orch takes 1s"}},
		"images are cleaned": {func(s *AgentSettings, f *Facts) { s.ImagesFull, f.Disk.Free = 85, 14<<30 }, []string{"warn images: 86 % of the disk of /var/lib/orch is used: ...removed from 85 % on -> make room"}},
		"images may stay":    {func(s *AgentSettings, f *Facts) { f.Disk.Free = 14 << 30 }, nil},
		"images have room":   {func(s *AgentSettings, f *Facts) { s.ImagesFull = 85 }, nil},
		"full":               {func(_ *AgentSettings, f *Facts) { f.Disk.Free = 300 << 20 }, []string{"warn space: 300 MiB of 100.0 GiB free at /var/lib/orch -> make room"}},
		"small, but empty":   {func(_ *AgentSettings, f *Facts) { f.Disk.Free, f.Disk.Total = 3<<30, 4<<30 }, nil},
		"overlap":            {func(_ *AgentSettings, f *Facts) { f.Routes[1] = Route{netip.MustParsePrefix("10.80.0.0/16"), "eth1"} }, []string{"warn ranges: orch's 10.64.0.0/10 overlaps this machine's route to 10.80.0.0/16 (eth1) -> choose others with --cluster-cidr"}},
		"overlap, wider":     {func(_ *AgentSettings, f *Facts) { f.Routes[1] = Route{netip.MustParsePrefix("10.0.0.0/8"), "tun0"} }, []string{"warn ranges: orch's 10.64.0.0/10 overlaps", "warn ranges: orch's 10.128.0.0/14 overlaps"}},
		"ranges not known":   {func(s *AgentSettings, f *Facts) { s.Ranges = nil }, nil},
		"no controller":      {func(_ *AgentSettings, f *Facts) { f.Reached["10.0.0.1:7070"] = "connection refused" }, []string{"FAIL controllers: not reached: 10.0.0.1:7070 (connection refused) -> check the address"}},
		"one of two":         {func(_ *AgentSettings, f *Facts) { f.Reached["10.0.0.3:7070"] = "timeout" }, []string{"warn controllers: not reached: 10.0.0.3:7070 (timeout)"}},
		"none, but joined":   {func(s *AgentSettings, f *Facts) { s.Joined, f.Reached["10.0.0.1:7070"] = true, "timeout" }, []string{"warn controllers: not reached"}},
		"nothing was looked at": {func(_ *AgentSettings, f *Facts) {
			*f = Facts{Root: true, Kernel: "6.1", Pressure: true, Cgroups: f.Cgroups, CNIBin: f.CNIBin, Plugins: f.Plugins}
		}, nil},
	} {
		s, f := AgentSettings{Name: "n1", Ranges: usual}, good()
		c.change(&s, &f)
		expect(t, name, Agent(s, f), c.want)
	}
}

func TestController(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*ControllerSettings, *Facts)
		want   []string
	}{
		"nothing wrong":       {func(*ControllerSettings, *Facts) {}, nil},
		"no root is no fault": {func(_ *ControllerSettings, f *Facts) { f.Root = false }, nil},
		"no name":             {func(s *ControllerSettings, f *Facts) { s.Name = "" }, []string{"FAIL! name: the machine has no name -> say --name"}},
		"port":                {func(_ *ControllerSettings, f *Facts) { f.Ports[0].Problem = "in use" }, []string{"FAIL port: UDP 10.0.0.2:7946 (gossip): in use -> stop who holds it"}},
		"less than the quota": {func(s *ControllerSettings, f *Facts) { f.Disk.Free = 3 << 30; f.Disk.Total = 4 << 30 }, []string{"warn etcd: its data may grow to 4.0 GiB, and the disk of /var/lib/orch has 3.0 GiB free -> make room"}},
		"external etcd":       {func(s *ControllerSettings, f *Facts) { s.External, f.Disk.Free, f.Disk.Total = true, 3<<30, 4<<30 }, nil},
		"files":               {func(_ *ControllerSettings, f *Facts) { f.Files = 1024 }, []string{"warn files: the process may open 1024 files... -> raise the limit: LimitNOFILE=65536"}},
		"slow disk":           {func(_ *ControllerSettings, f *Facts) { f.Disk.Sync = 20 * time.Millisecond }, []string{"warn disk: ... -> choose a faster disk, with --data, if it stays so: it is for etcd"}},
	} {
		s, f := ControllerSettings{Name: "c1.example", Ranges: usual, Quota: 4 << 30}, good()
		c.change(&s, &f)
		expect(t, name, Controller(s, f), c.want)
	}
}

func expect(t *testing.T, name string, r Report, want []string) {
	t.Helper()
	got := bad(r)
	same := slices.EqualFunc(got, want, func(g, w string) bool {
		begin, more, _ := strings.Cut(w, "...")
		return strings.HasPrefix(g, begin) && strings.Contains(g, more)
	})
	if !same {
		t.Errorf("%s: got\n  %s\nwant\n  %s", name, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
	for _, f := range r {
		if (f.Remedy == "") != (f.Level == OK) || f.What == "" || f.Check == "" {
			t.Errorf("%s: %+v", name, f)
		}
	}
	if hard := strings.Contains(strings.Join(got, "\n"), "FAIL! "); hard != (r.Err() != nil) {
		t.Errorf("%s: error %v, hard findings: %v", name, r.Err(), hard)
	}
}

func TestPrint(t *testing.T) {
	r := Report{{Check: "kernel", Level: OK, What: "Linux 6.1"}, {Check: "clock", Level: Warn, What: "not synchronized", Remedy: "install"}}
	var out strings.Builder
	if err := r.Print(&out, ""); err != nil {
		t.Error(err)
	}
	if want := "ok     kernel   Linux 6.1\nwarn   clock    not synchronized\n                -> install\n2 checks, none failed, 1 warning\n"; out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	r = append(r, Finding{Check: "root", Level: Fail, What: "not run as root", Remedy: "run it as root", Hard: true})
	out.Reset()
	if err := r.Print(&out, "json"); err == nil || err.Error() != "1 of 3 failed, 1 warning" {
		t.Error(err)
	}
	var back Report
	if err := json.Unmarshal([]byte(out.String()), &back); err != nil || !slices.Equal(back, r) {
		t.Errorf("%v: %s", err, out.String())
	}
}

func TestContainerd(t *testing.T) {
	if err := Containerd("containerd 1.4.13").Err(); err == nil || !strings.Contains(err.Error(), "too old: upgrade to 1.6") {
		t.Error(err)
	}
	if err := Containerd("containerd 2.4.2").Err(); err != nil {
		t.Error(err)
	}
}
