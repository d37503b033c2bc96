package agent

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"github.com/orchctl/orch/agent/plan"
	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

// configs are the values of Configs and Secrets that this node's replicas take. Those of
// Configs lie on disk, too, beside the assignment that needs them; those of Secrets lie
// nowhere but here, in memory, and in that of the containers that have them.
//
// What a version holds never changes, but in another incarnation of the store it is
// another version.
type configs struct {
	mu     sync.Mutex
	values map[configKey]map[string][]byte
	// dirty: what lies on disk is not what is here.
	dirty bool
}

type configKey struct {
	incarnation string
	wire.ConfigKey
}

// savedConfigs is what lies on disk; see savedConfigsPath.
type savedConfigs struct {
	Incarnation string        `json:"incarnation"`
	Configs     []savedConfig `json:"configs"`
}

type savedConfig struct {
	Namespace string            `json:"namespace"`
	Ref       api.ConfigRef     `json:"ref"`
	Version   int64             `json:"version"`
	Values    map[string][]byte `json:"values"`
}

func newConfigs() *configs { return &configs{values: map[configKey]map[string][]byte{}} }

func savedConfigsPath(dir string) string { return filepath.Join(dir, "configs.json") }

// loadConfigs reads those that the agent's last life has kept. With an error there are
// none, and whoever needs one waits for a session.
func loadConfigs(dir string) (*configs, error) {
	c := newConfigs()
	b, err := os.ReadFile(savedConfigsPath(dir))
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("read configs: %w", err)
	}
	var s savedConfigs
	if err := json.Unmarshal(b, &s); err != nil {
		return c, fmt.Errorf("read configs %s: %w", savedConfigsPath(dir), err)
	}
	for _, x := range s.Configs {
		c.values[configKey{s.Incarnation, wire.ConfigKey{Namespace: x.Namespace, Ref: x.Ref, Version: x.Version}}] = x.Values
	}
	return c, nil
}

// take keeps what came with a set.
func (c *configs) take(incarnation string, list []wire.ConfigVersion) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range list {
		k := configKey{incarnation, v.ConfigKey}
		old, had := c.values[k]
		// A number may be given anew, after all who took it are gone.
		c.dirty = c.dirty || v.Ref.Kind() == api.KindConfig && !(had && maps.EqualFunc(old, v.Values, bytes.Equal))
		c.values[k] = v.Values
	}
}

// keepOnly drops what no assignment takes any more. It gives what belongs on disk, or
// nil where that is there.
func (c *configs) keepOnly(s plan.Saved) *savedConfigs {
	pinned := map[configKey]bool{}
	for _, a := range s.Assignments {
		for _, refs := range []map[api.ConfigRef]int64{a.Configs, a.Logins} {
			for ref, version := range refs {
				pinned[configKey{s.Incarnation, wire.ConfigKey{Namespace: a.Key.Namespace, Ref: ref, Version: version}}] = true
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k := range c.values {
		if !pinned[k] {
			c.dirty = c.dirty || k.Ref.Kind() == api.KindConfig
			delete(c.values, k)
		}
	}
	if !c.dirty {
		return nil
	}
	c.dirty = false
	out := &savedConfigs{Incarnation: s.Incarnation}
	for k, values := range c.values {
		if k.Ref.Kind() == api.KindConfig {
			out.Configs = append(out.Configs, savedConfig{k.Namespace, k.Ref, k.Version, maps.Clone(values)})
		}
	}
	slices.SortFunc(out.Configs, func(a, b savedConfig) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Ref, b.Ref), cmp.Compare(a.Version, b.Version))
	})
	return out
}

// of gives a version's values by key; false: they are not on this node.
func (c *configs) of(incarnation string, k wire.ConfigKey) (map[string][]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	values, ok := c.values[configKey{incarnation, k}]
	return values, ok
}
