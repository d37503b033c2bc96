package agent

import (
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/orchctl/orch/agent/ctrd"
	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// fileMode is that of a file whose mount names none.
	fileMode fs.FileMode = 0o444
	// variableMax is the longest "NAME=value" that the kernel hands to a program, with the
	// NUL behind it (MAX_ARG_STRLEN).
	variableMax = 128 << 10
)

// values are what one container takes of Configs and Secrets.
type values struct {
	e       plan.StartContainer
	configs *configs

	// variables in the order of their first mention, the last word counts.
	names     []string
	variables map[string]variable
	files     []ctrd.FileMount
}

type variable struct {
	value  string
	secret bool
}

// resolve puts values into a spec where its container takes any: variables of Configs
// become plain ones, those of Secrets SecretEnv, and mounts of both Files.
func (c *configs) resolve(e plan.StartContainer, s *ctrd.ContainerSpec) *plan.Failure {
	v := &values{e: e, configs: c, variables: map[string]variable{}}
	for _, from := range e.Container.EnvFrom {
		if f := v.all(from); f != nil {
			return f
		}
	}
	for _, env := range e.Container.Env {
		if f := v.one(env); f != nil {
			return f
		}
	}
	var mounts []api.Mount
	for _, m := range e.Container.Mounts {
		if m.Config == "" && m.Secret == "" {
			mounts = append(mounts, m)
		} else if f := v.mount(m); f != nil {
			return f
		}
	}
	s.Container.EnvFrom, s.Container.Env, s.Container.Mounts, s.Files = nil, nil, mounts, v.files
	for _, name := range v.names {
		x := v.variables[name]
		to := &s.Container.Env
		if x.secret {
			to = &s.SecretEnv
		}
		*to = append(*to, api.EnvVar{Name: name, Value: x.value})
	}
	return nil
}

// of gives a Config's or Secret's values, or why there are none.
func (v *values) of(config, secret string) (source, *plan.Failure) {
	var s source
	if s.Ref = api.RefTo(api.KindConfig, config); secret != "" {
		s.Ref = api.RefTo(api.KindSecret, secret)
	}
	s.Namespace, s.Version = v.e.Replica.Namespace, v.e.Configs[s.Ref]
	var ok bool
	s.values, ok = v.configs.of(v.e.Incarnation, s.ConfigKey)
	if !ok {
		return s, &plan.Failure{Reason: api.ReasonConfigMissing, Message: s.String() + " is not on this node yet: it comes with the next session"}
	}
	return s, nil
}

// source is one version that values are taken from.
type source struct {
	wire.ConfigKey
	values map[string][]byte
}

// unusable says why a value cannot be used, and never what it is.
func (s source) unusable(key, format string, args ...any) *plan.Failure {
	return &plan.Failure{Reason: api.ReasonConfigError, Message: fmt.Sprintf("%s, key %s: ", s, key) + fmt.Sprintf(format, args...)}
}

func (s source) key(key string) ([]byte, *plan.Failure) {
	value, ok := s.values[key]
	if !ok {
		return nil, s.unusable(key, "there is none")
	}
	return value, nil
}

func (v *values) all(from api.EnvFrom) *plan.Failure {
	s, f := v.of(from.Config, from.Secret)
	if f != nil {
		return f
	}
	for _, key := range slices.Sorted(maps.Keys(s.values)) {
		if f := v.set(s, key, from.Prefix+key); f != nil {
			return f
		}
	}
	return nil
}

func (v *values) one(env api.EnvVar) *plan.Failure {
	from := env.ValueFrom
	if from == nil || from.Config == nil && from.Secret == nil {
		v.put(env.Name, variable{value: env.Value})
		return nil
	}
	var config, secret, key string
	if from.Config != nil {
		config, key = from.Config.Name, from.Config.Key
	} else {
		secret, key = from.Secret.Name, from.Secret.Key
	}
	s, f := v.of(config, secret)
	if f != nil {
		return f
	}
	return v.set(s, key, env.Name)
}

func (v *values) set(s source, key, name string) *plan.Failure {
	value, f := s.key(key)
	switch {
	case f != nil:
		return f
	case name == "" || strings.ContainsAny(name, "=\x00"):
		return s.unusable(key, "%q is no name of a variable", name)
	case slices.Contains(value, 0):
		return s.unusable(key, "it has a NUL byte, which no variable can hold: mount it as a file")
	case len(name)+len(value)+2 > variableMax:
		return s.unusable(key, "it has %d bytes, more than a variable can hold: mount it as a file", len(value))
	}
	v.put(name, variable{string(value), s.Ref.Kind() == api.KindSecret})
	return nil
}

func (v *values) put(name string, x variable) {
	if _, had := v.variables[name]; !had {
		v.names = append(v.names, name)
	}
	v.variables[name] = x
}

func (v *values) mount(m api.Mount) *plan.Failure {
	s, f := v.of(m.Config, m.Secret)
	if f != nil {
		return f
	}
	file := ctrd.FileMount{Path: m.Path, Single: m.Key != "", Files: s.values, Mode: fileMode}
	if m.Mode != "" {
		mode, err := strconv.ParseUint(m.Mode, 8, 32)
		if err != nil || mode > 0o777 {
			return &plan.Failure{Reason: api.ReasonConfigError, Message: fmt.Sprintf("mount %s: mode %q is none of a file", m.Path, m.Mode)}
		}
		file.Mode = fs.FileMode(mode)
	}
	if file.Single {
		value, f := s.key(m.Key)
		if f != nil {
			return f
		}
		file.Files = map[string][]byte{m.Key: value}
	}
	for name := range file.Files {
		if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
			return s.unusable(name, "this is no name of a file")
		}
	}
	v.files = append(v.files, file)
	return nil
}
