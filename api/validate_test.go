package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

// good is a service with every field set.
func good() *Service {
	second, mib := Duration(time.Second), Whole(1<<20)
	return &Service{
		Metadata: Metadata{Name: "web", Labels: map[string]string{"app": "web", "example.com/tier": ""}},
		Spec: ServiceSpec{
			Rollout: Rollout{Strategy: StrategyRolling, Order: OrderStartFirst, MaxSurge: Count(1), MaxUnavailable: Percent(0), MinReady: durationOf(time.Second),
				ProgressDeadline: durationOf(time.Minute), Canary: []CanaryStep{{Replicas: *Count(1), Pause: durationOf(time.Second)}, {Replicas: *Percent(100)}}, AutoRollback: new(bool)},
			Priority:        -7,
			SessionAffinity: AffinityClientIP, TrafficDistribution: PreferSameNode,
			Template: Template{
				InitContainers: []Container{{Name: "migrate", Image: "orch.local/web:1.0", Mounts: []Mount{{Path: "/dev/shm", Tmpfs: &Tmpfs{}}}}},
				Sidecars: []Container{{Name: "proxy", Image: "orch.local/proxy:1.0", Ports: []Port{{Name: "proxy", Port: 9000}},
					StartupProbe: &Probe{GRPC: &GRPCProbe{Port: "proxy", Service: "shop.v1.Orders"}}}},
				Sysctls: map[string]string{"kernel.shmmax": "68719476736"},
				Containers: []Container{{
					Name: "main", Image: "orch.local/web:1.0", Command: []string{"/web"}, Args: []string{""},
					Env: []EnvVar{{Name: "A", Value: "1"}, {Name: "B", ValueFrom: &EnvSource{Field: FieldLabels + "example.com/tier"}}}, WorkingDir: "/srv",
					Lifecycle:       &Lifecycle{PostStart: &Hook{HTTP: &HTTPProbe{Port: "http"}}, PreStop: &Hook{Sleep: &second}},
					StopSignal:      "SIGRTMIN+3",
					SecurityContext: &SecurityContext{User: "www-data", Group: "33", ReadOnlyRoot: true, Capabilities: Capabilities{Drop: []string{"ALL"}, Add: []string{"CAP_NET_RAW"}}, Seccomp: SeccompUnconfined, AllowPrivilegeEscalation: true},
					Ulimits:         map[string]Ulimit{"nofile": {Soft: 1024}, "core": {Soft: 0, Hard: -1}},
					Mounts:          []Mount{{Path: "/tmp", Tmpfs: &Tmpfs{Size: &mib}}, {Path: "/data", Bind: "/srv/data", ReadOnly: true}},
					Ports:           []Port{{Name: "http", Port: 80, Publish: 8080, Mode: PublishHost}},
					Resources:       Resources{Requests: ResourceList{CPU: 100, "gpus": 1000}, Limits: ResourceList{CPU: 200, Memory: Whole(64 << 20)}},
					ReadinessProbe:  &Probe{HTTP: &HTTPProbe{Port: "http"}, Interval: &second},
					LivenessProbe:   &Probe{Exec: &ExecProbe{Command: []string{"true"}}},
				}, {Name: "two", Image: "busybox"}},
				OnPartition:   PartitionStop,
				LeaseDuration: durationOf(30 * time.Second),
				NodeSelector:  map[string]string{"disk": "ssd"},
				Constraints:   []Constraint{{"zone", OpIn, []string{"a"}}, {"old", OpDoesNotExist, nil}},
				RestartPolicy: RestartPolicy{Condition: RestartOnFailure},
			},
		},
	}
}

func TestDefault(t *testing.T) {
	s := good()
	if v := Validate(s); v != nil {
		t.Fatalf("before: %v", v)
	}
	s.Default()
	if v := Validate(s); v != nil {
		t.Fatalf("after: %v", v)
	}
	once, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	s.Default()
	if twice, _ := json.Marshal(s); string(twice) != string(once) {
		t.Errorf("not idempotent:\n%s\n%s", once, twice)
	}
	c := s.Spec.Containers[0]
	if want := (ResourceList{CPU: 100, Memory: Whole(64 << 20), "gpus": 1000}); !reflect.DeepEqual(c.Resources.Requests, want) {
		t.Errorf("requests %v, want %v", c.Resources.Requests, want)
	}
	if want := (ResourceList{CPU: 200, Memory: Whole(64 << 20), "gpus": 1000, Pids: Whole(2000)}); !reflect.DeepEqual(c.Resources.Limits, want) {
		t.Errorf("limits %v, want %v", c.Resources.Limits, want)
	}
	if s.Metadata.Namespace != "default" || *s.Spec.Replicas != 1 || c.Ports[0].Protocol != TCP || c.ReadinessProbe.HTTP.Path != "/" ||
		c.ReadinessProbe.FailureThreshold != 3 || c.LivenessProbe.Interval != nil || *s.Spec.TerminationGracePeriod != Duration(10*time.Second) {
		t.Errorf("defaults: %s", once)
	}
	var back Service
	if err := json.Unmarshal(once, &back); err != nil || !reflect.DeepEqual(&back, s) {
		t.Errorf("over the wire: %v\n%+v\n%+v", err, &back, s)
	}
	bare := &Service{Metadata: Metadata{Labels: map[string]string{}}, Spec: ServiceSpec{Template: Template{
		Containers: []Container{{Args: []string{}, Env: []EnvVar{}, Ports: []Port{}}}, Constraints: []Constraint{{Values: []string{}}}, NodeSelector: map[string]string{}}}}
	bare.Default()
	var copied Service
	if b, _ := json.Marshal(bare); json.Unmarshal(b, &copied) != nil || !reflect.DeepEqual(&copied, bare) {
		t.Errorf("empty lists over the wire:\n%+v\n%+v", &copied, bare)
	}
	slow := Service{Spec: ServiceSpec{Template: Template{RestartPolicy: RestartPolicy{BackOff: durationOf(2 * time.Minute)}}}}
	slow.Default()
	if *slow.Spec.RestartPolicy.MaxBackOff != Duration(2*time.Minute) {
		t.Errorf("maxBackOff %s below backOff", slow.Spec.RestartPolicy.MaxBackOff)
	}
}

// TestDefaultLeases: who uses none of the fields of leases is stored as before
// there were any, and an explicit keep is no new revision.
func TestDefaultLeases(t *testing.T) {
	const rolled = `,"progressDeadline":"10m","autoRollback":true},"containers":null`
	const usual = `"rollout":{"maxSurge":"25%","maxUnavailable":"25%"` + rolled
	for name, c := range map[string]struct {
		spec ServiceSpec
		want string
		not  []string
	}{
		"plain": {ServiceSpec{}, usual, []string{"exclusive", "onPartition", "leaseDuration", "priority"}},
		"keep":  {ServiceSpec{Template: Template{OnPartition: PartitionKeep}}, usual, []string{"onPartition", "leaseDuration"}},
		"stop":  {ServiceSpec{Template: Template{OnPartition: PartitionStop}}, usual + `,"restartPolicy":{"condition":"always","backOff":"1s","maxBackOff":"1m","resetAfter":"1m"},"terminationGracePeriod":"10s","onPartition":"stop","leaseDuration":"15s"`, []string{"exclusive"}},
		"exclusive": {ServiceSpec{Template: Template{Exclusive: true}}, `"rollout":{"maxSurge":0,"maxUnavailable":1` + rolled + `,"restartPolicy":{"condition":"always","backOff":"1s","maxBackOff":"1m","resetAfter":"1m"},` +
			`"terminationGracePeriod":"10s","exclusive":true,"onPartition":"stop","leaseDuration":"15s"`, nil},
		"exclusive, told otherwise": {ServiceSpec{Rollout: Rollout{MaxUnavailable: Percent(50)}, Template: Template{Exclusive: true, LeaseDuration: durationOf(time.Minute)}},
			`"rollout":{"maxSurge":0,"maxUnavailable":"50%",`, []string{"15s"}},
		"exclusive and keep stay for Validate": {ServiceSpec{Template: Template{Exclusive: true, OnPartition: PartitionKeep}}, `"exclusive":true,"onPartition":"keep"`, nil},
	} {
		s := &Service{Spec: c.spec}
		s.Default()
		got, err := json.Marshal(s.Spec)
		if err != nil || !strings.Contains(string(got), c.want) {
			t.Errorf("%s: %v\ngot  %s\nwant %s", name, err, got, c.want)
		}
		for _, word := range c.not {
			if strings.Contains(string(got), word) {
				t.Errorf("%s: has %s: %s", name, word, got)
			}
		}
		s.Default()
		if again, _ := json.Marshal(s.Spec); string(again) != string(got) {
			t.Errorf("%s: not idempotent: %s\n%s", name, got, again)
		}
	}
}

// TestExclusiveRollout: no surge, written or not, and always a way forward.
func TestExclusiveRollout(t *testing.T) {
	s := ServiceSpec{Template: Template{Exclusive: true}}
	for n, want := range map[int]int{0: 0, 1: 1, 5: 1} {
		if surge, un := s.Surge(n), s.Unavailable(n); surge != 0 || un != want {
			t.Errorf("of %d: %d more and %d fewer, want 0 and %d", n, surge, un, want)
		}
	}
	s.Rollout.MaxSurge = Count(3)
	if s.Surge(5) != 0 {
		t.Error("a surge that Validate refuses is granted")
	}
}

// TestLeaseRoom: the remedies that a refusal names are taken, and are the least
// and the most that are.
func TestLeaseRoom(t *testing.T) {
	bad := func(lease, grace time.Duration) bool {
		s := good()
		s.Spec.Containers[0].Lifecycle = nil // whose hook asks for a grace
		s.Spec.Exclusive, s.Spec.Rollout, s.Spec.LeaseDuration, s.Spec.TerminationGracePeriod = true, Rollout{}, durationOf(lease), durationOf(grace)
		return Validate(s) != nil
	}
	for _, grace := range []time.Duration{0, time.Millisecond, 999 * time.Millisecond, 10 * time.Second, time.Minute, 9 * time.Minute} {
		least := leaseFor(grace)
		if bad(least, grace) || !bad(least-time.Millisecond, grace) {
			t.Errorf("a grace of %s needs a lease of %s", grace, least)
		}
	}
	// No grace fits into so short a lease, not even none: only a longer lease is a remedy.
	brief := good()
	brief.Spec.Exclusive, brief.Spec.Rollout, brief.Spec.LeaseDuration, brief.Spec.TerminationGracePeriod = true, Rollout{}, durationOf(3*time.Second), durationOf(0)
	if err := fmt.Sprint(Validate(brief)); !strings.Contains(err, "set leaseDuration to at least 4s") || strings.Contains(err, "terminationGracePeriod to at most") {
		t.Errorf("a lease of 3s: %s", err)
	}
	for _, lease := range []time.Duration{4 * time.Second, DefaultLease, 77777 * time.Millisecond, MaxLease} {
		most := graceFor(lease)
		if bad(lease, most) || !bad(lease, most+1) {
			t.Errorf("a lease of %s takes a grace of %s", lease, most)
		}
	}
	if bad(DefaultLease, DefaultGrace) || DefaultLease > MaxLease {
		t.Error("the defaults do not go together")
	}
}

func durationOf(d time.Duration) *Duration { x := Duration(d); return &x }

// TestDefaultShares: a revision's maps are not changed through a copy of it.
func TestDefaultShares(t *testing.T) {
	s := good()
	copied := *s
	copied.Spec.Containers = append([]Container(nil), s.Spec.Containers...)
	s.Spec.Containers[0].SecurityContext.Seccomp = SeccompDefault
	copied.Default()
	if s.Spec.Containers[0].Ulimits["nofile"].Hard != 0 || s.Spec.Containers[0].SecurityContext.Seccomp == "" {
		t.Error("Default wrote into the other's limits or context")
	}
	if _, leaked := s.Spec.Containers[0].Resources.Limits[Pids]; leaked {
		t.Error("Default wrote into the other's map")
	}
}

// TestValidate covers what a manifest's own table (manifests/testdata/broken)
// cannot write down; there stand the messages of the rest.
func TestValidate(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*Service)
		want   string
	}{
		"kind":          {func(s *Service) { s.Kind = "Node" }, `kind: want "Service", but found "Node"`},
		"version":       {func(s *Service) { s.APIVersion = "v1" }, `apiVersion: want "orch/v1", but found "v1"`},
		"nul in arg":    {func(s *Service) { s.Spec.Containers[0].Args = []string{"a\x00"} }, `spec.containers[0].args[0]: has a NUL character: remove it, for no process can receive it`},
		"nul in env":    {func(s *Service) { s.Spec.Containers[0].Env[0].Value = "\x00" }, `spec.containers[0].env[0].value: has a NUL character: remove it, for no process can receive it`},
		"quantity":      {func(s *Service) { s.Spec.Containers[0].Resources.Requests[CPU] = -1 }, `spec.containers[0].resources.requests.cpu: is negative: want 0 or more`},
		"many":          {func(s *Service) { s.Spec.Containers = make([]Container, 21) }, `spec.containers: lists 23 with initContainers and sidecars: at most 20 are allowed in one service`},
		"large":         {func(s *Service) { s.Spec.Containers[0].Env[0].Value = strings.Repeat("x", MaxServiceBytes) }, `at most 262144 are allowed; move large values out of env and args`},
		"long duration": {func(s *Service) { s.Spec.TerminationGracePeriod = durationOf(25 * time.Hour) }, `spec.terminationGracePeriod: 25h is too long: at most 24h is allowed`},
		"version below": {func(s *Service) { s.Metadata.ResourceVersion = -1 }, `metadata.resourceVersion: is negative`},
		"annotation":    {func(s *Service) { s.Metadata.Annotations = map[string]string{"a b": ""} }, `metadata.annotations[a b]: "a b" is not a label key`},
		"long label":    {func(s *Service) { s.Metadata.Labels["app"] = strings.Repeat("x", 64) }, `metadata.labels[app]: "` + strings.Repeat("x", 64) + `" has 64 characters: at most 63`},
		"empty word":    {func(s *Service) { s.Spec.Containers[0].Command = []string{""} }, `spec.containers[0].command[0]: is empty: the first word is the program to run`},
		"headless": {func(s *Service) { s.Spec.Headless = true }, `spec.sessionAffinity: is about how a virtual IP leads to replicas, and a headless service has none: remove this line, or headless
spec.trafficDistribution: is about how a virtual IP leads to replicas, and a headless service has none: remove this line, or headless`},
		"headless alone":      {func(s *Service) { s.Spec.Headless, s.Spec.SessionAffinity, s.Spec.TrafficDistribution = true, "", "" }, ""},
		"affinity":            {func(s *Service) { s.Spec.SessionAffinity = "cookie" }, `spec.sessionAffinity: "cookie" is unknown: want clientIP, or leave it out`},
		"headless affinity":   {func(s *Service) { s.Spec.Headless, s.Spec.SessionAffinity = true, "cookie" }, `"cookie" is unknown`},
		"distribution":        {func(s *Service) { s.Spec.TrafficDistribution = "PreferSameNode" }, `"PreferSameNode" is unknown: want preferSameNode, or leave it out`},
		"publish everywhere":  {func(s *Service) { s.Spec.Containers[0].Ports[0].Mode = "" }, ""},
		"mode":                {func(s *Service) { s.Spec.Containers[0].Ports[0].Mode = "every" }, `spec.containers[0].ports[0].mode: "every" is unknown: want host to publish on the replica's own node, or remove mode`},
		"mode without":        {func(s *Service) { s.Spec.Containers[0].Ports[0].Publish = 0 }, "says how a port is published, but publish is missing"},
		"hostNetwork publish": {func(s *Service) { s.Spec.HostNetwork = true }, "spec.containers[0].ports[0].publish: is 8080, but a hostNetwork replica listens on its node's own port, 80: remove publish, or set it to 80"},
		"hostNetwork":         {func(s *Service) { s.Spec.HostNetwork, s.Spec.Containers[0].Ports[0].Publish = true, 80 }, ""},
		"image IPv6":          {func(s *Service) { s.Spec.Containers[0].Image = "[::1]:5000/web" }, ""},
		"image port":          {func(s *Service) { s.Spec.Containers[0].Image = "localhost:5000/a/b_c/d--e:V1" }, ""},
		"image nested":        {func(s *Service) { s.Spec.Containers[0].Image = "a//b" }, "a part of its path is empty"},
		"image name":          {func(s *Service) { s.Spec.Containers[0].Image = ":1.0" }, "it has no name"},
		"image long":          {func(s *Service) { s.Spec.Containers[0].Image = strings.Repeat("a", 300) }, "at most 255 are allowed"},
		"image both":          {func(s *Service) { s.Spec.Containers[0].Image = "a:1@sha256:" + strings.Repeat("0", 64) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.change(s)
			got := Validate(s)
			if c.want == "" {
				if got.Err() != nil {
					t.Errorf("refused: %v", got)
				}
			} else if got.Err() == nil || !strings.Contains(got.Error(), c.want) {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

// TestValidateNothing: an empty object is refused, not a crash.
func TestValidateNothing(t *testing.T) {
	s := &Service{Spec: ServiceSpec{Template: Template{Containers: []Container{{ReadinessProbe: &Probe{}, LivenessProbe: &Probe{HTTP: &HTTPProbe{}, TCP: &TCPProbe{}, Exec: &ExecProbe{}}}}}}}
	want := []string{"metadata.name", "spec.containers[0].name", "spec.containers[0].image", "spec.containers[0].readinessProbe", "spec.containers[0].livenessProbe",
		"spec.containers[0].livenessProbe.http.port", "spec.containers[0].livenessProbe.tcp.port", "spec.containers[0].livenessProbe.exec.command"}
	var got []string
	for _, v := range Validate(s) {
		got = append(got, v.Path)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}

// FuzzImage: what is taken has no blank, a name, and parts that a path may have.
func FuzzImage(f *testing.F) {
	for _, s := range []string{"web", "orch.local/web:1.0", "a/b@sha256:x", "[::1]/x", ":", "@", "a:b/c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, ref string) {
		if imageProblem(ref) == "" && (ref == "" || strings.ContainsAny(ref, " \n\t\"'\\;$") || strings.Contains(ref, "//")) {
			t.Errorf("%q was taken", ref)
		}
	})
}

func TestCheckNameAndLabel(t *testing.T) {
	for name, good := range map[string]bool{"n1": true, "a-b": true, "0": true, "": false, "-a": false, "a-": false, "A": false, "a.b": false, "a_b": false, "abcdefghijk": false, "ä": false, "a\n": false} {
		if err := CheckName(name, 10); (err == nil) != good {
			t.Errorf("name %q: %v", name, err)
		}
	}
	for label, good := range map[[2]string]bool{{"zone", "eu"}: true, {"a.b/c_D", ""}: true, {"", "x"}: false, {"/a", "x"}: false, {"a/", "x"}: false, {"a/b/c", "x"}: false, {"a", "b c"}: false, {"a\n", "b"}: false, {"a", "b\n"}: false} {
		if err := CheckLabel(label[0], label[1]); (err == nil) != good {
			t.Errorf("label %q: %v", label, err)
		}
	}
}
