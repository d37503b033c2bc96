package session

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func TestReportsAreBounded(t *testing.T) {
	long, never := strings.Repeat("\u00e4", 1<<20), time.Unix(1<<42, 0)
	r := wire.StatusReport{Orphans: make([]string, orphansMax+1), Replicas: []wire.Report{{Status: api.ReplicaStatus{
		Reason: long, Message: long, StartedAt: never,
		Containers: append([]api.ContainerStatus{{Name: long, ID: long, State: api.ContainerState(long), Reason: long, Message: long, ImageID: long, StartedAt: never,
			LastExit: &api.Exit{Reason: long, Message: long, FinishedAt: never, Output: long}}}, make([]api.ContainerStatus, 100)...),
	}}}}
	r.Orphans[0] = long
	if err := checkReport(&r); err != nil {
		t.Fatal(err)
	}
	js, err := json.Marshal(r)
	if err != nil {
		t.Fatalf("it cannot be shown: %v", err)
	}
	if len(js) > 32<<10 || !utf8.Valid(js) {
		t.Errorf("%d bytes are left", len(js))
	}
	if len(r.Orphans) != orphansMax || len(r.Replicas[0].Status.Containers) != containersMax {
		t.Errorf("%d orphans, %d containers are left", len(r.Orphans), len(r.Replicas[0].Status.Containers))
	}
	for _, ip := range []string{"10.0.0.300", "web", strings.Repeat("1", 1<<20), "fe80::1%" + long} {
		r := wire.StatusReport{Replicas: []wire.Report{{Status: api.ReplicaStatus{IP: ip}}}}
		if checkReport(&r) == nil {
			t.Errorf("address %.20q is taken", ip)
		}
	}
}

func TestHonestReportsStay(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	report := func() wire.StatusReport {
		return wire.StatusReport{Complete: true, Taken: 3, Orphans: []string{"a"}, Replicas: []wire.Report{{Revision: 2, Status: api.ReplicaStatus{
			Phase: api.PhaseRunning, Ready: true, IP: "10.64.0.2", Message: "well", StartedAt: now,
			Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerRunning, LastExit: &api.Exit{Code: 1, Reason: api.ExitError, FinishedAt: now}}}}}}}
	}
	r := report()
	if err := checkReport(&r); err != nil || !reflect.DeepEqual(r, report()) {
		t.Errorf("%v: %+v", err, r)
	}
}

func TestHelloAddress(t *testing.T) {
	for _, a := range []string{"", "255.255.255.255", "224.0.0.1", "n1", "fe80::1%eth0", "fe80::1%" + strings.Repeat("x", 4<<20), "0.0.0.0"} {
		if checkHello(wire.Hello{BootID: "b", Address: a}) == nil {
			t.Errorf("address %.20q is taken", a)
		}
	}
	for _, a := range []string{"10.0.0.1", "2001:db8::1"} {
		if err := checkHello(wire.Hello{BootID: "b", Address: a}); err != nil {
			t.Error(err)
		}
	}
}
