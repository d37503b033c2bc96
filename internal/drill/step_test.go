package drill

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
)

func TestParseStep(t *testing.T) {
	for _, c := range []struct {
		text string
		want Step
	}{
		{"kill n2", Step{Verb: "kill", Node: "n2"}},
		{"kill  n2   agent", Step{Text: "kill n2 agent", Verb: "kill", Node: "n2", Program: "agent"}},
		{"kill controller", Step{Verb: "kill"}},
		{"start controller", Step{Verb: "start"}},
		{"pause n1 agent for 1.5s", Step{Verb: "pause", Node: "n1", Program: "agent", For: 1500 * time.Millisecond}},
		{"pause controller for 10s", Step{Verb: "pause", For: 10 * time.Second}},
		{"cut n1 from n2 one way", Step{Verb: "cut", Node: "n1", Peer: "n2", OneWay: true}},
		{"cut n1 from controller", Step{Verb: "cut", Node: "n1", Peer: "controller"}},
		{"lose 30% of n1", Step{Verb: "lose", Node: "n1", Percent: 30}},
		{"scale web 3", Step{Verb: "scale", Service: "web", Count: 3}},
		{"declare n2 dead", Step{Verb: "declare", Node: "n2"}},
		{"expect web 6/6 within 2s", Step{Verb: "expect ready", Service: "web", Count: 6, Of: 6, Within: 2 * time.Second}},
		{"expect web away from n2 within 1s", Step{Verb: "expect away", Service: "web", Node: "n2", Within: time.Second}},
		{"expect node n2 AgentLost within 3s", Step{Verb: "expect node", Node: "n2", Verdict: api.VerdictAgentLost, Within: 3 * time.Second}},
		{"expect node n2 impaired within 30s", Step{Verb: "expect impaired", Node: "n2", Within: 30 * time.Second}},
		{"expect wrongful 0", Step{Verb: "expect wrongful"}},
		{"expect spares at most 3", Step{Verb: "expect spares", Count: 3, AtMost: true}},
		{"expect duplicates of db 0", Step{Verb: "expect duplicates", Service: "db"}},
		{"expect no duplicates of db within 1s", Step{Verb: "expect single", Service: "db", Within: time.Second}},
	} {
		got, err := ParseStep(c.text)
		if c.want.Text == "" {
			c.want.Text = c.text
		}
		if err != nil || got != c.want {
			t.Errorf("%q:\n got %+v, %v\nwant %+v", c.text, got, err, c.want)
		}
	}
}

func TestWrongSteps(t *testing.T) {
	for text, want := range map[string]string{
		"explode n2":                       "a step begins with one of kill, start, pause",
		"kill":                             "want kill NODE; or kill NODE agent|containerd; or kill controller",
		"lose 0% of n1":                    "want 1% to 100%",
		"wait long":                        "wait TIME",
		"wait 5":                           `"5" is no time: want 500ms, 2s or 1m`,
		"expect node n2 Gone within 1s":    "is no verdict: want Unknown, Healthy",
		"expect web 6/6":                   "expect SERVICE COUNT/OF within TIME",
		"expect n2 suspect within 3 s":     "orchctl drill --help lists them",
		"expect node n2 suspect within 3s": `"suspect" is no verdict: want Unknown, Healthy`,
		"expect web 4/3 within 1s":         "4 of 3 can never be ready",
		"cut n1 from n1":                   "cannot be cut off from itself",
		"expect fleet forzen within 1s":    "want expect fleet frozen within TIME; or expect fleet thawed within TIME",
		"cut n1 from n2 from n3":           "cut NODE from PEER",
		"scale web 99999999999999999999":   "out of range",
		"expect wrongful -1":               "expect wrongful COUNT",
		"expect spares at most none":       "expect spares at most COUNT",
		"pause n1 kernel for 1s":           "pause NODE agent|containerd for TIME",
		"expect fleet warm within 1s":      "expect fleet frozen within TIME",
		"expect duplicates of WEB 0":       "expect duplicates of SERVICE",
		"stun n2 for 99999999999999999h":   "is no time",
		"expect web 6/six within 2s":       "expect SERVICE COUNT/OF within TIME",
		"burn 60s":                         "burn for TIME",
		"heal n1 n2":                       "heal NODE",
		"delete":                           "delete SERVICE",
		"declare n2 missing":               "declare NODE dead",
		"apply one.yaml and two.yaml":      "apply PATH",
		"expect web away from within 1s ":  "expect SERVICE away from NODE within TIME",
	} {
		if s, err := ParseStep(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v; want an error with %q", text, s, err, want)
		}
	}
}

func TestParse(t *testing.T) {
	const good = `apiVersion: orch/v1
kind: Drill
metadata: {name: one}
spec:
  about: it works
  lab: {nodes: 3, limits: [dead-after=10s]}
  images: [a.tar]
  services: [web.yaml, /abs.yaml]
  steps:
    - kill n2
    - expect web 6/6 within 2s
`
	d, err := Parse("dir/one.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if d.Name != "one" || d.Nodes != 3 || len(d.Steps) != 2 || d.Steps[1].Line != 11 || d.Services[0] != "dir/web.yaml" || d.Services[1] != "/abs.yaml" || d.Limits[0] != "dead-after=10s" {
		t.Errorf("got %+v", d)
	}
	for _, c := range []struct{ change, to, want string }{
		{"about:", "abuot:", `dir/one.yaml:5: unknown field "abuot"; a drill has apiVersion`},
		{"    - kill n2", "    - {kill: n2}", `dir/one.yaml:10: a step is a line of words`},
		{"    - kill n2", "    - kil n2", `dir/one.yaml:10: "kil n2" is no step`},
		{"    - kill n2", "    - kill n4", `dir/one.yaml:10: "kill n4": there is no n4: the drill's lab has n1 to n3`},
		{"    - kill n2", "    - cut n2 from leader", `there is no leader`},
		{"kind: Drill", "kind: Service", `kind: want "Drill", but found "Service"`},
		{"nodes: 3", "nodes: three", `dir/one.yaml:6: want a number, but found "three"`},
		{"nodes: 3", "nodes: -1", `spec.lab.nodes: want 1 or more`},
		{"  steps:\n    - kill n2\n    - expect web 6/6 within 2s\n", "", `a drill needs steps`},
		{"    - kill n2", "  ] - kill", `dir/one.yaml:`},
		{"metadata: {name: one}", "metadata: {}", `a drill needs a name`},
		{"within 2s\n", "within 2s\n---\nkind: Drill\n", `one drill per file`},
	} {
		text := strings.Replace(good, c.change, c.to, 1)
		if _, err := Parse("dir/one.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s -> %s: got %v; want %q", c.change, c.to, err, c.want)
		}
	}
}

// The drills of the suite are right, and name services and images that are there.
func TestTheSuiteLoads(t *testing.T) {
	drills, err := Load([]string{filepath.Join("..", "..", "e2e", "drills")})
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range drills {
		if want := strings.TrimSuffix(filepath.Base(d.File), ".yaml"); d.Name != want {
			t.Errorf("%s is named %s", d.File, d.Name)
		}
		for _, s := range d.Services {
			if _, err := os.Stat(s); err != nil {
				t.Errorf("%s: %v", d.File, err)
			}
		}
	}
}

// What a drill needs is looked for before anything is made; and what is no drill
// at all is called so, rather than by its first field that drills do not have.
func TestMissing(t *testing.T) {
	d := &Drill{File: "d/x.yaml", Dir: t.TempDir(), Images: []string{"/nowhere/a.tar"}, Services: []string{"step.go"}, Steps: []Step{{Verb: "apply", Path: "b.yaml"}, {Verb: "kill", Node: "n1"}}}
	err := d.Missing()
	if got := strings.Count(fmt.Sprint(err), "no such file"); got != 2 || !strings.Contains(err.Error(), "a.tar") || !strings.Contains(err.Error(), "b.yaml") {
		t.Errorf("got %v; want a.tar and b.yaml to be missing", err)
	}
	if _, err := Parse("web.yaml", []byte("kind: Service\nspec: {replicas: 3}\n")); err == nil || err.Error() != "web.yaml: no drill: want kind: Drill" {
		t.Errorf("a service: got %v", err)
	}
}

func TestLoadFolderWithoutDrills(t *testing.T) {
	if _, err := Load([]string{t.TempDir()}); err == nil || !strings.Contains(err.Error(), "no drill in this folder") {
		t.Errorf("got %v", err)
	}
}
