package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestPrune: what is in no file any more is shown, by diff and dry run nothing is
// changed, and with --yes it is gone; what the selector does not choose is left.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	write := func(name, labels string) string {
		t.Helper()
		deleteLater(t, name)
		path := filepath.Join(dir, name+".yaml")
		text := strings.Replace(service(name, 1, "", httpProbe), "{name: "+name+"}", "{name: "+name+", labels: {"+labels+"}}", 1)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	write("kept", "set: pruned")
	old, other := write("old", "set: pruned"), write("other", "set: other")
	must(t, fleet.Must(t.Context(), "apply", "-f", dir))
	must(t, os.Remove(other))
	must(t, os.Remove(old))

	prune := []string{"apply", "-f", dir, "--prune", "-l", "set=pruned"}
	ask := func(wantCode int, want string, args ...string) {
		t.Helper()
		out, errs, code := fleet.Orchctl(t.Context(), args...)
		if code != wantCode || !strings.Contains(out+errs, want) || strings.Contains(out+errs, "service/other") {
			t.Errorf("%s: exit %d, want %d, %q\n%s%s", strings.Join(args, " "), code, wantCode, want, out, errs)
		}
	}
	there := func(name string, want bool) {
		t.Helper()
		if _, err := fleet.Service(t.Context(), name); (err == nil) != want {
			t.Errorf("service %s is there: %v, want %v", name, err == nil, want)
		}
	}
	ask(0, "", "diff", "-f", dir)
	ask(0, "would be deleted: service/old (1 replica, ", append(prune, "--dry-run")...)
	ask(2, "--prune needs --yes where nobody can be asked; nothing was applied\nwill be deleted: service/old (1 replica, ", prune...)
	there("old", true)
	ask(0, "service/old deleted\n", append(prune, "--yes")...)
	there("old", false)
	there("other", true)
	there("kept", true)
	ask(0, "service/kept unchanged; 1/1 ready\n", prune...) // nothing is left to ask about
}
