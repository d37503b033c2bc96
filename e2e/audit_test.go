package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/internal/audit"
)

// auditLines reads what the fleet's controller has written of a method since then.
func auditLines(t *testing.T, method string, since time.Time) (out []audit.Line) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(fleet.Lab.Dir(), "*", "data", "audit.log"))
	must(t, err)
	if len(files) == 0 {
		files, err = filepath.Glob(filepath.Join(fleet.Lab.Dir(), "*", "*", "data", "audit.log"))
		must(t, err)
	}
	if len(files) != 1 {
		t.Fatalf("audit logs: %v, want one", files)
	}
	info, err := os.Stat(files[0])
	must(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("%s has mode %v, want 0600", files[0], info.Mode().Perm())
	}
	f, err := os.Open(files[0])
	must(t, err)
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var x audit.Line
		if err := json.Unmarshal(lines.Bytes(), &x); err != nil {
			t.Fatalf("%v in %q", err, lines.Text())
		}
		if x.Method == "orch.v1."+method && !x.Time.Before(since) {
			out = append(out, x)
		}
	}
	must(t, lines.Err())
	return out
}

// TestAudit: every change has its line with who, what and the outcome, and so has what was
// refused; what was read has none.
func TestAudit(t *testing.T) {
	ctx := t.Context()
	since := time.Now().Add(-time.Millisecond)
	apply(t, "audited", service("audited", 1, "", httpProbe))
	must(t, fleet.Must(ctx, "scale", "service/audited", "--replicas", "2"))
	must(t, fleet.WaitReady(ctx, "audited", 2, 30*time.Second))
	if out, errs, code := fleet.Orchctl(ctx, "exec", "audited-0", "--", "/bin/web", "-cat", "/proc/self/comm"); code != 0 {
		t.Fatalf("exec: %d %s %s", code, out, errs)
	}
	if _, _, code := fleet.Orchctl(ctx, "scale", "service/nobody", "--replicas", "2"); code == 0 {
		t.Error("a service that is not there was scaled")
	}
	must(t, fleet.Must(ctx, "get", "services"))
	eve := filepath.Join(t.TempDir(), "eve.yaml")
	must(t, fleet.Must(ctx, "user", "create", "eve", "--role", "viewer", "--out", eve))
	t.Cleanup(func() { _ = fleet.Must(context.Background(), "user", "remove", "eve") })
	if _, errs, code := fleet.Orchctl(ctx, "--config", eve, "delete", "service", "audited", "--yes"); code == 0 {
		t.Errorf("a viewer deleted a service: %s", errs)
	}

	one := func(method, object string, outcome audit.Outcome) audit.Line {
		t.Helper()
		var found []audit.Line
		for _, l := range auditLines(t, method, since) {
			if slices.Contains(l.Objects, object) && l.Outcome == outcome && !l.Retry {
				found = append(found, l)
			}
		}
		if len(found) != 1 {
			t.Fatalf("%s of %s: %d lines with outcome %s, want one: %+v", method, object, len(found), outcome, found)
		}
		l := found[0]
		if l.Who.Kind != "user" || l.Who.Name == "" || l.Who.Role != "admin" || l.From == "" {
			t.Errorf("%s: who %+v from %q", method, l.Who, l.From)
		}
		return l
	}
	if l := one("Orch/Apply", "Service default/audited", audit.OK); l.Detail != "1 created" || l.RequestID == "" {
		t.Errorf("apply: %+v", l)
	}
	if l := one("Orch/Scale", "Service default/audited", audit.OK); l.Detail != "scale to 2; from 1" {
		t.Errorf("scale: %+v", l)
	}
	if l := one("Orch/Scale", "Service default/nobody", audit.Refused); l.Code != "NotFound" || !strings.Contains(l.Message, "nobody") {
		t.Errorf("scale of what is not there: %+v", l)
	}
	begun, ended := one("Orch/Exec", "Replica default/audited-0", audit.Begun), one("Orch/Exec", "Replica default/audited-0", audit.OK)
	if want := "exec /bin/web -cat /proc/self/comm"; begun.Detail != want || ended.Detail != want || begun.Call == "" || begun.Call != ended.Call {
		t.Errorf("exec: %+v, %+v", begun, ended)
	}
	forbidden := auditLines(t, "Orch/Delete", since)
	if i := slices.IndexFunc(forbidden, func(l audit.Line) bool { return l.Who.Name == "eve" }); i < 0 {
		t.Error("the viewer's attempt has no line")
	} else if l := forbidden[i]; l.Outcome != audit.Refused || l.Code != "PermissionDenied" || l.Who.Role != "viewer" || l.From == "" {
		t.Errorf("the viewer's attempt: %+v", l)
	}
	if l := auditLines(t, "Orch/CreateUser", since); len(l) != 1 || l[0].Objects[0] != "User eve" || !strings.HasPrefix(l[0].Detail, "role viewer") {
		t.Errorf("the user: %+v", l)
	}
	for _, read := range []string{"Orch/Get", "Orch/List", "Orch/Watch", "Orch/Version"} {
		if l := auditLines(t, read, since); len(l) != 0 {
			t.Errorf("a read has a line: %+v", l[0])
		}
	}
	if joins := auditLines(t, "Agents/Join", time.Time{}); len(joins) < len(nodes) {
		t.Errorf("%d joins of %d nodes have a line", len(joins), len(nodes))
	}
}
