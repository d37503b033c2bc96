package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/orchctl/orch/"

// rule forbids packages to import others, directly or through others.
type rule struct {
	from    string   // folder, with everything below it
	except  []string // folders below from that may
	not     []string // import paths, or their beginnings
	but     []string // import paths among not that are allowed, each by its whole name
	through bool     // also what its imports import
	why     string
}

const containerd = "github.com/containerd/containerd/v2/"

// asksRegistries is all of containerd that internal/registry brings along: its resolver of
// references, and the types that that one shares with the rest.
var asksRegistries = []string{
	containerd + "core/remotes", containerd + "core/remotes/docker", containerd + "core/remotes/docker/auth",
	containerd + "core/remotes/docker/config", containerd + "core/remotes/errors",
	containerd + "core/content", containerd + "core/images", containerd + "core/transfer", // interfaces and descriptors
	containerd + "internal/lazyregexp", containerd + "internal/randutil",
	containerd + "pkg/archive/compression", containerd + "pkg/filters", containerd + "pkg/identifiers", containerd + "pkg/labels",
	containerd + "pkg/namespaces", containerd + "pkg/reference", containerd + "pkg/tracing", containerd + "version",
	"github.com/containerd/errdefs", "github.com/containerd/log", "github.com/containerd/log/otel", "github.com/containerd/platforms",
	"github.com/containerd/ttrpc", "github.com/containerd/typeurl/v2",
}

var rules = []rule{
	{from: "api", not: []string{"*"}, why: "api is what everybody shares: the standard library only"},
	{from: "scheduler", not: []string{module + "reconciler", module + "internal", module + "agent", "google.golang.org", "go.etcd.io"}, through: true,
		why: "the scheduler is pure and knows nothing of the reconciler: they meet in the core"},
	{from: "reconciler", not: []string{module + "scheduler", module + "internal", module + "agent", "google.golang.org", "go.etcd.io"}, through: true,
		why: "the reconciler is pure and knows nothing of the scheduler: they meet in the core"},
	{from: "agent", not: []string{module + "internal/controller", module + "internal/store", "go.etcd.io"}, through: true,
		why: "an agent and a controller share only what they say to each other: proto and internal/wire"},
	{from: "cmd/agent", not: []string{module + "internal/controller", "go.etcd.io"}, through: true,
		why: "an agent's binary carries no controller and no store"},
	{from: "internal/controller", not: []string{module + "agent", "github.com/containerd"}, but: asksRegistries, through: true,
		why: "an agent and a controller share only what they say to each other: proto and internal/wire"},
	{from: "cmd/controller", not: []string{module + "agent", "github.com/containerd/containerd"}, but: asksRegistries, through: true,
		why: "a controller's binary carries no agent and no container runtime"},
	{from: ".", except: []string{"internal/store/etcd", "cmd/controller"}, not: []string{"go.etcd.io"},
		why: "only internal/store/etcd knows etcd, so that the store can be another or a twin in memory"},
	{from: ".", except: []string{"agent/ctrd", "internal/registry", "e2e", "internal/bench"}, not: []string{"github.com/containerd/containerd"},
		why: "only agent/ctrd knows containerd, so that the agent can be tested without it"},
	{from: "internal/registry", not: []string{"github.com/containerd", module + "agent", module + "internal"}, but: asksRegistries, through: true,
		why: "who asks registries needs no container runtime, no client of one and no store of content: controllers link it"},
	{from: ".", except: []string{"internal/registry", "agent/ctrd", "e2e", "internal/bench"}, not: []string{containerd + "core/remotes", "github.com/docker/cli"},
		why: "internal/registry is the one place that speaks to registries: logins are kept there"},
	{from: "agent", except: []string{"agent/netdev", "agent/dns", "agent/ctrd"}, not: []string{"github.com/vishvananda", "github.com/containerd/go-cni"},
		why: "only agent/netdev and agent/dns touch the kernel's network"},
	{from: "cmd/orchctl", not: []string{module + "agent", module + "internal/controller", module + "internal/store", "go.etcd.io", "github.com/containerd"}, through: true,
		why: "orchctl runs on people's machines, macOS too: it speaks the API and nothing else"},
	{from: "internal/lab", not: []string{module + "agent", module + "internal/controller", module + "internal/store", "go.etcd.io", "github.com/containerd"}, through: true,
		why: "the lab starts built binaries by path"},
	{from: "manifests", not: []string{module + "internal", module + "agent", "google.golang.org"}, through: true,
		why: "manifests turns files into api objects and needs nothing else"},
	{from: ".", except: []string{"internal/tracing", "e2e"}, not: []string{"go.opentelemetry.io"},
		why: "only internal/tracing knows the SDK: off, nothing of it runs"},
	{from: "cmd/shim", not: []string{module + "agent", module + "internal/controller", "google.golang.org", "github.com/containerd"}, through: true,
		why: "one shim runs beside every container: it must stay tiny"},
	{from: "internal/secrets", not: []string{module + "internal/controller", module + "internal/store", module + "internal/wire", "google.golang.org", "go.etcd.io"}, through: true,
		why: "whoever holds keys has no way to the store or the network: only ciphertext leaves it for there"},
	{from: ".", except: []string{"internal/secrets", "internal/controller", "internal/sim", "cmd/controller"}, not: []string{module + "internal/secrets"},
		why: "only a controller has the keys of Secrets: nodes are sent values, users nothing"},
	{from: "internal/controller/core", not: []string{module + "internal/secrets"}, through: true,
		why: "what decides never sees a Secret's values"},
}

// pure packages decide; the drivers beside them act.
var pure = []string{"api", "scheduler", "reconciler", "internal/liveness", "internal/controller/core", "agent/plan", "agent/images", "internal/wire", "internal/network"}

// impure is what a pure package may not import, and why.
var impure = map[string]string{
	"os": "it would do I/O", "net": "it would do I/O", "net/http": "it would do I/O", "os/exec": "it would do I/O", "syscall": "it would do I/O",
	"math/rand": "chance is an argument: ties break by a hash", "math/rand/v2": "chance is an argument: ties break by a hash",
	"crypto/rand": "chance is an argument", "hash/maphash": "its seed differs from run to run",
	"sync": "a pure core has one owner", "sync/atomic": "a pure core has one owner", "context": "a decision does not wait", "log": "decisions are effects with a reason, not log lines", "log/slog": "decisions are effects with a reason, not log lines",
}

// clocks are calls of package time that read or wait for the clock.
var clocks = []string{"Now", "Since", "Until", "After", "AfterFunc", "Sleep", "NewTimer", "NewTicker", "Tick"}

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

func packages(t *testing.T) []pkg {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "./...")
	cmd.Dir = filepath.Join("..", "..")
	out, err := cmd.Output()
	if err != nil {
		var x *exec.ExitError
		if errors.As(err, &x) {
			t.Fatalf("go list: %v\n%s", err, x.Stderr)
		}
		t.Fatal(err)
	}
	var all []pkg
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); err == io.EOF {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func within(folder, rel string) bool {
	return folder == "." || rel == folder || strings.HasPrefix(rel, folder+"/")
}

func rel(p pkg) string { return strings.TrimPrefix(p.ImportPath, module) }

func matches(importPath, pattern string) bool {
	if pattern == "*" { // anything but the standard library and itself
		first, _, _ := strings.Cut(importPath, "/")
		return strings.Contains(first, ".") && !strings.HasPrefix(importPath, module+"api")
	}
	return importPath == pattern || strings.HasPrefix(importPath, pattern+"/") || strings.HasSuffix(pattern, "/") && strings.HasPrefix(importPath, pattern)
}

// breaches lists what a package imports against a rule.
func breaches(p pkg, r rule) []string {
	if !within(r.from, rel(p)) || slices.ContainsFunc(r.except, func(x string) bool { return within(x, rel(p)) }) {
		return nil
	}
	imports := p.Imports
	if r.through {
		imports = p.Deps
	}
	var out []string
	for _, i := range imports {
		if !slices.Contains(r.but, i) && i != p.ImportPath && slices.ContainsFunc(r.not, func(n string) bool { return matches(i, n) }) {
			out = append(out, i)
		}
	}
	return out
}

func TestArrows(t *testing.T) {
	all := packages(t)
	for _, r := range rules {
		if !slices.ContainsFunc(all, func(p pkg) bool { return within(r.from, rel(p)) }) {
			t.Errorf("the rule on %s guards nothing: no such folder", r.from)
		}
		for _, p := range all {
			for _, i := range breaches(p, r) {
				t.Errorf("%s imports %s: %s", rel(p), i, r.why)
			}
		}
	}
}

func TestPurity(t *testing.T) {
	found := map[string]bool{}
	for _, p := range packages(t) {
		if !slices.Contains(pure, rel(p)) {
			continue
		}
		found[rel(p)] = true
		for _, name := range p.GoFiles {
			for _, problem := range impurities(t, filepath.Join(p.Dir, name)) {
				t.Errorf("%s/%s", rel(p), problem)
			}
		}
	}
	for _, want := range pure {
		if !found[want] {
			t.Errorf("%s is to be pure, but there is no such package", want)
		}
	}
}

// stepped are packages that are not pure, but have one owner like those that are.
var stepped = []string{"internal/sim"}

// TestOneOwner: packages that the Makefile tests without the race detector have nothing that
// it could look at.
func TestOneOwner(t *testing.T) {
	makefile, err := os.ReadFile(filepath.Join("..", "..", "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	_, list, found := strings.Cut(string(makefile), "\nSINGLE := ")
	list, _, _ = strings.Cut(list, "\n")
	if !found || list == "" {
		t.Fatal("the Makefile has no SINGLE")
	}
	for _, dir := range strings.Fields(list) {
		if name := strings.TrimPrefix(dir, "./"); !slices.Contains(pure, name) && !slices.Contains(stepped, name) {
			t.Errorf("%s is tested without the race detector, and may start goroutines", name)
		}
	}
	for _, p := range packages(t) {
		if !slices.Contains(stepped, rel(p)) {
			continue
		}
		for _, name := range p.GoFiles {
			for _, problem := range impurities(t, filepath.Join(p.Dir, name)) {
				if strings.Contains(problem, "goroutine") || strings.Contains(problem, "imports sync") {
					t.Errorf("%s/%s", rel(p), problem)
				}
			}
		}
	}
}

func impurities(t *testing.T, path string) []string {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	at := func(pos token.Pos, format string, args ...any) {
		p := fset.Position(pos)
		out = append(out, fmt.Sprintf("%s:%d: %s", filepath.Base(path), p.Line, fmt.Sprintf(format, args...)))
	}
	for _, i := range file.Imports {
		name := strings.Trim(i.Path.Value, `"`)
		if why, bad := impure[name]; bad {
			at(i.Pos(), "imports %s: %s", name, why)
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			at(n.Pos(), "starts a goroutine: a pure core is stepped by its driver")
		case *ast.SelectorExpr:
			if x, ok := n.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains(clocks, n.Sel.Name) {
				at(n.Pos(), "calls time.%s: the clock is an argument", n.Sel.Name)
			}
		}
		return true
	})
	return out
}

// TestTheRulesCanFail shows that the checks see what they are there to see.
func TestTheRulesCanFail(t *testing.T) {
	bad := pkg{ImportPath: module + "scheduler", Imports: []string{module + "reconciler"}, Deps: []string{module + "reconciler", "go.etcd.io/etcd/client/v3"}}
	if got := breaches(bad, rules[1]); len(got) != 2 {
		t.Errorf("the scheduler's breaches: %v", got)
	}
	if got := breaches(pkg{ImportPath: module + "api", Imports: []string{"time", "sigs.k8s.io/yaml"}}, rules[0]); !slices.Equal(got, []string{"sigs.k8s.io/yaml"}) {
		t.Errorf("api's breaches: %v", got)
	}
	linked := pkg{ImportPath: module + "internal/controller", Deps: []string{containerd + "core/remotes/docker", containerd + "client", containerd + "plugins/content/local"}}
	if i := slices.IndexFunc(rules, func(r rule) bool { return r.from == "internal/controller" }); len(breaches(linked, rules[i])) != 2 {
		t.Errorf("the controller's breaches: %v", breaches(linked, rules[i]))
	}
	if got := impurities(t, filepath.Join("testdata", "impure.go.txt")); len(got) != 4 {
		t.Errorf("impurities: %q", got)
	}
}
