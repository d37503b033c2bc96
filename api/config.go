package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Config is a named set of values that services take as variables and as files. Of
// kind Secret its values are encrypted in the store, reach only nodes that run a
// replica which takes them, lie there in memory alone, and are shown nowhere.
//
// Each change of the values is a new version, which never changes. A revision of a
// service holds the versions that it takes: new ones make new revisions of all
// services that use it, and a revision that is rolled back takes its old ones with it.
type Config struct {
	TypeMeta `json:",inline"`
	Metadata Metadata `json:"metadata"`
	// Type of a Secret: empty for values of any meaning, or registry for a login to a
	// registry of images, for pullSecrets. That one has the keys server (host or host:port),
	// username and password, or the key config.json with a file as docker login writes it.
	Type SecretType `json:"type,omitempty"`
	// Data are the values as text, by key. A key has letters, digits, "-", "_" and
	// ".", at most 253 of them, and is in one of Data and BinaryData.
	Data map[string]string `json:"data,omitempty"`
	// BinaryData are values that are no UTF-8 text, in base64.
	BinaryData map[string][]byte `json:"binaryData,omitempty"`
	Status     ConfigStatus      `json:"status,omitzero"`
}

// SecretType says what a Secret's values mean.
type SecretType string

// The secret types.
const (
	SecretOpaque   SecretType = ""
	SecretRegistry SecretType = "registry"
)

// ConfigStatus is what the leader knows of a Config or Secret.
type ConfigStatus struct {
	// Version is the newest; versions count from 1.
	Version int64 `json:"version,omitempty"`
	// Keys are the newest version's, with the size of each value in bytes: all that is
	// shown of a Secret.
	Keys map[string]int `json:"keys,omitempty"`
	// ChangedAt and ChangedBy are of the newest version.
	ChangedAt time.Time `json:"changedAt,omitzero"`
	ChangedBy string    `json:"changedBy,omitempty"`
	// Versions that are kept, with who takes them, oldest first.
	Versions []ConfigVersion `json:"versions,omitempty"`
}

// ConfigVersion is one version of a Config or Secret, as it is shown.
type ConfigVersion struct {
	Number    int64     `json:"number"`
	CreatedAt time.Time `json:"createdAt,omitzero"`
	By        string    `json:"by,omitempty"`
	// Users are the revisions that take it: "web@3".
	Users []string `json:"users,omitempty"`
}

// ConfigRef names a Config or Secret within a namespace: "config/app", "secret/db".
type ConfigRef string

// RefTo gives the reference to an object of KindConfig or KindSecret.
func RefTo(kind, name string) ConfigRef { return ConfigRef(strings.ToLower(kind) + "/" + name) }

// Kind gives KindConfig or KindSecret, Name the object's name.
func (r ConfigRef) Kind() string {
	if strings.HasPrefix(string(r), "secret/") {
		return KindSecret
	}
	return KindConfig
}

// Name gives the object's name.
func (r ConfigRef) Name() string {
	_, name, _ := strings.Cut(string(r), "/")
	return name
}

// String gives "config app".
func (r ConfigRef) String() string { return strings.ToLower(r.Kind()) + " " + r.Name() }

// ConfigUse is one place of a template that takes values.
type ConfigUse struct {
	Ref ConfigRef
	// Key that must be there; empty: all keys are taken.
	Key string
	// Variables: the keys become names of variables, with Prefix before each.
	Variables bool
	Prefix    string
	// Pull: it is a login to a registry, whose newest version counts; no revision pins it.
	Pull bool
	// Where in words: "container main, env DB_PASSWORD".
	Where string
}

// ConfigUses gives every place of the template that takes values, in its order, and
// what it pulls its images with.
func (t *Template) ConfigUses() []ConfigUse {
	var out []ConfigUse
	for _, ref := range t.PullRefs() {
		out = append(out, ConfigUse{Ref: ref, Pull: true, Where: "pullSecrets"})
	}
	for _, c := range t.AllContainers() {
		for _, e := range c.EnvFrom {
			ref := RefTo(KindConfig, e.Config)
			if e.Secret != "" {
				ref = RefTo(KindSecret, e.Secret)
			}
			out = append(out, ConfigUse{Ref: ref, Variables: true, Prefix: e.Prefix, Where: fmt.Sprintf("container %s, envFrom", c.Name)})
		}
		for _, e := range c.Env {
			at := fmt.Sprintf("container %s, env %s", c.Name, e.Name)
			switch from := e.ValueFrom; {
			case from == nil:
			case from.Config != nil:
				out = append(out, ConfigUse{Ref: RefTo(KindConfig, from.Config.Name), Key: from.Config.Key, Where: at})
			case from.Secret != nil:
				out = append(out, ConfigUse{Ref: RefTo(KindSecret, from.Secret.Name), Key: from.Secret.Key, Where: at})
			}
		}
		for _, m := range c.Mounts {
			at := fmt.Sprintf("container %s, mount %s", c.Name, m.Path)
			switch {
			case m.Config != "":
				out = append(out, ConfigUse{Ref: RefTo(KindConfig, m.Config), Key: m.Key, Where: at})
			case m.Secret != "":
				out = append(out, ConfigUse{Ref: RefTo(KindSecret, m.Secret), Key: m.Key, Where: at})
			}
		}
	}
	return out
}

// IsVariable tells whether a container can have a variable of that name.
func IsVariable(name string) bool { return envName.MatchString(name) }

// ConfigRefs gives the Configs and Secrets that the template takes values of, sorted,
// each once: those that its revisions pin, without PullRefs.
func (t *Template) ConfigRefs() []ConfigRef {
	of := map[ConfigRef]bool{}
	for _, u := range t.ConfigUses() {
		if !u.Pull {
			of[u.Ref] = true
		}
	}
	return slices.Sorted(maps.Keys(of))
}

// PullRefs gives the template's pull secrets, in its order.
func (t *Template) PullRefs() []ConfigRef {
	var out []ConfigRef
	for _, name := range t.PullSecrets {
		out = append(out, RefTo(KindSecret, name))
	}
	return out
}

// Volumes gives the names of the volumes that the template mounts, sorted, each once.
func (t *Template) Volumes() []string {
	of := map[string]bool{}
	for _, c := range t.AllContainers() {
		for _, m := range c.Mounts {
			if m.Volume != "" {
				of[m.Volume] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(of))
}

// Default fills in what was left out; see Service.Default.
func (c *Config) Default() {
	defaultMeta(&c.TypeMeta, &c.Metadata, KindConfig)
	noneIfEmpty(&c.Data)
	noneIfEmpty(&c.BinaryData)
	for key, value := range c.BinaryData {
		if value == nil { // JSON would make null of it
			c.BinaryData = maps.Clone(c.BinaryData)
			c.BinaryData[key] = []byte{}
		}
	}
}
