package reconciler

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/golden"
)

// TestScripts runs testdata/*.txt. A line is a command; the lines after it that
// start with "> " are its output. Commands:
//
//	service web replicas=3 surge=1 unavailable=0   the first line
//	nodes n1 n2 n3                                 the fleet, all healthy
//	apply rev 2 | scale 5 | delete                 what the user does
//	suspect|lost|unknown|back|healthy|dead n1      the verdict of a node
//	ready [web-0@1] | unready web-0@1 | fail web-0@1   what agents report
//	gone                                           what was stopping is gone, where heard
//	relieve n1 WHY | well n1                       what is there is to be relieved, no longer
//	impair n1 | damp n1 | undamp n1                it cannot work (nothing new, relieved), comes and goes
//	exclusive 1 2 | shared                         exclusive now, and which revisions have leases
//	stable 1 | hold 1 | free                       what was rolled out well, how far the rollout may come
//	minready 10s | recreate                        how it is rolled out
//	wait 5s | renew                                time passes; leases are granted where heard
//	refuse | accept                                no new filling finds a node; it does again
//	tick                                           plan, print, apply, check that nothing is planned then
//	show                                           print the fillings
func TestScripts(t *testing.T) { golden.Scripts(t, runScript) }

func runScript(t *testing.T, script string) string {
	var out bytes.Buffer
	w := newFleet(0, 0, 0)
	for sc := bufio.NewScanner(strings.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, "> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		for _, l := range strings.Split(strings.TrimSuffix(runCommand(t, &w, strings.Fields(line)), "\n"), "\n") {
			if l != "" {
				fmt.Fprintln(&out, "> "+l)
			}
		}
	}
	return out.String()
}

var verdictWords = map[string]api.Verdict{"suspect": api.VerdictSuspect, "lost": api.VerdictAgentLost, "unknown": api.VerdictUnknown,
	"back": api.VerdictBack, "healthy": api.VerdictHealthy, "dead": api.VerdictDead}

func runCommand(t *testing.T, w **fleet, f []string) string {
	t.Helper()
	scan := func(s, format string, to ...any) {
		if _, err := fmt.Sscanf(s, format, to...); err != nil {
			t.Fatalf("%q: %v", f, err)
		}
	}
	arg := strings.Join(f[1:], " ")
	if v, ok := verdictWords[f[0]]; ok {
		(*w).judge(arg, v)
		return ""
	}
	switch f[0] {
	case "service":
		var r, s, u int
		scan(arg, "web replicas=%d surge=%d unavailable=%d", &r, &s, &u)
		*w = newFleet(r, s, u)
	case "nodes":
		v := (*w).view
		*w = newFleet(v.Replicas, v.MaxSurge, v.MaxUnavailable, f[1:]...)
	case "apply":
		scan(arg, "rev %d", &(*w).view.Revision)
	case "scale":
		scan(arg, "%d", &(*w).view.Replicas)
	case "delete":
		(*w).view.Deleting = true
	case "ready", "unready", "fail":
		(*w).reportByName(t, f[0], arg)
	case "gone":
		(*w).gone()
	case "relieve":
		(*w).relieve(f[1], strings.Join(f[2:], " "))
	case "well":
		(*w).impaired[arg] = false
		(*w).relieve(arg, "")
	case "impair":
		(*w).impair(arg)
	case "damp", "undamp":
		(*w).damp(arg, f[0] == "damp")
	case "exclusive":
		(*w).view.Exclusive = true
		for _, n := range f[1:] {
			revision, err := strconv.ParseInt(n, 10, 64)
			if err != nil {
				t.Fatalf("%q: %v", f, err)
			}
			(*w).leased[revision] = true
		}
	case "shared":
		(*w).view.Exclusive = false
	case "stable":
		scan(arg, "%d", &(*w).view.Stable)
	case "hold":
		(*w).view.Held = true
		scan(arg, "%d", &(*w).view.AtMost)
	case "free":
		(*w).view.Held = false
	case "recreate":
		(*w).view.Recreate = true
	case "minready":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		(*w).view.MinReady = d
	case "wait":
		d, err := time.ParseDuration(arg)
		if err != nil {
			t.Fatalf("%q: %v", f, err)
		}
		(*w).now = (*w).now.Add(d)
	case "renew":
		(*w).renew()
	case "refuse", "accept":
		(*w).refuse = f[0] == "refuse"
	case "show":
		return (*w).text()
	case "tick":
		return (*w).tick(t)
	default:
		t.Fatalf("unknown command %q", f)
	}
	return ""
}

func (w *fleet) reportByName(t *testing.T, word, name string) {
	found := false
	for i := range w.view.Fillings {
		f := &w.view.Fillings[i]
		if name != "" && f.name() != name {
			continue
		}
		found = true
		if word == "fail" {
			w.report(f, api.PhaseFailed, false)
		} else {
			w.report(f, api.PhaseRunning, word == "ready")
		}
	}
	if !found {
		t.Fatalf("no filling %q", name)
	}
}

func (w *fleet) tick(t *testing.T) string {
	d := w.checkPlan(t)
	w.checkIdle(t, d)
	w.apply(d)
	var b strings.Builder
	for _, a := range d.Actions {
		fmt.Fprintln(&b, a)
	}
	for _, l := range d.Waiting {
		fmt.Fprintln(&b, "waiting: "+l)
	}
	if !d.Wake.IsZero() {
		fmt.Fprintf(&b, "wake in %s\n", d.Wake.Sub(w.now))
	}
	if b.Len() == 0 {
		return "nothing"
	}
	return b.String()
}
