package orchctl

import (
	"fmt"
	"io"
	"strings"
	"testing"

	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

func digest(c string) string { return "sha256:" + strings.Repeat(c, 64) }

// TestGatherImages: one row for a digest, whatever nodes call it; nodes that cannot be
// asked are named.
func TestGatherImages(t *testing.T) {
	x := gather([]*orchv1.NodeImages{
		{Node: "n2", Images: []*orchv1.NodeImage{{Refs: []string{"shop/web@" + digest("a"), "shop/web:2"}, Digest: digest("a"), Size: 30 << 20, Keep: "runs web-1"}, {Digest: digest("c"), Size: 1}}},
		{Node: "n1", Images: []*orchv1.NodeImage{{Refs: []string{"shop/web:2", "shop/web:new"}, Digest: digest("a"), Size: 20 << 20, Keep: "runs web-0"}, {Refs: []string{"log:1"}, Digest: digest("b")}}},
		{Node: "n3", Error: "not reachable"},
	})
	var got []string
	for _, i := range x.Images {
		got = append(got, fmt.Sprintf("%s %s %v %v", i.ref(), shortDigest(i.Digest), i.Nodes, i.Keep))
	}
	want := []string{"- sha256:" + strings.Repeat("c", digestShown) + " [n2] []", "log:1 sha256:" + strings.Repeat("b", digestShown) + " [n1] []", "shop/web:2 sha256:" + strings.Repeat("a", digestShown) + " [n1 n2] [runs web-0 runs web-1]"}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if x.Nodes["n3"] != "not reachable" || len(x.Nodes) != 3 || x.Images[2].Bytes != 30<<20 {
		t.Errorf("nodes %v, images %+v", x.Nodes, x.Images)
	}
}

// saidOf are words of nodes.
type saidOf []*orchv1.ImageProgress

func (s *saidOf) Recv() (*orchv1.ImageProgress, error) {
	if len(*s) == 0 {
		return nil, io.EOF
	}
	m := (*s)[0]
	*s = (*s)[1:]
	return m, nil
}

// TestFollowImages: a line for what is news, in logs; who did not come to the end is named
// and fails the command.
func TestFollowImages(t *testing.T) {
	var out strings.Builder
	x := &tool{Env: Env{Out: &out, Screen: func() (int, int, bool) { return 80, 24, false }}}
	pulling := func(done int64) *orchv1.ImageProgress {
		return &orchv1.ImageProgress{Node: "n1", State: "pulling", Message: fmt.Sprintf("%d of 100 MiB", done), Done: done, Total: 100}
	}
	s := saidOf{pulling(0), pulling(3), pulling(26), pulling(30), {Node: "n2", State: "failed", Message: "the login is refused"}, pulling(99), {Node: "n1", State: "done", Message: "there after 2s", Digest: digest("a")}}
	err := x.followImages("pull image web:2", "without it", &s, nil)
	if err == nil || err.Error() != "pull image web:2: 1 node without it: n2" {
		t.Errorf("got %v", err)
	}
	want := "n1: pulling: 0 of 100 MiB\nn1: pulling: 26 of 100 MiB\nn2: failed: the login is refused\nn1: pulling: 99 of 100 MiB\nn1: done: there after 2s (sha256:" + strings.Repeat("a", digestShown) + ")\n"
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
	if err := x.followImages("pull image web:2", "without it", &saidOf{{Node: "n1", State: "done"}}, nil); err != nil {
		t.Error(err)
	}
}

// TestCreateLogin: a login without a trace of its password in the arguments.
func TestCreateLogin(t *testing.T) {
	x := &tool{namespace: "default", Env: Env{In: strings.NewReader("geheim\n")}}
	c := creating{kind: "Secret", typ: "registry", login: login{server: "registry.example:5000", username: "me", passwordStdin: true}}
	got, err := x.configOf(c, "hub")
	if err != nil || got.Type != "registry" || got.Data["server"] != "registry.example:5000" || got.Data["username"] != "me" || got.Data["password"] != "geheim" {
		t.Errorf("got %+v, %v", got, err)
	}
	for want, l := range map[string]login{
		"both are needed":                   {username: "me", passwordStdin: true},
		"the password is missing":           {server: "a", username: "me"},
		"the password is given twice":       {server: "a", username: "me", passwordStdin: true, passwordFile: "x"},
		"is a URL: write host or host:port": {server: "https://a", username: "me", passwordStdin: true},
	} {
		x := &tool{namespace: "default", Env: Env{In: strings.NewReader("geheim")}}
		c.login = l
		if _, err := x.configOf(c, "hub"); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "geheim") {
			t.Errorf("%+v: %v, want %s", l, err, want)
		}
	}
}
