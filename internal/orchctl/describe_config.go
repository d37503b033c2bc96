package orchctl

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/orchctl/orch/api"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// valueShown is how many characters of a value a table has room for; of longer ones, and
// of those with several lines, the size is told.
const valueShown = 60

func (t *tool) describeConfig(ctx context.Context, client orchv1.OrchClient, p *page, c *api.Config) error {
	st := c.Status
	p.field(0, "In short", "%s", configInShort(c))
	p.metadata(c.Metadata)
	p.field(0, "Version", "%d", st.Version)
	if !st.ChangedAt.IsZero() {
		changed := p.when(st.ChangedAt)
		if st.ChangedBy != "" {
			changed += " by " + st.ChangedBy
		}
		p.field(0, "Changed", "%s", changed)
	}
	if c.Type != "" {
		p.field(0, "Type", "%s", c.Type)
	}
	p.list(0, "Used by", configUsers(c))
	secret := c.ObjectKind() == api.KindSecret
	var rows [][]string
	for _, key := range keyNames(c) {
		row := []string{key, sizeText(st.Keys[key])}
		if !secret {
			row = append(row, valueText(c, key))
		}
		rows = append(rows, row)
	}
	if secret {
		p.table("Keys", rows, "KEY", "SIZE")
	} else {
		p.table("Keys", rows, "KEY", "SIZE", "VALUE")
	}
	rows = nil
	for _, v := range slices.Backward(st.Versions) {
		rows = append(rows, []string{strconv.FormatInt(v.Number, 10), age(p.now, v.CreatedAt), orDash(v.By), orDash(strings.Join(v.Users, ", "))})
	}
	p.table("Versions that are kept", rows, "VERSION", "AGE", "BY", "USED-BY")
	return t.events(ctx, client, p, target{c.ObjectKind(), c.Metadata.Namespace, c.Metadata.Name}.ref())
}

// valueText gives a value that fits a line, and of others what they are.
func valueText(c *api.Config, key string) string {
	text, ok := c.Data[key]
	switch lines := strings.Count(strings.TrimSuffix(text, "\n"), "\n") + 1; {
	case !ok:
		return "(binary)"
	case lines > 1:
		return fmt.Sprintf("(%d lines)", lines)
	case utf8.RuneCountInString(text) > valueShown:
		return clip(text, valueShown)
	}
	return strings.TrimSuffix(text, "\n")
}

// environment gives a container's variables, with where their values come from.
func environment(c api.Container) []string {
	var env []string
	for _, e := range c.EnvFrom {
		text := "all of config " + e.Config
		if e.Secret != "" {
			text = "all of secret " + e.Secret
		}
		if e.Prefix != "" {
			text += ", as " + e.Prefix + "..."
		}
		env = append(env, text)
	}
	for _, e := range c.Env {
		switch from := e.ValueFrom; {
		case from == nil:
			env = append(env, e.Name+"="+e.Value)
		case from.Config != nil:
			env = append(env, fmt.Sprintf("%s from config %s, key %s", e.Name, from.Config.Name, from.Config.Key))
		case from.Secret != nil:
			env = append(env, fmt.Sprintf("%s from secret %s, key %s", e.Name, from.Secret.Name, from.Secret.Key))
		default:
			env = append(env, e.Name+" from the replica's "+from.Field)
		}
	}
	return env
}

// mountText says what lies at a path.
func mountText(m api.Mount) string {
	text := m.Path + " from " + m.Bind + " of the node"
	ref := api.RefTo(api.KindConfig, m.Config)
	if m.Secret != "" {
		ref = api.RefTo(api.KindSecret, m.Secret)
	}
	switch {
	case m.Tmpfs != nil:
		text = m.Path + " in memory"
		if m.Tmpfs.Size != nil {
			text += ", at most " + m.Tmpfs.Size.String()
		}
	case m.Volume != "":
		text = m.Path + " from volume " + m.Volume
	case ref.Name() != "":
		text = m.Path + " from " + ref.String()
		if m.Key != "" {
			text += ", key " + m.Key
		}
		if m.Mode != "" {
			text += ", mode " + m.Mode
		}
		return text // it always is read-only
	}
	if m.ReadOnly {
		text += ", read-only"
	}
	return text
}

// pins tells which versions of Configs and Secrets a revision takes.
func pins(configs map[api.ConfigRef]int64) []string {
	var out []string
	for ref, version := range configs {
		out = append(out, fmt.Sprintf("%s version %d", ref, version))
	}
	slices.Sort(out)
	return out
}
