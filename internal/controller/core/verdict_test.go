package core

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func (f *fleet) recordsOf(node string) []*api.VerdictRecord {
	var out []*api.VerdictRecord
	for _, x := range f.seen {
		if r, ok := x.(*api.VerdictRecord); ok && r.Node == node {
			out = append(out, r)
		}
	}
	slices.SortFunc(out, func(a, b *api.VerdictRecord) int { return int(a.Seq) - int(b.Seq) })
	return out
}

// Every verdict is kept with whose word it rests on and with what followed, and
// outlives the leader.
func TestVerdictsAreKept(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(3, "a:1"))
	f.silence("n2")
	f.pass(time.Second)
	f.node("n2", "boot1")
	f.pass(time.Second)
	f.word("n2", "dead")
	var story []string
	for _, r := range f.recordsOf("n2") {
		story = append(story, fmt.Sprintf("%s>%s", r.From, r.To))
	}
	if got := strings.Join(story, " "); got != "Unknown>Healthy Healthy>Suspect Suspect>Back Back>Healthy Healthy>Dead" {
		t.Errorf("n2: %s", got)
	}
	suspect := f.record("n2", "Suspect")
	by := slices.Sorted(slices.Values(suspect.By))
	if !slices.Equal(by, []string{"leader", "n1", "n3"}) || len(suspect.Evidence) < 4 || suspect.Why == "" || !suspect.Time.After(start) {
		t.Errorf("suspect: %+v", suspect)
	}
	if want := (api.Done{EndpointsWithdrawn: 1, SparesPlaced: 1}); suspect.Done != want {
		t.Errorf("suspect: done %+v", suspect.Done)
	}
	if want := (api.Done{SparesRemoved: 1}); f.record("n2", "Back").Done != want {
		t.Errorf("back: done %+v", f.record("n2", "Back").Done)
	}
	dead := f.record("n2", "Dead")
	if want := (api.Done{Voided: 1, EndpointsWithdrawn: 1}); dead.Done != want || !strings.Contains(strings.Join(dead.By, " "), "user root") {
		t.Errorf("dead: %+v", dead)
	}
	before := f.recordsOf("n2")
	f.elect()
	f.pass(50 * time.Millisecond)
	if after := f.recordsOf("n2"); len(after) != len(before) || !reflect.DeepEqual(asStored(before), asStored(after)) {
		t.Errorf("a new leader shows %d records, the one before %d", len(after), len(before))
	}
	f.dial("n1", "n3")
	if n := len(f.recordsOf("n1")); n != 1 {
		t.Errorf("%d records of a node that was always well", n)
	}
	if err := f.word("n2", "remove"); err != nil {
		t.Fatal(err)
	}
	if n := len(f.recordsOf("n2")); n != 0 {
		t.Errorf("%d records of a removed node", n)
	}
	for k := range f.kv {
		if strings.HasPrefix(k, verdictPrefix+"n2/") {
			t.Errorf("%s is left", k)
		}
	}
}

// asStored leaves out what is in a time besides the time.
func asStored(rs []*api.VerdictRecord) (out []string) {
	for _, r := range rs {
		out = append(out, string(object(api.KindVerdict, r)))
	}
	return out
}

// A record is written once a turn at most, and not when nothing followed.
func TestRecordsAreWrittenSeldom(t *testing.T) {
	f := threeNodes(t)
	f.apply("1", web(9, "a:1"))
	f.silence("n2")
	f.commits = false
	f.pass(time.Second)
	writes := map[int]int{}
	for f.commits = true; len(f.out) > 0; f.turn() {
		e := f.out[0]
		f.out = f.out[1:]
		for _, op := range e.Ops {
			if strings.HasPrefix(op.Key, verdictPrefix) {
				writes[int(e.Seq)]++
			}
		}
		f.commit(e)
	}
	for seq, n := range writes {
		if n > 1 {
			t.Errorf("transaction %d writes %d records", seq, n)
		}
	}
	f.pass(time.Second)
	rev := f.rev
	f.pass(10 * time.Second)
	if f.rev != rev {
		t.Errorf("%d transactions while nothing happened", f.rev-rev)
	}
}

func TestVerdictHistoryIsBounded(t *testing.T) {
	f := nodes(t, 3, Config{VerdictHistory: 4})
	for range 5 {
		f.silence("n2")
		f.pass(time.Second)
		f.node("n2", "boot1")
		f.pass(time.Second)
	}
	if n := len(f.recordsOf("n2")); n != 4 {
		t.Errorf("%d records are published", n)
	}
	stored := 0
	for k := range f.kv {
		if strings.HasPrefix(k, verdictPrefix+"n2/") {
			stored++
		}
	}
	if stored != 4 {
		t.Errorf("%d records are stored", stored)
	}
}

// The fleet's freeze is told and shown; nobody dies by silence meanwhile.
func TestFreeze(t *testing.T) {
	f := nodes(t, 6, Config{})
	f.apply("1", web(6, "a:1"))
	for _, n := range []string{"n4", "n5", "n6"} {
		f.silence(n)
	}
	f.pass(2 * time.Second)
	st := f.status()
	if !st.Frozen || st.FrozenWhy == "" || st.Nodes[api.VerdictSuspect] != 3 || st.Spares != 3 {
		t.Errorf("fleet %+v", st)
	}
	f.mustReady("web", 6) // spares start all the same
	told := slices.ContainsFunc(f.core.history.of[""], func(e *api.Event) bool {
		return e.Kind == api.KindFleet && e.Name == api.FleetName && e.Reason == "Frozen" && e.Type == api.EventWarning
	})
	if !told {
		t.Error("no event tells of the freeze")
	}
	for _, n := range []string{"n4", "n5", "n6"} {
		f.node(n, "boot1")
	}
	f.pass(2 * time.Second)
	if st := f.status(); st.Frozen || !st.FrozenSince.IsZero() || st.Nodes[api.VerdictHealthy] != 6 {
		t.Errorf("fleet after all is back %+v", st)
	}
}
