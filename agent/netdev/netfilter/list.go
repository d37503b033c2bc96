package netfilter

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/internal/network"
)

// generation is the number of changes that were made to the rules of this network
// namespace, by anybody.
func generation() (uint32, error) {
	req := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	req.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	answers, err := req.Execute(unix.NETLINK_NETFILTER, unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN)
	if err != nil {
		return 0, fmt.Errorf("ask for the generation of nftables rules: %w", err)
	}
	for _, a := range answers {
		attrs, err := nl.ParseRouteAttr(a[nl.SizeofNfgenmsg:])
		if err != nil {
			return 0, fmt.Errorf("read the generation of nftables rules: %w", err)
		}
		for _, attr := range attrs {
			if attr.Attr.Type&^unix.NLA_F_NESTED == unix.NFTA_GEN_ID && len(attr.Value) == 4 {
				return uint32(attr.Value[0])<<24 | uint32(attr.Value[1])<<16 | uint32(attr.Value[2])<<8 | uint32(attr.Value[3]), nil
			}
		}
	}
	return 0, errors.New("read the generation of nftables rules: there is none")
}

// listed is what nft tells of one object.
type listed struct {
	Chain *struct {
		Name, Type, Hook string
		Prio             int
		Policy           string
	}
	Rule *struct{ Chain, Comment string }
	Set  *listedSet
	Map  *listedSet
}

type listedSet struct {
	Name    string
	Type    any // a word, or several that are joined
	Map     string
	Timeout int
	Elem    []any
}

// List gives the table as the kernel has it, rules by their hashes; nil: there is
// none.
func (t *Table) List(ctx context.Context) (*network.Table, error) {
	ctx, cancel := context.WithTimeout(ctx, applyTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "nft", "-j", "list", "table", "ip", network.TableName)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return nil, errors.New("list nftables rules: the program nft is missing: install the package nftables")
	case err != nil && strings.Contains(said.String(), "No such file or directory"):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("list nftables rules: %w: %s", err, bytes.TrimSpace(said.Bytes()))
	}
	table, err := parse(out)
	if err != nil {
		return nil, fmt.Errorf("list nftables rules: %w", err)
	}
	return table, nil
}

func parse(out []byte) (*network.Table, error) {
	var all struct{ Nftables []listed }
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, err
	}
	t := network.NewTable()
	for _, o := range all.Nftables {
		switch {
		case o.Chain != nil:
			var c network.Chain
			if o.Chain.Hook != "" {
				c.Base = &network.Base{Type: o.Chain.Type, Hook: o.Chain.Hook, Priority: o.Chain.Prio}
				if o.Chain.Policy != "accept" { // nothing of ours drops by default
					c.Base.Type += " policy " + o.Chain.Policy
				}
			}
			t.Chains[o.Chain.Name] = c
		case o.Rule != nil: // after all chains
			c := t.Chains[o.Rule.Chain]
			c.Rules = append(c.Rules, network.Rule{Hash: o.Rule.Comment})
			t.Chains[o.Rule.Chain] = c
		case o.Set != nil:
			s, err := parseSet(o.Set)
			if err != nil {
				return nil, err
			}
			t.Sets[o.Set.Name] = s
		case o.Map != nil:
			s, err := parseSet(o.Map)
			if err != nil {
				return nil, err
			}
			t.Sets[o.Map.Name] = s
		}
	}
	return t, nil
}

func parseSet(l *listedSet) (network.Set, error) {
	s := network.Set{Value: l.Map, Timeout: l.Timeout, Elements: map[string]string{}}
	switch types := l.Type.(type) {
	case string:
		s.Key = types
	case []any:
		var words []string
		for _, w := range types {
			words = append(words, fmt.Sprint(w))
		}
		s.Key = strings.Join(words, " . ")
	}
	if s.Timeout > 0 {
		return s, nil // the kernel's own
	}
	for _, e := range l.Elem {
		key, value := e, any(nil)
		if pair, ok := e.([]any); ok && s.Value != "" {
			if len(pair) != 2 {
				return s, fmt.Errorf("set %s: an element is no pair: %v", l.Name, e)
			}
			key, value = pair[0], pair[1]
		}
		k, err := word(key)
		if err != nil {
			return s, fmt.Errorf("set %s: %w", l.Name, err)
		}
		v := ""
		if value != nil {
			if v, err = word(value); err != nil {
				return s, fmt.Errorf("set %s: %w", l.Name, err)
			}
		}
		s.Elements[k] = v
	}
	return s, nil
}

// word writes a part of an element as our rules do.
func word(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return v, nil
	case float64:
		return fmt.Sprint(int(v)), nil
	case map[string]any:
		for verb, to := range v {
			switch to := to.(type) {
			case []any: // {"concat": [...]}
				var words []string
				for i, part := range to {
					w, err := word(part)
					if err != nil {
						return "", err
					}
					if _, number := part.(float64); number && i < len(to)-1 {
						w = map[string]string{"6": "tcp", "17": "udp"}[w] // some versions of nft write the number
					}
					words = append(words, w)
				}
				return strings.Join(words, " . "), nil
			case map[string]any: // {"goto": {"target": ...}}, or {"elem": {"val": ...}} with a comment
				if inner, ok := to["val"]; ok {
					return word(inner)
				}
				return fmt.Sprintf("%s %v", verb, to["target"]), nil
			case nil:
				return verb, nil
			}
		}
	}
	return "", fmt.Errorf("an element is not understood: %v", v)
}
