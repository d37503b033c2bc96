package api

import (
	"reflect"
	"strings"
	"testing"
)

func TestContainerName(t *testing.T) {
	long := strings.Repeat("a", MaxServiceName)
	seen := map[string]ReplicaKey{}
	for _, c := range []struct {
		key       ReplicaKey
		container string
		want      string // "" = only the rules
	}{
		{ReplicaKey{"default", "web", 0, 17}, "main", "default.web-0.17.main"},
		{ReplicaKey{"default", "a--b", 0, 17}, "main", "default-a-b-0-17-main.400dd7f94328f1d6"},
		{ReplicaKey{"default", "a-b", 0, 17}, "main", "default.a-b-0.17.main"},
		{ReplicaKey{long, long, 99999, 1 << 63}, long, ""},
		{ReplicaKey{long, long, 99999, 1 << 63}, long + "b", ""},
		{ReplicaKey{long, long, 99998, 1 << 63}, long, ""},
		{ReplicaKey{"", "", 0, 0}, "", ""},
		{ReplicaKey{"ä", "ö", 0, 0}, "..", ""},
		{ReplicaKey{"a.b", "c", 0, 1}, "d", ""},
		{ReplicaKey{"a", "b.c", 0, 1}, "d", ""},
	} {
		got := c.key.ContainerName(c.container)
		if c.want != "" && got != c.want {
			t.Errorf("%s %s: got %s, want %s", c.key, c.container, got, c.want)
		}
		checkContainerName(t, got)
		if before, twice := seen[got]; twice {
			t.Errorf("%s and %s are both %s", before, c.key, got)
		}
		seen[got] = c.key
	}
}

func checkContainerName(t *testing.T, name string) {
	t.Helper()
	if len(name) > maxContainerdID || !containerdID.MatchString(name) {
		t.Errorf("containerd refuses %q (%d characters)", name, len(name))
	}
}

func FuzzContainerName(f *testing.F) {
	f.Add("default", "web", "main", 0, uint64(17))
	f.Add("a--b", "-", "", -1, uint64(0))
	f.Fuzz(func(t *testing.T, ns, service, container string, slot int, epoch uint64) {
		checkContainerName(t, ReplicaKey{ns, service, slot, epoch}.ContainerName(container))
	})
}

func TestParseReplicaRef(t *testing.T) {
	for text, want := range map[string]ReplicaRef{
		"web-0":         {Service: "web", Slot: 0},
		"default/web-0": {Namespace: "default", Service: "web", Slot: 0},
		"web-0@17":      {Service: "web", Slot: 0, Epoch: 17},
		"shop/a-1-22@9": {Namespace: "shop", Service: "a-1", Slot: 22, Epoch: 9},
	} {
		got, err := ParseReplicaRef(text)
		if err != nil || got != want || got.String() != text {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	for text, why := range map[string]string{
		"": "no slot", "web": "no slot", "web-": "slot", "web-x": "slot", "web-01": "slot", "-0": "service is empty", "web-0@": "epoch", "web-0@0": "epoch",
		"/web-0": "namespace is empty", "a/b/web-0": "service", "Web-0": "service", "web-0@17@1": "epoch", "web-99999999999999999999": "slot", "web-+1": "slot", "web-200000": "slot",
	} {
		if got, err := ParseReplicaRef(text); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%q: got %+v, %v; want %q", text, got, err, why)
		}
	}
}

func FuzzReplicaRef(f *testing.F) {
	for _, s := range []string{"web-0", "default/web-0@17", "a--1", "web-00", "/-0@"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if r, err := ParseReplicaRef(text); err == nil && r.String() != text {
			t.Errorf("%q is %+v, prints %s", text, r, r)
		}
	})
}

func TestRolloutBounds(t *testing.T) {
	for _, c := range []struct {
		surge, unready *IntOrPercent
		n              int
		wantS, wantU   int
	}{
		{nil, nil, 3, 1, 0}, {nil, nil, 4, 1, 1}, {nil, nil, 0, 0, 0}, {Count(0), Percent(25), 3, 0, 1}, {Count(0), Percent(25), 0, 0, 0},
		{Count(5), Count(9), 3, 5, 3}, {Percent(100), Count(0), 3, 3, 0}, {Count(-1), Count(-1), 3, 0, 1},
	} {
		s := ServiceSpec{Rollout: Rollout{MaxSurge: c.surge, MaxUnavailable: c.unready}}
		if gotS, gotU := s.Surge(c.n), s.Unavailable(c.n); gotS != c.wantS || gotU != c.wantU {
			t.Errorf("%+v of %d: surge %d, unavailable %d; want %d, %d", s.Rollout, c.n, gotS, gotU, c.wantS, c.wantU)
		}
	}
}

func TestTemplateSums(t *testing.T) {
	tmpl := Template{Containers: []Container{
		{Resources: Resources{Requests: ResourceList{CPU: 500, "gpus": Whole(1)}, Limits: ResourceList{Memory: Whole(64 << 20), Pids: Whole(5)}},
			Ports: []Port{{Port: 80, Publish: 8080, Mode: PublishHost}, {Port: 81}, {Port: 82, Publish: 8082}}},
		{Resources: Resources{Requests: ResourceList{CPU: 250, Memory: 0}, Limits: ResourceList{CPU: 2000}},
			Ports: []Port{{Port: 53, Protocol: UDP, Publish: 53, Mode: PublishHost}}},
		{},
	}}
	if got, want := tmpl.Requests(), (ResourceList{CPU: 750, Memory: Whole(64 << 20), "gpus": 1000}); !reflect.DeepEqual(got, want) {
		t.Errorf("requests %v, want %v", got, want)
	}
	if got, want := tmpl.HostPorts(), []HostPort{{53, UDP}, {8080, TCP}}; !reflect.DeepEqual(got, want) {
		t.Errorf("host ports %v, want %v", got, want)
	}
	tmpl.HostNetwork = true
	if got, want := tmpl.HostPorts(), []HostPort{{53, UDP}, {80, TCP}, {81, TCP}, {82, TCP}}; !reflect.DeepEqual(got, want) {
		t.Errorf("host ports with hostNetwork %v, want %v", got, want)
	}
	if tmpl.Containers[2].Resources.Limits != nil {
		t.Error("Requests changed the template")
	}
	huge := Template{Containers: []Container{{Resources: Resources{Requests: ResourceList{CPU: MaxQuantity}}}, {Resources: Resources{Requests: ResourceList{CPU: 1}}}}}
	if got := huge.Requests()[CPU]; got != MaxQuantity {
		t.Errorf("an overflowing sum is %d", got)
	}
}

func TestPortRef(t *testing.T) {
	ports := []Port{{Name: "http", Port: 80}, {Port: 81}}
	for ref, want := range map[PortRef]int{"http": 80, "9090": 9090, "": 0, "none": 0, "0": 0, "65536": 0, "-1": 0} {
		if got, ok := ref.Resolve(ports); ok != (want != 0) || (ok && got != want) {
			t.Errorf("%q resolves to %d, %t; want %d", ref, got, ok, want)
		}
	}
}
