package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestFirstHour does what docs/first-hour.md says, word for word, and holds what is
// printed against what stands there.
func TestFirstHour(t *testing.T) {
	ownLab(t)
	s := newServers(t, "hour", 4)
	hour := &hour{servers: s, t: t, installed: map[string]string{}}
	f, err := os.Open(filepath.Join(rig.Root(), "docs", "first-hour.md"))
	must(t, err)
	defer f.Close()
	commands := 0
	for _, b := range blocks(t, bufio.NewScanner(f)) {
		commands += hour.do(b)
	}
	if commands < 20 {
		t.Errorf("only %d commands were found in the hour", commands)
	}
}

// block is a fenced block of a document: its language, the options behind that, its text
// and where it begins.
type block struct {
	language string
	options  map[string]string
	lines    []string
	line     int
}

func blocks(t *testing.T, sc *bufio.Scanner) []block {
	t.Helper()
	var all []block
	var in *block
	for n := 1; sc.Scan(); n++ {
		fence, isFence := strings.CutPrefix(sc.Text(), "```")
		switch {
		case isFence && in != nil:
			all = append(all, *in)
			in = nil
		case isFence:
			words := strings.Fields(fence)
			in = &block{options: map[string]string{}, line: n}
			if len(words) > 0 {
				in.language = words[0]
				for _, w := range words[1:] {
					k, v, _ := strings.Cut(w, "=")
					in.options[k] = v
				}
			}
		case in != nil:
			in.lines = append(in.lines, sc.Text())
		}
	}
	must(t, sc.Err())
	return all
}

// hour is somebody who follows the document.
type hour struct {
	*servers
	t         *testing.T
	installed map[string]string // service that runs on a server
}

// prompt begins a command: the server, and what is said there.
var prompt = regexp.MustCompile(`^root@(n[0-9]+)# (.*)$`)

// do follows one block and gives how many commands it had.
func (h *hour) do(b block) (commands int) {
	t := h.t
	t.Helper()
	if name := b.options["file"]; name != "" {
		must(t, os.WriteFile(filepath.Join(h.release, name), []byte(strings.Join(b.lines, "\n")+"\n"), 0o644))
	}
	if b.language != "console" {
		return 0
	}
	if program := b.options["upgrade"]; program != "" {
		next := h.upgraded(program)
		var before string
		must(t, rig.Until(t.Context(), 20*time.Second, "what was rolled out of to be gone", func() error {
			if before = h.allLives(); strings.Count(before, "default.web-") != 3 {
				return fmt.Errorf("these run:\n%s", before)
			}
			return nil
		}))
		defer func() {
			h.nodes(3, func(n api.Node) bool { return healthy(n) && n.Status.Version == next })
			if after := h.allLives(); after != before {
				t.Errorf("the upgrade touched containers: before\n%s\nafter\n%s", before, after)
			}
		}()
	}
	if node := b.options["off"]; node != "" {
		must(t, h.KillNode(t.Context(), node))
		h.nodes(len(h.installed)-2, healthy) // but the controller's and this one; a reader looks up later than we
	}
	for i := 0; i < len(b.lines); {
		m := prompt.FindStringSubmatch(b.lines[i])
		if m == nil {
			t.Fatalf("docs/first-hour.md:%d: no prompt such as root@n1# before %q", b.line+1+i, b.lines[i])
		}
		at := b.line + 1 + i
		var want []string
		for i++; i < len(b.lines) && !prompt.MatchString(b.lines[i]); i++ {
			want = append(want, b.lines[i])
		}
		h.command(at, m[1], m[2], want)
		commands++
	}
	return commands
}

// command runs one, and does what systemd would do behind it.
func (h *hour) command(at int, node, command string, want []string) {
	t := h.t
	t.Helper()
	command, fails := strings.CutSuffix(command, "  # fails")
	service, install := "", strings.HasPrefix(command, "./install.sh ")
	if install {
		service = "orch-" + strings.Fields(command)[1]
		if service == "orch-agent" {
			flags, err := h.AgentFlags(node)
			must(t, err)
			if h.installed[node] == "" {
				must(t, h.StartProcess(t.Context(), node, "containerd"))
				command += " " + strings.Join(flags, " ")
			}
		}
	}
	out, err := h.run(node, "sh", "-c", "cd "+h.release+" && "+command)
	if (err != nil) != fails {
		t.Fatalf("docs/first-hour.md:%d: %s: %v\n%s", at, command, err, out)
	}
	if missing := unlike(want, strings.Split(strings.TrimRight(out, "\n"), "\n")); missing != "" {
		t.Errorf("docs/first-hour.md:%d: %s: nothing like %q at its place in\n%s", at, command, missing, out)
	}
	switch {
	case install && h.installed[node] != "":
		h.stop(node, service)
		h.start(node, service)
	case install:
		h.start(node, service)
		h.installed[node] = service
	}
	if install && service == "orch-agent" {
		joined := 0
		for _, s := range h.installed {
			if s == service {
				joined++
			}
		}
		h.nodes(joined, healthy)
	}
	if install && service == "orch-controller" {
		must(t, rig.Until(t.Context(), 20*time.Second, "the controller to lead", func() error {
			out, err := h.run(node, "orchctl", "token", "list")
			if err != nil {
				return fmt.Errorf("%w: %s", err, out)
			}
			return nil
		}))
	}
}

// allLives are the containers of all servers that have an agent.
func (h *hour) allLives() string {
	h.t.Helper()
	var out bytes.Buffer
	for _, node := range []string{"n2", "n3", "n4"} {
		for _, life := range h.lives(node) {
			if len(strings.Fields(life)) > 1 { // what has ended has no process
				fmt.Fprintln(&out, node, life)
			}
		}
	}
	return out.String()
}

// unlike gives the first line of want that is not where it should be in got; empty: all
// are. A line of dots alone is any number of lines, dots in a line are any text, and spaces
// are as many as columns need.
func unlike(want, got []string) string {
	skipping := false
	for _, w := range want {
		if w == "..." {
			skipping = true
			continue
		}
		parts := strings.Split(w, "...")
		for i, p := range parts {
			words := strings.Fields(p)
			for j := range words {
				words[j] = regexp.QuoteMeta(words[j])
			}
			parts[i] = strings.Join(words, `\s+`)
			if p != "" && strings.TrimSpace(p) == "" {
				parts[i] = `\s*`
			}
		}
		line := regexp.MustCompile(`^\s*` + strings.Join(parts, `.*`) + `\s*$`)
		found := false
		for len(got) > 0 && !found {
			found = line.MatchString(got[0])
			got = got[1:]
			if !found && !skipping {
				return w
			}
		}
		if !found {
			return w
		}
		skipping = false
	}
	if !skipping && len(got) > 0 && len(want) > 0 && strings.TrimSpace(strings.Join(got, "")) != "" {
		return "the end"
	}
	return ""
}

func TestUnlike(t *testing.T) {
	got := []string{"NAME   STATUS   AGE", "n1     Ready    3s", "n2     Ready    4s"}
	for _, c := range []struct {
		want []string
		like bool
	}{
		{[]string{"NAME STATUS ...", "n1 Ready ...", "n2 Ready ..."}, true},
		{[]string{"NAME STATUS ...", "..."}, true},
		{[]string{"...", "n2 Ready ..."}, true},
		{[]string{"...", "n1 Ready ..."}, false}, // n2 is not expected
		{[]string{"NAME STATUS ...", "n2 Ready ..."}, false},
		{[]string{"...", "n2 Suspect ..."}, false},
		{[]string{"...", "n2 Ready ...", "n1 Ready ..."}, false},
		{nil, true},
	} {
		if missing := unlike(c.want, got); (missing == "") != c.like {
			t.Errorf("%q: %q", c.want, missing)
		}
	}
}
