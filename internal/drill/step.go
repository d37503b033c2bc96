package drill

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/orchctl/orch/api"
)

// Step is one line of a drill.
type Step struct {
	// Text as written, Line where.
	Text string
	Line int
	// Verb is its first word, "expect" followed by what is expected:
	// "expect ready", "expect away", "expect node", ...
	Verb string
	// What the words say; which of them depends on the verb.
	Node, Peer, Program string
	Service, Path       string
	Verdict             api.Verdict
	Count, Of, Percent  int
	AtMost, OneWay      bool
	For                 time.Duration // 0: it does not end by itself
	Within              time.Duration
}

// Expects tells whether the step only looks.
func (s Step) Expects() bool { return strings.HasPrefix(s.Verb, "expect ") }

// form is one sentence that a drill may hold.
type form struct {
	verb    string
	words   string // as people read it
	pattern *regexp.Regexp
}

const (
	nameRE = `([a-z0-9](?:[a-z0-9-]*[a-z0-9])?)`
	timeRE = `([0-9][0-9a-zµ.]*)`
)

// forms are tried in order. The groups of a pattern are taken by Step.fill.
var forms = []form{
	{"kill", "kill NODE", nil},
	{"kill", "kill NODE agent|containerd", nil},
	{"kill", "kill controller", nil},
	{"start", "start NODE", nil},
	{"start", "start NODE agent|containerd", nil},
	{"start", "start controller", nil},
	{"pause", "pause NODE agent|containerd for TIME", nil},
	{"pause", "pause controller for TIME", nil},
	{"stun", "stun NODE for TIME", nil},
	{"cut", "cut NODE", nil},
	{"cut", "cut NODE from PEER", nil},
	{"cut", "cut NODE from PEER one way", nil},
	{"heal", "heal", nil},
	{"heal", "heal NODE", nil},
	{"lose", "lose PERCENT of NODE", nil},
	{"burn", "burn for TIME", nil},
	{"wait", "wait TIME", nil},
	{"apply", "apply PATH", nil},
	{"scale", "scale SERVICE COUNT", nil},
	{"delete", "delete SERVICE", nil},
	{"declare", "declare NODE dead", nil},
	{"crash", "crash SERVICE", nil},
	{"expect ready", "expect SERVICE COUNT/OF within TIME", nil},
	{"expect away", "expect SERVICE away from NODE within TIME", nil},
	{"expect impaired", "expect node NODE impaired within TIME", nil},
	{"expect damped", "expect node NODE damped within TIME", nil},
	{"expect node", "expect node NODE VERDICT within TIME", nil}, // after the two: it takes any word
	{"expect frozen", "expect fleet frozen within TIME", nil},
	{"expect thawed", "expect fleet thawed within TIME", nil},
	{"expect settled", "expect no spares within TIME", nil},
	{"expect single", "expect no duplicates of SERVICE within TIME", nil},
	{"expect wrongful", "expect wrongful COUNT", nil},
	{"expect spares", "expect spares ATMOST COUNT", nil},
	{"expect spares", "expect spares COUNT", nil},
	{"expect duplicates", "expect duplicates of SERVICE ATMOST COUNT", nil},
	{"expect duplicates", "expect duplicates of SERVICE COUNT", nil},
}

// placeholders stand for what differs; the order of alternatives in a pattern is
// that of forms.
var placeholders = map[string]string{
	"NODE": `(?P<node>` + nameRE[1:], "PEER": `(?P<peer>` + nameRE[1:], "SERVICE": `(?P<service>` + nameRE[1:],
	"agent|containerd": `(?P<program>agent|containerd)`, "TIME": `(?P<time>` + timeRE[1:],
	"PERCENT": `(?P<percent>[0-9]+)%`, "PATH": `(?P<path>\S+)`, "COUNT": `(?P<count>[0-9]+)`, "COUNT/OF": `(?P<count>[0-9]+)/(?P<of>[0-9]+)`,
	"VERDICT": `(?P<verdict>[A-Za-z]+)`, "ATMOST": `(?P<atmost>at most)`,
}

func init() {
	for i := range forms {
		var parts []string
		for _, w := range strings.Fields(forms[i].words) {
			if p, ok := placeholders[w]; ok {
				parts = append(parts, p)
			} else {
				parts = append(parts, regexp.QuoteMeta(w))
			}
		}
		forms[i].pattern = regexp.MustCompile(`^` + strings.Join(parts, ` `) + `$`)
		forms[i].words = strings.ReplaceAll(forms[i].words, "ATMOST", "at most")
	}
}

// Forms lists the sentences of the language, for people.
func Forms() []string {
	var out []string
	for _, f := range forms {
		out = append(out, f.words)
	}
	return out
}

// ParseStep reads one step.
func ParseStep(text string) (Step, error) {
	line := strings.Join(strings.Fields(text), " ")
	for _, f := range forms {
		m := f.pattern.FindStringSubmatch(line)
		if m == nil || f.words == "kill NODE" && m[1] == "controller" || f.words == "start NODE" && m[1] == "controller" {
			continue
		}
		s := Step{Text: line, Verb: f.verb, OneWay: strings.HasSuffix(f.words, "one way")}
		for i, name := range f.pattern.SubexpNames() {
			if err := s.fill(name, m[i]); err != nil {
				return Step{}, fmt.Errorf("%q: %w", line, err)
			}
		}
		if s.Expects() {
			s.Within, s.For = s.For, 0
		}
		switch {
		case s.Verb == "expect ready" && s.Count > s.Of:
			return Step{}, fmt.Errorf("%q: %d of %d can never be ready", line, s.Count, s.Of)
		case s.Peer != "" && s.Peer == s.Node:
			return Step{}, fmt.Errorf("%q: a node cannot be cut off from itself", line)
		}
		return s, nil
	}
	return Step{}, unknown(line)
}

func (s *Step) fill(name, value string) (err error) {
	switch name {
	case "node":
		s.Node = value
	case "peer":
		s.Peer = value
	case "program":
		s.Program = value
	case "service":
		s.Service = value
	case "path":
		s.Path = value
	case "count":
		s.Count, err = strconv.Atoi(value)
	case "of":
		s.Of, err = strconv.Atoi(value)
	case "percent":
		if s.Percent, err = strconv.Atoi(value); err == nil && (s.Percent < 1 || s.Percent > 100) {
			err = fmt.Errorf("%s%%: want 1%% to 100%%", value)
		}
	case "atmost":
		s.AtMost = true
	case "verdict":
		s.Verdict, err = verdict(value)
	case "time":
		if s.For, err = time.ParseDuration(value); err != nil {
			err = fmt.Errorf("%q is no time: want 500ms, 2s or 1m", value)
		}
	}
	return err
}

func verdict(word string) (api.Verdict, error) {
	all := []api.Verdict{api.VerdictUnknown, api.VerdictHealthy, api.VerdictAgentLost, api.VerdictSuspect, api.VerdictDead, api.VerdictBack}
	var names []string
	for _, v := range all {
		if string(v) == word {
			return v, nil
		}
		names = append(names, string(v))
	}
	return "", fmt.Errorf("%q is no verdict: want %s, or impaired or damped", word, strings.Join(names, ", "))
}

// unknown names the forms that begin alike: with the same two words, or else with
// the same first and a name.
func unknown(line string) error {
	words := strings.Fields(line)
	var verbs, near, nearer []string
	for _, f := range forms {
		form := strings.Fields(f.words)
		if !slices.Contains(verbs, form[0]) {
			verbs = append(verbs, form[0])
		}
		if len(words) == 0 || form[0] != words[0] {
			continue
		}
		if len(words) > 1 && len(form) > 1 && form[1] == words[1] {
			nearer = append(nearer, f.words)
		}
		if len(form) == 1 || form[1] == strings.ToUpper(form[1]) || form[0] != "expect" {
			near = append(near, f.words)
		}
	}
	switch {
	case nearer != nil:
		near = nearer
	case near == nil:
		return fmt.Errorf("%q is no step: a step begins with one of %s", line, strings.Join(verbs, ", "))
	case words[0] == "expect":
		near = append(near, "another: orchctl drill --help lists them")
	}
	return fmt.Errorf("%q is no step: want %s", line, strings.Join(near, "; or "))
}
