package orchctl

import (
	"fmt"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
)

func TestChangeWords(t *testing.T) {
	one := func(change ...func(*api.Template)) *api.Revision {
		x := api.Template{Containers: []api.Container{{Name: "main", Image: "orch.local/web:1.0", Env: []api.EnvVar{{Name: "LOG", Value: "info"}, {Name: "MODE", Value: "a"}}}}}
		for _, c := range change {
			c(&x)
		}
		return &api.Revision{Template: x}
	}
	main := func(f func(*api.Container)) func(*api.Template) { return func(x *api.Template) { f(&x.Containers[0]) } }
	image := func(ref string) func(*api.Template) { return main(func(c *api.Container) { c.Image = ref }) }
	side := func(x *api.Template) {
		x.Sidecars = []api.Container{{Name: "log", Image: "log:1"}, {Name: "proxy", Image: "proxy:1"}}
	}
	a, b := "sha256:"+strings.Repeat("a", 64), "sha256:"+strings.Repeat("b", 64)
	pinned := func(r *api.Revision, digest string) *api.Revision {
		r.Images = map[string]string{"orch.local/web:1.0": digest}
		return r
	}
	for _, c := range []struct {
		old, now *api.Revision
		want     string
	}{
		{one(), one(), "same template"},
		{one(), one(image("orch.local/web:2.0")), "image 1.0 -> 2.0"},
		{one(), one(image("host:5000/web")), "image orch.local/web:1.0 -> host:5000/web"},
		{one(image("web@" + a)), one(image("web@" + b)), "image sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb"},
		{one(), one(main(func(c *api.Container) { c.Env = []api.EnvVar{{Name: "LOG", Value: "debug"}, {Name: "NEW"}} })), "env LOG MODE NEW"},
		{one(), one(main(func(c *api.Container) {
			c.Env[0] = api.EnvVar{Name: "LOG", ValueFrom: &api.EnvSource{Field: api.FieldNode}}
		})), "env LOG"},
		{one(), one(image("orch.local/web:2.0"), main(func(c *api.Container) { c.Command = []string{"run"}; c.StopSignal = "SIGQUIT" }), func(x *api.Template) { x.HostNetwork = true }),
			"image 1.0 -> 2.0, command, stopSignal, hostNetwork"},
		{one(), one(side), "sidecar log is new, sidecar proxy is new"},
		{one(side), one(), "sidecar log is gone, sidecar proxy is gone"},
		{one(side), one(side, func(x *api.Template) { x.Sidecars[0], x.Sidecars[1] = x.Sidecars[1], x.Sidecars[0] }), "order of sidecars"},
		{one(side), one(side, image("orch.local/web:2.0")), "main: image 1.0 -> 2.0"},
		{one(), one(main(func(c *api.Container) {
			c.Command, c.Args, c.WorkingDir, c.StopSignal, c.Image = []string{"a"}, []string{"b"}, "/c", "SIGQUIT", "orch.local/web:2.0"
		})), "image 1.0 -> 2.0, args, command, 2 more"},
		{pinned(one(), a), pinned(one(), b), "orch.local/web:1.0 means sha256:bbbbbbbbbbbb now"},
		{one(), pinned(one(), b), "same template"},
	} {
		if got := changeWords(c.old, c.now); got != c.want {
			t.Errorf("%s: got %q, want %q", fmt.Sprint(c.now.Template.Containers[0].Image), got, c.want)
		}
	}
}
