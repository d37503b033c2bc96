package liveness

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/golden"
)

// TestGolden runs the scripts in testdata. A script is commands, each followed by
// what the machine printed, indented:
//
//	fleet 8                            (n1 to n8 are added and open sessions; prints nothing)
//	add n1 [boot=b] [verdict=dead]     open n1 boot=b [wasdead]   close n1 [graceful]
//	beat n1 n2 [age=2s]                hint n1 alive|dead         remove n1
//	check n1 [age=2s] [failing=text_with_underscores] [io=0.95] [mem=0.1]
//	                                   (what all further beats of n1 tell of its self-check)
//	witness n2 n1 host=yes|no [ports=1/2] [how=text] [ask=7]      (ask: the latest for n1)
//	operatordead n1 by=kim             stalled 3s (time passes)   lead | reconciled n1
//	thaw by=kim
//	tick 350ms [beats=n2,n3] [see=n1:no|yes|hostonly] [mute=n2] [brief|terse]
//	                                   (time passes; the nodes named beat; every observer that
//	                                   is not mute reports what it is said to see; brief leaves
//	                                   out asks, terse evidence too)
//	wake                               (prints NextWake)
//
// Lists of nodes may hold ranges: n2-n5,n8. The names at the end of a verdict are
// those whose word it rests on.
func TestGolden(t *testing.T) { golden.Scripts(t, runScript) }

// script drives a machine by hand or by commands, and prints what it does.
type script struct {
	t       fataler
	m       *Machine
	now     time.Time
	seq     map[string]uint64
	asked   map[string]AskWitnesses // latest by target
	effects []Effect                // of the last command
	checks  map[string]SelfCheck    // what nodes' beats carry
	brief   bool                    // print no asks
	terse   bool                    // nor evidence
	mute    []string                // observers that do not report in a tick
	out     strings.Builder
}

// fataler is a test or a property's one.
type fataler interface {
	Helper()
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newScript(t fataler) *script {
	return &script{t: t, m: New(Limits{}), now: epoch, seq: map[string]uint64{}, asked: map[string]AskWitnesses{}, checks: map[string]SelfCheck{}}
}

func runScript(t *testing.T, text string) string {
	s := newScript(t)
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, "  ") {
			continue // what it printed last time
		}
		s.out.WriteString(line + "\n")
		if line != "" && !strings.HasPrefix(line, "#") {
			s.command(strings.Fields(line))
		}
	}
	return s.out.String()
}

func (s *script) command(f []string) {
	s.t.Helper()
	opt := map[string]string{}
	var args []string
	for _, word := range f[1:] {
		key, value, _ := strings.Cut(word, "=")
		opt[key] = value
		if !strings.Contains(word, "=") {
			args = append(args, word)
		}
	}
	_, wasDead := opt["wasdead"]
	_, graceful := opt["graceful"]
	_, s.brief = opt["brief"]
	_, s.terse = opt["terse"]
	s.effects = nil
	switch f[0] {
	case "fleet":
		size, err := strconv.Atoi(args[0])
		if err != nil {
			s.t.Fatal(err)
		}
		for i := range size {
			n := fmt.Sprintf("n%d", i+1)
			s.m.Step(NodeAdded{Node: n}, s.now)
			s.m.Step(SessionOpened{Node: n, BootID: "b" + n[1:]}, s.now)
		}
	case "check":
		c := SelfCheck{Age: s.duration(opt["age"]), Failing: strings.ReplaceAll(opt["failing"], "_", " ")}
		fmt.Sscanf(opt["io"], "%g", &c.IOPressure)
		fmt.Sscanf(opt["mem"], "%g", &c.MemoryPressure)
		s.checks[args[0]] = c
	case "thaw":
		s.step(OperatorThaw{By: opt["by"]})
	case "add":
		verdict := Unknown
		for v := Unknown; v <= Back; v++ {
			if opt["verdict"] == strings.ReplaceAll(v.String(), " ", "") {
				verdict = v
			}
		}
		s.step(NodeAdded{Node: args[0], BootID: opt["boot"], Verdict: verdict})
	case "remove":
		s.step(NodeRemoved{args[0]})
	case "open":
		s.seq[args[0]] = 0
		s.step(SessionOpened{Node: args[0], BootID: opt["boot"], WasDead: wasDead})
	case "close":
		s.step(SessionClosed{args[0], graceful})
	case "beat":
		for _, n := range args {
			if age := opt["age"]; age != "" {
				s.checks[n] = SelfCheck{Age: s.duration(age)}
			}
			s.beat(n)
		}
	case "hint":
		s.step(GossipHint{args[0], args[1] == "alive"})
	case "witness":
		r := WitnessReport{Observer: args[0], Target: args[1], AskID: s.asked[args[1]].AskID,
			HostAnswers: opt["host"] == "yes", How: opt["how"]}
		fmt.Sscanf(opt["ports"], "%d/%d", &r.PortsAnswered, &r.PortsAsked)
		if id, err := strconv.ParseUint(opt["ask"], 10, 64); err == nil {
			r.AskID = id
		}
		s.step(r)
	case "operatordead":
		s.step(OperatorDead{args[0], opt["by"]})
	case "stalled":
		d := s.duration(args[0])
		s.now = s.now.Add(d)
		s.step(LeaderStalled{d})
		s.step(Tick{})
	case "lead":
		s.step(LeaderStarted{BootID: opt["boot"]})
	case "reconciled":
		s.step(Reconciled{args[0]})
	case "tick":
		see := map[string]string{}
		for _, pair := range strings.FieldsFunc(opt["see"], func(r rune) bool { return r == ',' }) {
			targets, what, _ := strings.Cut(pair, ":")
			for _, target := range list(targets) {
				see[target] = what
			}
		}
		s.mute = list(opt["mute"])
		s.tick(s.duration(args[0]), list(opt["beats"]), see)
	case "wake":
		if at, ok := s.m.NextWake(); ok {
			fmt.Fprintf(&s.out, "  %s from now\n", at.Sub(s.now))
		} else {
			s.out.WriteString("  never\n")
		}
	default:
		s.t.Fatalf("no such command: %v", f)
	}
}

// list gives the names of "n1,n4-n6".
func list(s string) []string {
	var names []string
	for _, item := range strings.FieldsFunc(s, func(r rune) bool { return r == ',' }) {
		var from, to int
		if n, _ := fmt.Sscanf(item, "n%d-n%d", &from, &to); n < 2 {
			names = append(names, item)
			continue
		}
		for ; from <= to; from++ {
			names = append(names, fmt.Sprintf("n%d", from))
		}
	}
	return names
}

func (s *script) duration(text string) time.Duration {
	if text == "" {
		return 0
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return d
}

func (s *script) beat(n string) []Effect {
	s.seq[n]++
	return s.step(Beat{n, s.seq[n], s.checks[n]})
}

// tick lets time pass: the named nodes beat every BeatEvery, Tick comes when it
// is due, and asks about targets in see are answered ProbeTimeout later.
func (s *script) tick(d time.Duration, beats []string, see map[string]string) {
	type answer struct {
		at  time.Time
		ask AskWitnesses
	}
	var answers []answer
	gather := func(effects []Effect) {
		for _, e := range effects {
			if a, ok := e.(AskWitnesses); ok && see[a.Target] != "" {
				answers = append(answers, answer{s.now.Add(a.Timeout), a})
			}
		}
	}
	for _, a := range s.asked { // one that was asked before this tick
		if see[a.Target] != "" && s.m.nodes[a.Target] != nil && s.m.nodes[a.Target].asking() {
			answers = append(answers, answer{s.now.Add(a.Timeout), a})
		}
	}
	slices.SortFunc(answers, func(a, b answer) int { return int(a.ask.AskID) - int(b.ask.AskID) })

	end := s.now.Add(d)
	nextBeat := s.now.Add(s.m.limits.BeatEvery)
	for {
		next := end
		if len(beats) > 0 {
			next = earlier(next, nextBeat)
		}
		if len(answers) > 0 {
			next = earlier(next, answers[0].at)
		}
		wake, ok := s.m.NextWake()
		if ok && !wake.Before(s.now) {
			next = earlier(next, wake)
		}
		s.now = next
		if len(beats) > 0 && !next.Before(nextBeat) {
			nextBeat = nextBeat.Add(s.m.limits.BeatEvery)
			for _, n := range beats {
				gather(s.beat(n))
			}
		}
		for len(answers) > 0 && !next.Before(answers[0].at) {
			a := answers[0].ask
			answers = answers[1:]
			for _, o := range a.Observers {
				r := WitnessReport{Observer: o, Target: a.Target, AskID: a.AskID}
				switch see[a.Target] {
				case "yes":
					r.HostAnswers, r.PortsAsked, r.PortsAnswered = true, 1, 1
				case "hostonly":
					r.HostAnswers, r.PortsAsked = true, 1
				}
				if !slices.Contains(s.mute, o) {
					gather(s.step(r))
				}
			}
		}
		gather(s.step(Tick{}))
		if !s.now.Before(end) {
			return
		}
	}
}

func (s *script) step(ev Event) []Effect {
	effects := s.m.Step(ev, s.now)
	s.effects = append(s.effects, effects...)
	for _, e := range effects {
		switch e := e.(type) {
		case SetVerdict:
			by := ""
			if len(e.By) > 0 {
				by = " [" + strings.Join(e.By, ", ") + "]"
			}
			s.print(e.Evidence, "%s: %s -> %s: %s%s", e.Node, e.From, e.To, e.Why, by)
		case SetImpaired:
			s.print(e.Evidence, "%s: %s: %s", e.Node, word(e.Impaired, "impaired", "works again"), e.Why)
		case SetDamped:
			until := ""
			if e.Damped {
				until = " for " + e.Until.Sub(s.now).String()
			}
			s.print(nil, "%s: %s%s: %s", e.Node, word(e.Damped, "damped", "no longer damped"), until, e.Why)
		case SetFrozen:
			s.print(e.Evidence, "%s: %s", word(e.Frozen, "FROZEN", "THAWED"), e.Why)
		case NewLife:
			s.print(nil, "%s: new life %s -> %s", e.Node, e.OldBoot, e.NewBoot)
		case AskWitnesses:
			s.asked[e.Target] = e
			if !s.brief && !s.terse {
				s.print(nil, "ask %d about %s: %s", e.AskID, e.Target, strings.Join(e.Observers, " "))
			}
		}
	}
	return effects
}

// print tells one effect.
func (s *script) print(evidence []string, format string, args ...any) {
	fmt.Fprintf(&s.out, "  %s %s\n", told(s.now.Sub(epoch)), fmt.Sprintf(format, args...))
	if s.terse {
		return
	}
	for _, line := range evidence {
		fmt.Fprintf(&s.out, "      %s\n", line)
	}
}

func word(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}
