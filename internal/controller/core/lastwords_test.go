package core

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// recall gives what the core keeps of a service, a line for each.
func (f *fleet) recall(service string) []string {
	f.t.Helper()
	f.ticket++
	f.step(Recall{Ticket: f.ticket, Key: api.Key{Namespace: "default", Name: service}})
	f.turn()
	var out []string
	for _, w := range f.replies[f.ticket].Value.(Recalled).Words {
		text := fmt.Sprintf("%s %s on %s: %s", w.Replica.Name(), w.Container, w.Node, orElse(w.Exit.Message, w.Exit.Reason))
		if w.Exit.Output != "" {
			text += " wrote " + w.Exit.Output
		}
		if w.Untold {
			text += ", untold"
		}
		if w.Gone {
			text += ", gone"
		}
		out = append(out, text)
	}
	return out
}

// ends reports replicas as running after n ends each.
func ends(n *int) func(*agent, wire.Assignment) *api.ReplicaStatus {
	return func(a *agent, x wire.Assignment) *api.ReplicaStatus {
		s := &api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true, IP: "10.64.0.9", Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerRunning, Ready: true, Restarts: *n}}}
		if *n > 0 {
			s.Containers[0].LastExit = &api.Exit{Code: 1, Reason: api.ExitError, Message: fmt.Sprintf("exit code %d", *n), FinishedAt: start.Add(time.Duration(*n) * time.Second), Output: fmt.Sprintf("line %d", *n)}
		}
		return s
	}
}

func (f *fleet) wantWords(when string, want ...string) {
	f.t.Helper()
	if got := f.recall("web"); !slices.Equal(got, want) {
		f.t.Errorf("%s:\n%s\nwant\n%s", when, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// What a node told of ends outlives the replica and the node, and a new leader has it
// of the nodes that are left.
func TestLastWords(t *testing.T) {
	f := threeNodes(t)
	var n int
	f.says = ends(&n)
	f.apply("1", web(1, "a:1"))
	var key api.ReplicaKey
	for k := range f.core.fillings {
		key = k
	}
	node := f.core.fillings[key].node
	f.wantWords("nothing has ended")
	for n = 1; n <= 2; n++ {
		f.reportAll(f.agents[node])
		f.reportAll(f.agents[node]) // the same is told once
	}
	n = 2
	first, second := "web-0 main on "+node+": exit code 1 wrote line 1", "web-0 main on "+node+": exit code 2 wrote line 2"
	f.wantWords("two ends", first, second)

	f.elect()
	f.node(node, f.agents[node].boot)
	f.wantWords("after a takeover", second)

	for _, name := range []string{"n1", "n2", "n3"} {
		if name != node {
			f.node(name, f.agents[name].boot)
		}
	}
	n = 0
	f.silence(node)
	f.pass(70 * time.Second)
	got := f.recall("web")
	if len(got) != 2 || got[0] != second+", gone" || !strings.HasPrefix(got[1], "web-0 main on "+node+": its node "+node+" died: ") || !strings.HasSuffix(got[1], ", untold, gone") {
		t.Errorf("after its node died:\n%s", strings.Join(got, "\n"))
	}
	if _, ok := f.core.fillings[key]; ok {
		t.Errorf("%s is still there", key)
	}
}

// What is stopped has its reason kept, and which node it was on, whether or not its
// agent told last that it runs.
func TestLastWordsOfWhatIsStopped(t *testing.T) {
	for _, state := range []api.ContainerState{api.ContainerRunning, api.ContainerExited, api.ContainerWaiting} {
		t.Run(string(state), func(t *testing.T) { lastWordsOfWhatIsStopped(t, state) })
	}
}

func lastWordsOfWhatIsStopped(t *testing.T, state api.ContainerState) {
	f := threeNodes(t)
	f.says = func(*agent, wire.Assignment) *api.ReplicaStatus {
		return &api.ReplicaStatus{Phase: api.PhaseRunning, Ready: true, IP: "10.64.0.9", Containers: []api.ContainerStatus{{Name: "main", State: state}}}
	}
	f.apply("1", web(1, "a:1"))
	var node string
	for _, x := range f.core.fillings {
		node = x.node
	}
	f.ticket++
	f.step(Delete{Ticket: f.ticket, Refs: []api.Ref{{Key: api.Key{Namespace: "default", Name: "web"}}}, By: "user x"})
	f.pass(10 * time.Second)
	if got := f.recall("web"); len(got) != 1 || !strings.HasPrefix(got[0], "web-0 main on "+node+": stopped: ") || !strings.HasSuffix(got[0], ", untold, gone") {
		t.Errorf("got %q", got)
	}
}

func TestLastWordsAreBounded(t *testing.T) {
	key := func(service, epoch int) api.ReplicaKey {
		return api.ReplicaKey{Namespace: "default", Service: fmt.Sprintf("s%d", service), Epoch: uint64(epoch)}
	}
	l := newLastWords()
	for i := range wordsPerServiceMax + 3 {
		l.keep(LastWords{Replica: key(0, i), Container: "main"})
	}
	if n := len(l.of[key(0, 0).ServiceKey()]); n != wordsPerServiceMax || l.all.Len() != n {
		t.Errorf("%d of one service, %d in all; want %d", n, l.all.Len(), wordsPerServiceMax)
	}
	if l.newest(key(0, 2), "main") != nil || l.newest(key(0, 3), "main") == nil || l.newest(key(0, 3), "other") != nil {
		t.Error("it is not the oldest that went")
	}
	crash := l.newest(key(0, 10), "main")
	for i := range wordsPerServiceMax { // a rollout
		l.keep(LastWords{Replica: key(0, 1000+i), Container: "main", Untold: true})
	}
	if n := len(l.of[key(0, 0).ServiceKey()]); n != wordsPerServiceMax || l.newest(key(0, 10), "main") != crash || l.newest(key(0, 1000+wordsPerServiceMax-1), "main") == nil {
		t.Errorf("%d of one service; what was stopped pushed out what had crashed", n)
	}
	for i := range wordsMax {
		l.keep(LastWords{Replica: key(1+i/10, i), Container: "main"})
	}
	total := 0
	for _, list := range l.of {
		total += len(list)
	}
	if total != wordsMax || l.all.Len() != wordsMax {
		t.Errorf("%d and %d are kept, want %d", total, l.all.Len(), wordsMax)
	}
	if _, ok := l.of[key(0, 0).ServiceKey()]; ok {
		t.Error("the oldest service is still there")
	}
	if got := lastBytes(strings.Repeat("ü", 100), 5); got != "üü" {
		t.Errorf("the last 5 bytes: %q", got)
	}
}

// An agent that tells more than it may is cut down to the end of it.
func TestLastWordsAreShort(t *testing.T) {
	f := threeNodes(t)
	f.says = func(*agent, wire.Assignment) *api.ReplicaStatus {
		return &api.ReplicaStatus{Phase: api.PhaseRunning, Containers: []api.ContainerStatus{{Name: "main", State: api.ContainerWaiting,
			LastExit: &api.Exit{Code: 1, Reason: api.ExitError, FinishedAt: start, Output: strings.Repeat("x", 1<<20) + "the end"}}}}
	}
	f.apply("1", web(1, "a:1"))
	list := f.core.words.of[api.Key{Namespace: "default", Name: "web"}]
	if len(list) != 1 {
		t.Fatalf("%d are kept", len(list))
	}
	if out := list[0].Value.(*LastWords).Exit.Output; len(out) != api.MaxLastOutput || !strings.HasSuffix(out, "the end") {
		t.Errorf("%d bytes are kept", len(out))
	}
}
