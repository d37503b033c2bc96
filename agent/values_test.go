package agent

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

func version(ref api.ConfigRef, n int64, values map[string]string) wire.ConfigVersion {
	v := wire.ConfigVersion{ConfigKey: wire.ConfigKey{Namespace: "default", Ref: ref, Version: n}, Values: map[string][]byte{}}
	for k, x := range values {
		v.Values[k] = []byte(x)
	}
	return v
}

func TestValuesOfAContainer(t *testing.T) {
	c := newConfigs()
	c.take("A", []wire.ConfigVersion{
		version("config/app", 3, map[string]string{"LEVEL": "debug", "PORT": "80", "app.conf": "x=1"}),
		version("config/nul", 1, map[string]string{"B": "a\x00b"}),
		version("config/long", 1, map[string]string{"B": strings.Repeat("x", variableMax)}),
		version("config/dots", 1, map[string]string{"..": "x"}),
		version("config/equals", 1, map[string]string{"A=B": "x"}),
		version("secret/db", 2, map[string]string{"PASSWORD": "hunter2", "PORT": "5432"}),
	})
	c.take("B", []wire.ConfigVersion{version("config/app", 9, map[string]string{"LEVEL": "of another store"})})
	env := func(pairs ...string) []api.EnvVar {
		var out []api.EnvVar
		for i := 0; i < len(pairs); i += 2 {
			out = append(out, api.EnvVar{Name: pairs[i], Value: pairs[i+1]})
		}
		return out
	}
	of := func(config, secret string) *api.EnvSource {
		name, key, _ := strings.Cut(config+secret, "/")
		if config != "" {
			return &api.EnvSource{Config: &api.KeyRef{Name: name, Key: key}}
		}
		return &api.EnvSource{Secret: &api.KeyRef{Name: name, Key: key}}
	}
	files := func(pairs ...string) map[string][]byte {
		out := map[string][]byte{}
		for i := 0; i < len(pairs); i += 2 {
			out[pairs[i]] = []byte(pairs[i+1])
		}
		return out
	}
	tmp := api.Mount{Path: "/tmp", Tmpfs: &api.Tmpfs{}}
	data := api.Mount{Path: "/data", Volume: "data"}
	for _, x := range []struct {
		name             string
		c                api.Container
		env, secret      []api.EnvVar
		files            []ctrd.FileMount
		mounts           []api.Mount
		reason, in, pins string
	}{
		{name: "nothing"},
		{name: "plain", c: api.Container{Env: env("A", "1", "B", "2"), Mounts: []api.Mount{tmp, data}}, env: env("A", "1", "B", "2"), mounts: []api.Mount{tmp, data}},
		{name: "all of a config", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "app", Prefix: "APP_"}}},
			env: env("APP_LEVEL", "debug", "APP_PORT", "80", "APP_app.conf", "x=1")},
		{name: "all of a secret", c: api.Container{EnvFrom: []api.EnvFrom{{Secret: "db"}}}, secret: env("PASSWORD", "hunter2", "PORT", "5432")},
		{name: "the last word counts, of a config", c: api.Container{EnvFrom: []api.EnvFrom{{Secret: "db"}, {Config: "app"}}},
			env: env("PORT", "80", "LEVEL", "debug", "app.conf", "x=1"), secret: env("PASSWORD", "hunter2")},
		{name: "the last word counts, of a secret", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "app"}, {Secret: "db"}}},
			env: env("LEVEL", "debug", "app.conf", "x=1"), secret: env("PORT", "5432", "PASSWORD", "hunter2")},
		{name: "a plain variable is above a secret's", c: api.Container{EnvFrom: []api.EnvFrom{{Secret: "db"}}, Env: env("PASSWORD", "other")},
			env: env("PASSWORD", "other"), secret: env("PORT", "5432")},
		{name: "one value", c: api.Container{Env: []api.EnvVar{{Name: "L", ValueFrom: of("app/LEVEL", "")}, {Name: "P", ValueFrom: of("", "db/PASSWORD")}}},
			env: env("L", "debug"), secret: env("P", "hunter2")},
		{name: "files", c: api.Container{Mounts: []api.Mount{tmp, {Path: "/etc/db", Secret: "db", Mode: "0400"}, {Path: "/etc/app.conf", Config: "app", Key: "app.conf"}, data}},
			mounts: []api.Mount{tmp, data},
			files: []ctrd.FileMount{{Path: "/etc/db", Files: files("PASSWORD", "hunter2", "PORT", "5432"), Mode: 0o400},
				{Path: "/etc/app.conf", Single: true, Files: files("app.conf", "x=1"), Mode: fs.FileMode(0o444)}}},
		{name: "not here", c: api.Container{EnvFrom: []api.EnvFrom{{Secret: "late"}}}, reason: api.ReasonConfigMissing,
			in: "secret default/late version 7 is not on this node yet: it comes with the next session"},
		{name: "of another store", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "other"}}}, reason: api.ReasonConfigMissing, in: "config default/other version 9"},
		{name: "files that are not here", c: api.Container{Mounts: []api.Mount{{Path: "/x", Secret: "late"}}}, reason: api.ReasonConfigMissing, in: "secret default/late version 7"},
		{name: "no such key", c: api.Container{Env: []api.EnvVar{{Name: "X", ValueFrom: of("", "db/NONE")}}}, reason: api.ReasonConfigError, in: "secret default/db version 2, key NONE: there is none"},
		{name: "no such file", c: api.Container{Mounts: []api.Mount{{Path: "/x", Config: "app", Key: "none"}}}, reason: api.ReasonConfigError, in: "key none: there is none"},
		{name: "NUL", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "nul"}}}, reason: api.ReasonConfigError, in: "config default/nul version 1, key B: it has a NUL byte"},
		{name: "too long", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "long"}}}, reason: api.ReasonConfigError, in: "it has 131072 bytes, more than a variable can hold"},
		{name: "no name of a variable", c: api.Container{EnvFrom: []api.EnvFrom{{Config: "equals"}}}, reason: api.ReasonConfigError, in: `"A=B" is no name of a variable`},
		{name: "no name of a file", c: api.Container{Mounts: []api.Mount{{Path: "/x", Config: "dots"}}}, reason: api.ReasonConfigError, in: "no name of a file"},
		{name: "no mode", c: api.Container{Mounts: []api.Mount{{Path: "/x", Config: "app", Mode: "7777"}}}, reason: api.ReasonConfigError, in: `mount /x: mode "7777"`},
	} {
		t.Run(x.name, func(t *testing.T) {
			e := plan.StartContainer{Incarnation: "A", Replica: web0, Container: x.c,
				Configs: map[api.ConfigRef]int64{"config/app": 3, "config/nul": 1, "config/long": 1, "config/dots": 1, "config/equals": 1, "config/other": 9, "secret/db": 2, "secret/late": 7}}
			s := ctrd.ContainerSpec{Container: x.c}
			f := c.resolve(e, &s)
			if x.reason != "" {
				if f == nil || f.Reason != x.reason || !strings.Contains(f.Message, x.in) {
					t.Errorf("%+v, want %s with %q", f, x.reason, x.in)
				}
				return
			}
			want := ctrd.ContainerSpec{Container: api.Container{Env: x.env, Mounts: x.mounts}, SecretEnv: x.secret, Files: x.files}
			if f != nil || !reflect.DeepEqual(s, want) {
				t.Errorf("%+v\ngot  %+v\nwant %+v", f, s, want)
			}
		})
	}
}

// What is printed of a failure or of an effect holds no value.
func TestValuesAreNotPrinted(t *testing.T) {
	c := newConfigs()
	c.take("A", []wire.ConfigVersion{version("secret/db", 2, map[string]string{"K": "hunter2\x00"})})
	e := plan.StartContainer{Incarnation: "A", Replica: web0, Configs: map[api.ConfigRef]int64{"secret/db": 2},
		Container: api.Container{Name: "main", EnvFrom: []api.EnvFrom{{Secret: "db"}}}}
	f := c.resolve(e, &ctrd.ContainerSpec{})
	if f == nil || strings.Contains(f.Message, "hunter2") || strings.Contains(describe(e), "hunter2") {
		t.Errorf("%+v", f)
	}
}
