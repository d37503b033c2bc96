package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/e2e/rig"
)

// TestConfigs: what is promised of Configs and Secrets while every node is well. All at
// once, each with objects of its own.
func TestConfigs(t *testing.T) {
	for name, test := range map[string]func(*testing.T){
		"seen": configsAreSeen, "rolled": configChangeRolls, "rolled-back": configChangeRollsBack,
		"refused": configsRefused, "shown": secretsAreNotShown,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t)
		})
	}
}

// values makes the manifest of a Config or Secret; data are lines of YAML.
func values(kind, name string, data ...string) string {
	return fmt.Sprintf("---\napiVersion: orch/v1\nkind: %s\nmetadata: {name: %s}\ndata:\n  %s\n", kind, name, strings.Join(data, "\n  "))
}

// removeLater deletes objects after the test, in this order.
func removeLater(t *testing.T, refs ...string) {
	t.Helper()
	t.Cleanup(func() {
		for _, ref := range refs {
			if err := fleet.Must(context.Background(), "delete", ref, "--ignore-not-found"); err != nil {
				t.Error(err)
			}
		}
	})
}

func configsAreSeen(t *testing.T) {
	removeLater(t, "service/seen", "config/seen", "secret/seen", "config/seen-vars")
	must(t, fleet.ApplyText(t.Context(), values("Config", "seen", `COLOUR: "blue"`, `app.conf: "a = 1\n"`)+
		values("Secret", "seen", `TOKEN: "hush"`, `key.pem: "PRIVATE"`)+"---\n"+
		service("seen", 1, "", httpProbe+`
      envFrom: [{config: seen-vars, prefix: ALL_}]
      env:
        - {name: COLOUR, valueFrom: {config: {name: seen, key: COLOUR}}}
        - {name: TOKEN, valueFrom: {secret: {name: seen, key: TOKEN}}}
      mounts:
        - {path: /etc/app, config: seen}
        - {path: /etc/key.pem, secret: seen, key: key.pem, mode: "0400"}
        - {path: /run/secrets, secret: seen}`)+values("Config", "seen-vars", `ONE: "1"`), true))
	// What a command in the container has is what the container has.
	env := inside(t, "seen-0", "-cat", "/proc/self/environ")
	contains(t, "the environment", "\n"+env, "\nALL_ONE=1\n", "\nCOLOUR=blue\n", "\nTOKEN=hush\n")
	first := inside(t, "seen-0", "-cat", "/proc/1/environ")
	contains(t, "the environment of the first process", "\n"+first, "\nALL_ONE=1\n", "\nCOLOUR=blue\n", "\nTOKEN=hush\n")
	for file, want := range map[string]string{"/etc/app/app.conf": "a = 1\n", "/etc/app/COLOUR": "blue", "/etc/key.pem": "PRIVATE", "/run/secrets/TOKEN": "hush"} {
		if got := inside(t, "seen-0", "-cat", file); got != want {
			t.Errorf("%s holds %q, want %q", file, got, want)
		}
	}
	contains(t, "a write into a mounted Config", refusedInside(t, "seen-0", "-try-write", "/etc/app/x"), "read-only")
}

func configChangeRolls(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "service/rolled", "config/rolled")
	const with = httpProbe + "\n      env: [{name: VERSION, valueFrom: {config: {name: rolled, key: VERSION}}}]"
	must(t, fleet.ApplyText(ctx, values("Config", "rolled", `VERSION: "one"`)+"---\n"+service("rolled", 3, "", with), true))
	check := lowest(t, "rolled", 3) // maxUnavailable is a quarter of 3, rounded down
	out, errs, code := fleet.OrchctlIn(ctx, strings.NewReader(values("Config", "rolled", `VERSION: "two"`)), "apply", "-f", "-", "--timeout", "60s")
	if code != 0 {
		t.Fatalf("apply of a Config that changed: exit %d\n%s%s", code, out, errs)
	}
	contains(t, "apply", out+errs, "rolled is rolled out: revision 2")
	must(t, fleet.WaitRollout(ctx, "rolled", 2, api.RolloutComplete, 20*time.Second))
	check()
	for i := range 3 {
		contains(t, "the environment", inside(t, fmt.Sprintf("rolled-%d", i), "-cat", "/proc/self/environ"), "VERSION=two")
	}
	contains(t, "history", orchctl(t, "history", "service/rolled", "-o", "wide"), "config rolled version 2")
	contains(t, "describe", orchctl(t, "describe", "config", "rolled"), "two", "rolled@1", "rolled@2")

	// The same values are no change; what goes back takes its version with it.
	contains(t, "apply of the same", orchctl(t, "apply", "-f", write(t, values("Config", "rolled", `VERSION: "two"`))), "unchanged")
	must(t, fleet.Must(ctx, "rollout", "undo", "service/rolled"))
	contains(t, "the environment after undo", inside(t, "rolled-0", "-cat", "/proc/self/environ"), "VERSION=one")
	must(t, fleet.Must(ctx, "rollout", "restart", "service/rolled"))
	contains(t, "the environment after restart", inside(t, "rolled-0", "-cat", "/proc/self/environ"), "VERSION=two")
}

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "manifest.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// configChangeRollsBack: values with which a service cannot run are taken back for it.
func configChangeRollsBack(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "service/back", "config/back")
	const with = `      ports: [{name: http, port: 8080}]
      readinessProbe: {http: {path: /healthz, port: http}}
      env: [{name: PORT, valueFrom: {config: {name: back, key: PORT}}}]`
	must(t, fleet.ApplyText(ctx, values("Config", "back", `PORT: "8080"`)+"---\n"+service("back", 3, "  restartPolicy: {backOff: 200ms}", with), true))
	check := lowest(t, "back", 3)
	said := applyFailing(t, values("Config", "back", `PORT: "no port"`))
	contains(t, "apply", said(), "rolled back", "no port")
	rolledBack(t, "back", 3, "no port")
	check()
	all, err := fleet.Revisions(ctx, "back")
	must(t, err)
	for number, want := range map[int64]int64{1: 1, 2: 2, 3: 1} {
		for _, r := range all {
			if got := r.Configs["config/back"]; r.Number == number && got != want {
				t.Errorf("revision %d has version %d of its Config, want %d", number, got, want)
			}
		}
	}
	contains(t, "history", orchctl(t, "history", "service/back", "-o", "wide"), "config back version 2")
}

func configsRefused(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "service/strict", "config/strict")
	const with = "      env: [{name: A, valueFrom: {config: {name: strict, key: A}}}]"
	refused := func(what, yaml string, words ...string) {
		t.Helper()
		_, errs, code := fleet.OrchctlIn(ctx, strings.NewReader(yaml), "apply", "-f", "-")
		if code != 2 {
			t.Errorf("%s: exit %d, want 2", what, code)
		}
		contains(t, what, errs, words...)
	}
	refused("a Config that is not there", service("strict", 1, "", with), "config default/strict", "container main, env A")
	refused("a key that is not there", values("Config", "strict", `B: "1"`)+"---\n"+service("strict", 1, "", with), "config default/strict", "key A")
	must(t, fleet.ApplyText(ctx, values("Config", "strict", `A: "1"`)+"---\n"+service("strict", 1, "", with), true))
	refused("to drop a key that is used", values("Config", "strict", `B: "1"`), "key A", "service default/strict")
	_, errs, code := fleet.Orchctl(ctx, "delete", "config/strict")
	if code != 1 {
		t.Errorf("delete of a Config that is used: exit %d, want 1", code)
	}
	contains(t, "the delete", errs, "config default/strict", "service", "strict", "container main, env A")
	must(t, fleet.Must(ctx, "delete", "service/strict"))
	must(t, rig.Until(ctx, 20*time.Second, "the Config to be free", func() error { return fleet.Must(ctx, "delete", "config/strict") }))
}

// secretsAreNotShown: no command shows a Secret's values, whoever asks.
func secretsAreNotShown(t *testing.T) {
	ctx := t.Context()
	removeLater(t, "secret/quiet")
	manifest := func(v string) string { return values("Secret", "quiet", `password: "`+v+`"`) }
	must(t, fleet.ApplyText(ctx, manifest("mum-is-the-word"), true))
	file := write(t, manifest("another-word"))
	for _, args := range [][]string{{"get", "secrets", "-o", "wide"}, {"get", "secret", "quiet", "-o", "yaml"}, {"get", "secret", "quiet", "-o", "json"},
		{"describe", "secret", "quiet"}, {"diff", "-f", file}, {"apply", "-f", file, "--dry-run"}, {"apply", "-f", file}, {"events"}} {
		out, errs, code := fleet.Orchctl(ctx, args...)
		if code != 0 && args[0] != "diff" {
			t.Errorf("orchctl %v: exit %d: %s", args, code, errs)
		}
		if args[0] != "events" {
			contains(t, strings.Join(args, " "), out, "quiet")
		}
		if strings.Contains(out+errs, "-word") || strings.Contains(out+errs, base64.StdEncoding.EncodeToString([]byte("mum-is-the-word"))) {
			t.Errorf("orchctl %v shows the value:\n%s%s", args, out, errs)
		}
	}
	contains(t, "diff", func() string {
		out, _, _ := fleet.Orchctl(ctx, "diff", "-f", write(t, manifest("a-third-word")))
		return out
	}(), "password")
}

// TestSecretIsNowhere: a Secret's value is in no file of any node or of the controller, in
// no log and in no core; and in no memory but that of nodes which need it.
func TestSecretIsNowhere(t *testing.T) {
	ctx := t.Context()
	word := func() string {
		b := make([]byte, 16)
		_, _ = rand.Read(b)
		return hex.EncodeToString(b)
	}
	first, second, plain, refused := word(), word(), word(), word()
	removeLater(t, "service/keeper", "secret/keeper", "config/keeper")
	manifest := func(secret string) string {
		return values("Secret", "keeper", `password: "`+secret+`"`) + values("Config", "keeper", `plain: "`+plain+`"`) + "---\n" +
			service("keeper", 1, "", httpProbe+`
      env: [{name: PASSWORD, valueFrom: {secret: {name: keeper, key: password}}}]
      envFrom: [{secret: keeper, prefix: P_}]
      mounts: [{path: /secret, secret: keeper}, {path: /config, config: keeper}]`)
	}
	must(t, fleet.ApplyText(ctx, manifest(first), true))
	must(t, fleet.ApplyText(ctx, manifest(second), true)) // rolls
	_, _, code := fleet.OrchctlIn(ctx, strings.NewReader(values("Secret", "keeper", "pass word: "+refused, `other: "`+refused+`"`)), "apply", "-f", "-")
	if code == 0 {
		t.Error("a Secret with a bad key was taken")
	}
	must(t, fleet.Must(ctx, "secret", "rotate-key"))
	if got := inside(t, "keeper-0", "-cat", "/secret/password"); got != second {
		t.Errorf("after the key was rotated /secret/password holds %q, want %q", got, second)
	}
	contains(t, "the environment", inside(t, "keeper-0", "-cat", "/proc/1/environ"), "PASSWORD="+second, "P_password="+second)
	must(t, fleet.Must(ctx, "logs", "service/keeper"))
	must(t, rig.Until(ctx, 20*time.Second, "the replica of the first revision to be gone", func() error {
		if n := len(replicas(t, "keeper")); n != 1 {
			return fmt.Errorf("%d replicas are there", n)
		}
		return nil
	}))
	r := replicas(t, "keeper")[0]
	// An agent and a controller that begin anew read what is on their disks.
	must(t, fleet.Lab.KillProcess(ctx, r.Spec.Node, "agent", sigkill))
	must(t, fleet.Lab.StartProcess(ctx, r.Spec.Node, "agent"))
	must(t, fleet.Lab.StopController(ctx, sigkill))
	must(t, fleet.Lab.StartController(ctx))
	must(t, fleet.WaitNodes(ctx, len(nodes)))
	must(t, fleet.WaitReady(ctx, "keeper", 1, 20*time.Second))

	found := map[string][]string{}
	must(t, search(fleet.Lab.Dir(), map[string][]string{"first": forms(first), "second": forms(second), "plain": forms(plain), "refused": forms(refused)}, found))
	for _, what := range []string{"first", "second", "refused"} {
		if len(found[what]) > 0 {
			t.Errorf("the secret (%s) lies in the clear in %s", what, strings.Join(found[what], ", "))
		}
	}
	if len(found["plain"]) == 0 {
		t.Error("the Config's value was found in no file: the search is blind")
	}

	for _, node := range nodes {
		held, err := agentHolds(t, node, second)
		must(t, err)
		if held != (node == r.Spec.Node) {
			t.Errorf("the agent of %s has the secret in its memory: %v; the replica is on %s", node, held, r.Spec.Node)
		}
	}
	kind, err := fleet.Shell(ctx, r.Spec.Node, `grep -lr `+second+` /run /var 2>/dev/null | while read f; do stat -f -c %T "$f"; done | sort -u`)
	must(t, err)
	if kind = strings.TrimSpace(kind); kind != "tmpfs" && kind != "ramfs" {
		t.Errorf("on its node the secret lies on %q, want memory alone", kind)
	}
}

// forms are the ways in which a value may lie in a file.
func forms(v string) []string {
	b := base64.StdEncoding.EncodeToString([]byte(v))
	return []string{v, b[:len(b)-4], hex.EncodeToString([]byte(v))}
}

// search adds to found the files below dir that hold any of the words.
func search(dir string, words map[string][]string, found map[string][]string) error {
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // fleets live
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		for what, forms := range words {
			for _, w := range forms {
				if bytes.Contains(b, []byte(w)) {
					found[what] = append(found[what], path)
					break
				}
			}
		}
		return err
	})
}

// agentHolds tells whether a value is in the memory of a node's agent.
func agentHolds(t *testing.T, node, value string) (bool, error) {
	t.Helper()
	space, err := fleet.Shell(t.Context(), node, "readlink /proc/self/ns/pid")
	if err != nil {
		return false, err
	}
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return false, err
	}
	for _, p := range all {
		exe, _ := os.Readlink(p + "/exe")
		if own, _ := os.Readlink(p + "/ns/pid"); own == space && filepath.Base(exe) == "agent" {
			return inMemory(p, value)
		}
	}
	return false, fmt.Errorf("no agent runs on %s", node)
}

// inMemory searches what a process may write to; what it has unmapped meanwhile is
// passed over.
func inMemory(proc, value string) (bool, error) {
	maps, err := os.ReadFile(proc + "/maps")
	if err != nil {
		return false, err
	}
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return false, err
	}
	defer mem.Close()
	const piece = 1 << 20
	b, read := make([]byte, piece+len(value)), 0
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &mode); err != nil {
			return false, err
		}
		for at := from; at < to && strings.HasPrefix(mode, "rw"); at += piece {
			n, err := mem.ReadAt(b[:min(uint64(len(b)), to-at)], int64(at))
			if read += n; bytes.Contains(b[:n], []byte(value)) {
				return true, nil
			}
			if err != nil {
				break
			}
		}
	}
	if read < piece {
		return false, fmt.Errorf("only %d bytes of the memory of %s could be read", read, proc)
	}
	return false, nil
}
