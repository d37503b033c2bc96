package lab

import (
	"os"
	"strings"
	"testing"
)

// TestEmpty: what is put on an empty node stays there, also without power, and is not
// on the machine.
func TestEmpty(t *testing.T) {
	ctx := testContext(t)
	c := config(t, "empty")
	c.Nodes, c.Daemons = 1, Empty
	l := up(t, c)
	var out strings.Builder
	const put = "mkdir -p /etc/orch /usr/local/lib/orch && echo mine | tee /etc/orch/lab-test.yaml >/usr/local/lib/orch/lab-test && hostname && id -u"
	if err := l.Exec(ctx, "n1", nil, &out, "sh", "-c", put); err != nil || out.String() != "n1\n0\n" {
		t.Fatalf("%v: %s", err, out.String())
	}
	for range 2 {
		for _, path := range []string{"/etc/orch/lab-test.yaml", "/usr/local/lib/orch/lab-test"} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s is on the machine", path)
			}
			inside, err := l.Inside("n1", path)
			if err != nil {
				t.Fatal(err)
			}
			if text, err := os.ReadFile(inside); err != nil || string(text) != "mine\n" {
				t.Errorf("%s on the node: %q, %v", path, text, err)
			}
		}
		if err := l.KillNode(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
		if err := l.Exec(ctx, "n1", nil, &out, "true"); err == nil {
			t.Error("a node without power runs a command")
		}
		if err := l.StartNode(ctx, "n1"); err != nil {
			t.Fatal(err)
		}
	}
	out.Reset()
	if err := l.Exec(ctx, "n1", strings.NewReader("in\n"), &out, "sh", "-c", "cat; echo err >&2; exit 3"); err == nil || out.String() != "in\nerr\n" {
		t.Errorf("%v: %q", err, out.String())
	}
	if err := l.StartProcess(ctx, "n1", "containerd"); err != nil {
		t.Error(err)
	}
}
