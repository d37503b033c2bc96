package manifests

import (
	"reflect"
	"strings"

	"github.com/orchctl/orch/api"
)

// asWritten gives an example where people often write another shape: that of another
// system, or a short form that would have to be guessed at. It is put behind what is
// wanted.
func (r *reader) asWritten(t reflect.Type, path string) string {
	if path == "spec.pullSecrets" {
		return ", as [registry-login]"
	}
	if r.root == reflect.TypeFor[api.Job]() && t == reflect.TypeFor[api.RestartPolicy]() {
		return ", as {backOff: 5s} (there is no condition: a try that failed is made anew, as backoffLimit allows)"
	}
	if example, ok := shapes[t]; ok {
		return ", as " + example
	}
	return ""
}

// plainName is for lists of names, which others write as mappings with a name in each.
func plainName(path string) string {
	if strings.HasPrefix(path, "spec.pullSecrets[") {
		return ", the secret's name alone"
	}
	return ""
}

var shapes = map[reflect.Type]string{
	reflect.TypeFor[[]api.EnvVar]():      `- {name: LEVEL, value: "info"}`,
	reflect.TypeFor[[]api.EnvFrom]():     "- {config: app}",
	reflect.TypeFor[api.EnvFrom]():       "{config: app}",
	reflect.TypeFor[api.EnvSource]():     "{field: name} or {secret: {name: db, key: password}}",
	reflect.TypeFor[api.KeyRef]():        "{name: db, key: password}",
	reflect.TypeFor[[]api.Port]():        "- {port: 80, publish: 8080}",
	reflect.TypeFor[api.Port]():          "{port: 80, publish: 8080}",
	reflect.TypeFor[[]api.Mount]():       "- {path: /data, volume: data}",
	reflect.TypeFor[api.Mount]():         "{path: /data, volume: data} or {path: /data, bind: /srv/data}",
	reflect.TypeFor[[]string]():          "[sh, -c, \"echo a b\"]",
	reflect.TypeFor[api.RestartPolicy](): "{condition: onFailure}",
	reflect.TypeFor[api.Ulimit]():        "{soft: 1024, hard: 4096}",
	reflect.TypeFor[api.ExecProbe]():     "{command: [/bin/check]}",
	reflect.TypeFor[[]api.Container]():   "- {name: main, image: \"web:1\"}",
}
