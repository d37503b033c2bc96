package scheduler_test

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/golden"
	"github.com/orchctl/orch/scheduler"
)

// A script is commands, each followed by the answers it gives, marked by ">":
//
//	node n1 cpu=4 mem=8Gi gpus=1 label zone=a      adds or replaces a node
//	unschedulable n1 | schedulable n1 | verdict n1 Suspect | remove n1
//	impaired n1 no fsync for 12s | works n1 | damped n1 | undamped n1
//	service web replicas=3 cpu=500m mem=1Gi port=80[/UDP] select zone=a where zone In a b
//	spare web-0 avoid=n1                           asks for one more filling of the slot
//	bind web-0 n1 | unbind web-0                   the newest filling
//	place                                          places what is asked for and has no node
//	explain web | nodes | free
func TestGolden(t *testing.T) { golden.Scripts(t, runScript) }

// script is the state of a script that runs.
type script struct {
	fleet    *scheduler.Fleet
	nodes    map[string]scheduler.Node
	services map[string]*scheduler.Shape
	newest   map[string]api.ReplicaKey // by replica name
	pending  []scheduler.Group
	epoch    uint64
}

func runScript(t *testing.T, text string) string {
	s := &script{fleet: scheduler.NewFleet(), nodes: map[string]scheduler.Node{}, services: map[string]*scheduler.Shape{}, newest: map[string]api.ReplicaKey{}}
	var out strings.Builder
	for i, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if strings.HasPrefix(line, ">") {
			continue
		}
		fmt.Fprintln(&out, line)
		command, _, _ := strings.Cut(line, "#")
		if words := strings.Fields(command); len(words) > 0 {
			answers, err := s.do(words)
			if err != nil {
				t.Fatalf("line %d: %q: %v", i+1, line, err)
			}
			for _, a := range answers {
				fmt.Fprintln(&out, "> "+a)
			}
		}
	}
	return out.String()
}

func (s *script) do(words []string) ([]string, error) {
	if len(words) < 2 && !slices.Contains([]string{"place", "nodes", "free"}, words[0]) {
		return nil, fmt.Errorf("want a name")
	}
	switch words[0] {
	case "node":
		n := scheduler.Node{Name: words[1], Verdict: api.VerdictHealthy, Labels: map[string]string{}, Capacity: api.ResourceList{}}
		return nil, s.parse(words[2:], n.Capacity, func(section string, word []string) error {
			if section != "label" || len(word) != 2 {
				return fmt.Errorf("%s %q is nothing that nodes have", section, word)
			}
			n.Labels[word[0]] = word[1]
			return nil
		}, func() { s.set(n) })
	case "verdict", "unschedulable", "schedulable", "impaired", "works", "damped", "undamped":
		n, ok := s.nodes[words[1]]
		if !ok {
			return nil, fmt.Errorf("no such node")
		}
		switch words[0] {
		case "verdict":
			n.Verdict = api.Verdict(words[2])
		case "impaired", "works":
			n.Impaired = strings.Join(words[2:], " ")
		case "damped", "undamped":
			n.Damped = words[0] == "damped"
		default:
			n.Unschedulable = words[0] == "unschedulable"
		}
		s.set(n)
	case "remove":
		delete(s.nodes, words[1])
		s.fleet.RemoveNode(words[1])
	case "service":
		return nil, s.service(words[1], words[2:])
	case "spare":
		return nil, s.spare(words[1], words[2:])
	case "bind":
		k, err := s.key(words[1])
		if err != nil {
			return nil, err
		}
		s.fleet.Bind(k, words[2], s.services[k.Service])
	case "unbind":
		k, err := s.key(words[1])
		if err != nil {
			return nil, err
		}
		s.fleet.Unbind(k)
	case "place":
		placed, refused := scheduler.Place(s.fleet, s.pending)
		for i := range s.pending {
			g := &s.pending[i]
			g.Slots = slices.DeleteFunc(g.Slots, func(slot scheduler.Slot) bool {
				return slices.ContainsFunc(placed, func(p scheduler.Placement) bool { return p.Key == slot.Key })
			})
		}
		return lines(placed, refused), nil
	case "explain":
		var out []string
		for _, e := range scheduler.Explain(s.fleet, s.services[words[1]], api.Key{Namespace: "default", Name: words[1]}) {
			if e.Fit {
				out = append(out, fmt.Sprintf("%s fit: %s; %d", e.Node, e.Why, e.Score))
			} else {
				line := fmt.Sprintf("%s %s: %s", e.Node, e.Filter, e.Reason)
				if e.Remedy != "" {
					line += "; remedy: " + e.Remedy
				}
				out = append(out, line)
			}
		}
		return out, nil
	case "nodes":
		var out []string
		for _, e := range scheduler.Explain(s.fleet, nil, api.Key{}) {
			r := s.fleet.Requested(e.Node)
			line := fmt.Sprintf("%s cpu=%s mem=%s:", e.Node, r[api.CPU], r[api.Memory])
			for _, k := range s.fleet.Bound(e.Node) {
				line += " " + k.Name()
			}
			out = append(out, line)
		}
		return out, nil
	case "free":
		free := s.fleet.Free()
		return []string{fmt.Sprintf("cpu=%s mem=%s", free[api.CPU], free[api.Memory])}, nil
	default:
		return nil, fmt.Errorf("no such command")
	}
	return nil, nil
}

func (s *script) set(n scheduler.Node) {
	s.nodes[n.Name] = n
	s.fleet.SetNode(n)
}

// parse reads "cpu=4 mem=8Gi label zone=a": amounts, then sections of other words.
func (s *script) parse(words []string, amounts api.ResourceList, other func(section string, word []string) error, done func()) error {
	section := ""
	for _, w := range words {
		parts := strings.SplitN(w, "=", 2)
		switch {
		case w == "label" || w == "select" || w == "where":
			section = w
			if err := other(section, nil); w == "where" && err != nil {
				return err
			}
		case section == "" && len(parts) == 2 && parts[0] != "replicas" && parts[0] != "port":
			q, err := api.ParseQuantity(parts[1])
			if err != nil {
				return err
			}
			if parts[0] == "mem" {
				parts[0] = api.Memory
			}
			amounts[parts[0]] = q
		default:
			if err := other(section, parts); err != nil {
				return err
			}
		}
	}
	done()
	return nil
}

func (s *script) service(name string, words []string) error {
	c := api.Container{Name: "main", Image: "web:1", Resources: api.Resources{Requests: api.ResourceList{}}}
	t := api.Template{NodeSelector: map[string]string{}}
	replicas := 1
	return s.parse(words, c.Resources.Requests, func(section string, word []string) (err error) {
		switch {
		case section == "where" && word == nil:
			t.Constraints = append(t.Constraints, api.Constraint{})
		case word == nil:
		case section == "where":
			last := &t.Constraints[len(t.Constraints)-1]
			switch {
			case last.Key == "":
				last.Key = word[0]
			case last.Operator == "":
				last.Operator = api.Operator(word[0])
			default:
				last.Values = append(last.Values, word[0])
			}
		case len(word) != 2:
			return fmt.Errorf("%q is nothing that services have", word)
		case section == "select":
			t.NodeSelector[word[0]] = word[1]
		case word[0] == "replicas":
			replicas, err = strconv.Atoi(word[1])
		case word[0] == "port":
			number, proto, _ := strings.Cut(word[1], "/")
			p := api.Port{Protocol: api.Protocol(proto), Mode: api.PublishHost}
			p.Publish, err = strconv.Atoi(number)
			c.Ports = append(c.Ports, p)
		default:
			return fmt.Errorf("%q is nothing that services have", word)
		}
		return err
	}, func() {
		t.Containers = []api.Container{c}
		s.services[name] = scheduler.NewShape(t)
		g := scheduler.Group{Service: api.Key{Namespace: "default", Name: name}, Shape: s.services[name]}
		for i := range replicas {
			g.Slots = append(g.Slots, scheduler.Slot{Key: s.fill(name, i)})
		}
		s.pending = append(s.pending, g)
	})
}

// fill gives the slot's next key.
func (s *script) fill(service string, slot int) api.ReplicaKey {
	s.epoch++
	k := api.ReplicaKey{Namespace: "default", Service: service, Slot: slot, Epoch: s.epoch}
	s.newest[k.Name()] = k
	return k
}

func (s *script) key(name string) (api.ReplicaKey, error) {
	k, ok := s.newest[name]
	if !ok {
		return k, fmt.Errorf("no replica %s", name)
	}
	return k, nil
}

func (s *script) spare(name string, words []string) error {
	k, err := s.key(name)
	if err != nil {
		return err
	}
	slot := scheduler.Slot{Key: s.fill(k.Service, k.Slot)}
	for _, w := range words {
		avoid, ok := strings.CutPrefix(w, "avoid=")
		if !ok {
			return fmt.Errorf("%q is not avoid=NODE", w)
		}
		slot.Avoid = append(slot.Avoid, avoid)
	}
	s.pending = append(s.pending, scheduler.Group{Service: k.ServiceKey(), Shape: s.services[k.Service], Slots: []scheduler.Slot{slot}})
	return nil
}
