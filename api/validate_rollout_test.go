package api

import (
	"encoding/json"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

func serviceOf(spec ServiceSpec) *Service {
	if len(spec.Containers) == 0 {
		spec.Containers = []Container{{Name: "main", Image: "web"}}
	}
	return &Service{Metadata: Metadata{Name: "web"}, Spec: spec}
}

// TestOldTemplate: a service that was stored before there were rollouts, init
// containers and the like keeps its template to the letter, and so its revision.
func TestOldTemplate(t *testing.T) {
	stored, err := os.ReadFile("testdata/before-rollouts.json")
	if err != nil {
		t.Fatal(err)
	}
	s := &Service{Metadata: Metadata{Name: "web"}}
	if err := json.Unmarshal(stored, &s.Spec); err != nil {
		t.Fatal(err)
	}
	before, err := json.MarshalIndent(s.Spec.Template, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	s.Default()
	if after, _ := json.MarshalIndent(s.Spec.Template, "", "  "); string(after) != string(before) {
		t.Errorf("became\n%s\nfrom\n%s", after, before)
	}
	if !strings.Contains(string(stored), strings.TrimPrefix(string(before), "{\n")) {
		t.Errorf("reads back as\n%s\nfrom\n%s", before, stored)
	}
	if v := Validate(s); v != nil {
		t.Errorf("refused: %v", v)
	}
}

// TestBounds: what a rollout may do, by kind of service, strategy and order; the same
// before Default and after, and never neither.
func TestBounds(t *testing.T) {
	for name, c := range map[string]struct {
		spec             ServiceSpec
		n, surge, unable int
	}{
		"usual":                    {ServiceSpec{}, 10, 3, 2},
		"start first":              {ServiceSpec{Rollout: Rollout{Order: OrderStartFirst}}, 10, 3, 0},
		"start first, one":         {ServiceSpec{Rollout: Rollout{Order: OrderStartFirst}}, 1, 1, 0},
		"stop first":               {ServiceSpec{Rollout: Rollout{Order: OrderStopFirst}}, 10, 0, 2},
		"stop first, two":          {ServiceSpec{Rollout: Rollout{Order: OrderStopFirst}}, 2, 0, 1},
		"stop first, told":         {ServiceSpec{Rollout: Rollout{Order: OrderStopFirst, MaxUnavailable: Percent(50)}}, 10, 0, 5},
		"recreate":                 {ServiceSpec{Rollout: Rollout{Strategy: StrategyRecreate}}, 10, 0, 10},
		"recreate none":            {ServiceSpec{Rollout: Rollout{Strategy: StrategyRecreate}}, 0, 0, 0},
		"recreate, though bounded": {ServiceSpec{Rollout: Rollout{Strategy: StrategyRecreate, MaxSurge: Count(2), MaxUnavailable: Count(1)}}, 10, 0, 10},
		"recreate exclusive":       {ServiceSpec{Rollout: Rollout{Strategy: StrategyRecreate}, Template: Template{Exclusive: true}}, 4, 0, 4},
		"global":                   {ServiceSpec{Mode: ModeGlobal}, 10, 0, 2},
		"global, one node":         {ServiceSpec{Mode: ModeGlobal}, 1, 0, 1},
		"global, no node":          {ServiceSpec{Mode: ModeGlobal}, 0, 0, 0},
		"global, though bounded":   {ServiceSpec{Mode: ModeGlobal, Rollout: Rollout{MaxSurge: Count(2), MaxUnavailable: Count(3)}}, 10, 0, 3},
		"exclusive stop first":     {ServiceSpec{Rollout: Rollout{Order: OrderStopFirst}, Template: Template{Exclusive: true}}, 10, 0, 1},
	} {
		s := serviceOf(c.spec)
		for _, when := range []string{"before", "after"} {
			if surge, unable := s.Spec.Surge(c.n), s.Spec.Unavailable(c.n); surge != c.surge || unable != c.unable {
				t.Errorf("%s %s Default: %d more and %d fewer, want %d and %d", name, when, surge, unable, c.surge, c.unable)
			}
			s.Default()
		}
	}
}

// TestDefaultRollout: what Default writes is valid, and stays as it is.
func TestDefaultRollout(t *testing.T) {
	for name, c := range map[string]struct {
		spec ServiceSpec
		want string // of the spec's JSON, up to the containers
	}{
		"usual":       {ServiceSpec{}, `{"replicas":1,"rollout":{"maxSurge":"25%","maxUnavailable":"25%","progressDeadline":"10m","autoRollback":true},`},
		"start first": {ServiceSpec{Rollout: Rollout{Order: OrderStartFirst}}, `{"replicas":1,"rollout":{"order":"startFirst","maxSurge":"25%","maxUnavailable":0,"progressDeadline":"10m","autoRollback":true},`},
		"stop first":  {ServiceSpec{Rollout: Rollout{Order: OrderStopFirst}}, `{"replicas":1,"rollout":{"order":"stopFirst","maxSurge":0,"maxUnavailable":"25%","progressDeadline":"10m","autoRollback":true},`},
		"recreate":    {ServiceSpec{Rollout: Rollout{Strategy: StrategyRecreate}}, `{"replicas":1,"rollout":{"strategy":"recreate","progressDeadline":"10m","autoRollback":true},`},
		"global":      {ServiceSpec{Mode: ModeGlobal}, `{"mode":"global","rollout":{"maxSurge":0,"maxUnavailable":"25%","progressDeadline":"10m","autoRollback":true},`},
		"told": {ServiceSpec{Rollout: Rollout{AutoRollback: new(bool), ProgressDeadline: durationOf(time.Minute), MinReady: durationOf(0), Canary: []CanaryStep{}}},
			`{"replicas":1,"rollout":{"maxSurge":"25%","maxUnavailable":"25%","minReady":"0s","progressDeadline":"1m","autoRollback":false},`},
	} {
		s := serviceOf(c.spec)
		for range 2 {
			if v := Validate(s); v != nil {
				t.Errorf("%s: %v", name, v)
			}
			s.Default()
			if got, err := json.Marshal(s.Spec); err != nil || !strings.HasPrefix(string(got), c.want) {
				t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, c.want)
			}
		}
	}
}

// TestUsualWrittenOut: who writes what is usual gets the revision of who leaves it out.
func TestUsualWrittenOut(t *testing.T) {
	short, long := serviceOf(ServiceSpec{}), serviceOf(ServiceSpec{Template: Template{
		InitContainers: []Container{}, Sidecars: []Container{}, Sysctls: map[string]string{},
		Containers: []Container{{Name: "main", Image: "web", Lifecycle: &Lifecycle{}, Ulimits: map[string]Ulimit{}, Mounts: []Mount{},
			SecurityContext: &SecurityContext{Seccomp: SeccompDefault, Capabilities: Capabilities{Add: []string{}, Drop: []string{}}}}},
	}})
	short.Default()
	long.Default()
	if !reflect.DeepEqual(short, long) {
		t.Errorf("got\n%+v\nwant\n%+v", long, short)
	}
}

func TestDefaultContainers(t *testing.T) {
	s := good()
	s.Default()
	side, c := s.Spec.Sidecars[0], s.Spec.Containers[0]
	if s.Spec.InitContainers[0].Resources.Limits[Pids] != Whole(DefaultPidsLimit) || side.Ports[0].Protocol != TCP || side.StartupProbe.FailureThreshold != 3 {
		t.Errorf("got %+v and %+v", s.Spec.InitContainers[0], side)
	}
	if h := c.Lifecycle.PostStart; *h.Timeout != Duration(30*time.Second) || h.HTTP.Path != "/" || c.Lifecycle.PreStop.Timeout != nil {
		t.Errorf("hooks %+v and %+v", h, c.Lifecycle.PreStop)
	}
	if want := map[string]Ulimit{"nofile": {1024, 1024}, "core": {0, -1}}; !reflect.DeepEqual(c.Ulimits, want) {
		t.Errorf("limits %v, want %v", c.Ulimits, want)
	}
}

// TestRequestsOfAll: an init container has its replica's room to itself, the others
// share it.
func TestRequestsOfAll(t *testing.T) {
	of := func(cpu, memory Quantity) []Container {
		return []Container{{Resources: Resources{Requests: ResourceList{CPU: cpu, Memory: memory}}, Ports: []Port{{Port: 80, Publish: int(cpu), Mode: PublishHost}}}}
	}
	tmpl := Template{InitContainers: append(of(700, 0), of(500, 3000)...), Sidecars: of(100, 2000), Containers: append(of(200, 1000), of(300, 1000)...)}
	if got, want := tmpl.Requests(), (ResourceList{CPU: 700, Memory: 4000}); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if got, want := tmpl.HostPorts(), []HostPort{{100, TCP}, {200, TCP}, {300, TCP}}; !reflect.DeepEqual(got, want) {
		t.Errorf("host ports %v, want %v", got, want)
	}
}

// TestCanaryOfNobody: where nobody knows how many there are, only what is always wrong
// is refused.
func TestCanaryOfNobody(t *testing.T) {
	steps := []CanaryStep{{Replicas: *Count(5)}, {Replicas: *Percent(10)}}
	none, global := serviceOf(ServiceSpec{Replicas: new(int), Rollout: Rollout{Canary: steps}}), serviceOf(ServiceSpec{Mode: ModeGlobal, Rollout: Rollout{Canary: steps}})
	if v := append(Validate(none), Validate(global)...); v != nil {
		t.Errorf("refused: %v", v)
	}
	if three := 3; Validate(serviceOf(ServiceSpec{Replicas: &three, Rollout: Rollout{Canary: steps}})) == nil {
		t.Error("5 of 3, then 1, was taken")
	}
}

// TestLists: the lists of what Linux knows are sorted, whole and taken.
func TestLists(t *testing.T) {
	if len(signals) != 32 || len(capabilities) != 41 || len(ulimits) != 15 {
		t.Errorf("%d signals, %d capabilities, %d limits", len(signals)-1, len(capabilities), len(ulimits))
	}
	for _, s := range signals[1:] {
		if why := signalProblem(s); (why == "") != (s != "SIGSTOP") {
			t.Errorf("%s: %s", s, why)
		}
		if s == "SIGSTOP" {
			continue
		}
		if why := signalProblem(strings.ToLower(strings.TrimPrefix(s, "SIG"))); !strings.HasSuffix(why, "write "+s) {
			t.Errorf("%s without SIG: %s", s, why)
		}
	}
	for _, s := range capabilities {
		for _, spelt := range []string{s, "CAP_" + s} {
			if why := capabilityProblem(spelt); why != "" {
				t.Errorf("%s: %s", spelt, why)
			}
		}
		if why := capabilityProblem("cap_" + strings.ToLower(s)); !strings.HasSuffix(why, "write "+s) {
			t.Errorf("lower case %s: %s", s, why)
		}
	}
	for _, f := range append(fields, FieldLabels+"a.b/c") {
		if why := fieldProblem(f); why != "" {
			t.Errorf("%s: %s", f, why)
		}
	}
	for name, good := range map[string]bool{"0": true, "4294967294": true, "4294967295": false, "007": false, "-1": false, "root": true, "_apt": true, "Debian-exim": true,
		"9lives": false, "a b": false, "a/b": false, "host$": true, "$": false, strings.Repeat("x", 33): false, "1000:1000": false} {
		if why := accountProblem("user", name); (why == "") != good {
			t.Errorf("user %q: %s", name, why)
		}
	}
	for name, good := range map[string]bool{"net.core.somaxconn": true, "net.ipv4.conf.eth0.rp_filter": true, "kernel.shmmax": true, "kernel.shmmaxx": false, "kernel.panic": false,
		"fs.mqueue.msg_max": true, "fs.file-max": false, "vm.swappiness": false, "net": false, "net.": false, "net..x": false, "net/core/x": false, "net.../../kernel.panic": false} {
		if why := sysctlProblem(name, false); (why == "") != good {
			t.Errorf("sysctl %q: %s", name, why)
		}
		if strings.HasPrefix(name, "net.") && sysctlProblem(name, true) == "" {
			t.Errorf("sysctl %q was taken with hostNetwork", name)
		}
	}
}

// FuzzPath: what is taken as a mount's path is absolute, plain and not the kernel's.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"/data", "/dev/shm", "/proc/../data", "/", "//", "/a/./b", "data", "/sys", "/system", "/etc/hosts"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if mountPathProblem(p) != "" {
			return
		}
		if len(p) < 2 || p[0] != '/' || strings.HasSuffix(p, "/") || strings.Contains(p, "//") || strings.Contains(p+"/", "/../") || strings.Contains(p+"/", "/./") ||
			strings.HasPrefix(p+"/", "/proc/") || strings.HasPrefix(p+"/", "/sys/") {
			t.Errorf("%q was taken", p)
		}
	})
}

// TestMinReady: what is ready as soon as it runs has to run for a while.
func TestMinReady(t *testing.T) {
	probed := Container{Name: "main", ReadinessProbe: &Probe{}}
	for name, c := range map[string]struct {
		spec ServiceSpec
		want time.Duration
	}{
		"nothing is probed":         {ServiceSpec{Template: Template{Containers: []Container{{Name: "main"}}}}, time.Second},
		"a probe decides":           {ServiceSpec{Template: Template{Containers: []Container{{Name: "other"}, probed}}}, 0},
		"a sidecar's, too":          {ServiceSpec{Template: Template{Sidecars: []Container{probed}, Containers: []Container{{Name: "other"}}}}, 0},
		"an init container's not":   {ServiceSpec{Template: Template{InitContainers: []Container{probed}}}, time.Second},
		"told":                      {ServiceSpec{Rollout: Rollout{MinReady: durationOf(time.Minute)}}, time.Minute},
		"told to be nothing":        {ServiceSpec{Rollout: Rollout{MinReady: durationOf(0)}}, 0},
		"below the deadline always": {ServiceSpec{Rollout: Rollout{ProgressDeadline: durationOf(time.Second)}}, time.Second / 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := c.spec.MinReady(); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}
