package lab

import (
	"fmt"
	"strings"
)

// Fault is something wrong with the network between hosts. Exactly one of a
// cut (Percent 0) and a loss (Percent 1 to 100, Peer empty) is meant.
type Fault struct {
	Node    string // a node, or "controller"
	Peer    string // the other end of a cut; empty means everybody
	OneWay  bool   // only what Node sends is dropped
	Percent int    // of frames lost, in each direction
}

// String tells the fault to people.
func (f Fault) String() string {
	if f.Percent > 0 {
		return fmt.Sprintf("%s loses %d %% of its frames each way", f.Node, f.Percent)
	}
	peer := f.Peer
	if peer == "" {
		peer = "everybody"
	}
	if f.OneWay {
		return fmt.Sprintf("%s is not heard by %s", f.Node, peer)
	}
	return fmt.Sprintf("%s is cut off from %s", f.Node, peer)
}

func (f Fault) concerns(node string) bool { return f.Node == node || f.Peer == node }

// ruleset is the nftables script that puts exactly these faults in force on
// the bridge, in place of whatever was there. Nodes are known by the name of
// their port; the controller is the bridge's own machine, so that its frames
// pass the input and output hooks.
//
// Frames are dropped where they enter a port's rule, so that neighbour
// discovery is cut as well: the bridge forwards nothing it should not.
func ruleset(faults []Fault) string {
	chains := map[string][]string{}
	add := func(chain, match string) { chains[chain] = append(chains[chain], match+" drop") }
	for _, f := range faults {
		switch {
		case f.Percent > 0 && f.Node == controllerName:
			add("input", roll(f.Percent))
			add("output", roll(f.Percent))
		case f.Percent > 0:
			add("prerouting", fmt.Sprintf("iifname %q %s", f.Node, roll(f.Percent)))
			add("postrouting", fmt.Sprintf("oifname %q %s", f.Node, roll(f.Percent)))
		default:
			cut(add, f.Node, f.Peer)
			if !f.OneWay {
				cut(add, f.Peer, f.Node)
			}
		}
	}
	var out strings.Builder
	// Naming the table before deleting it makes the deletion never fail.
	out.WriteString("table bridge orchlab\ndelete table bridge orchlab\n")
	if len(faults) == 0 {
		return out.String()
	}
	out.WriteString("table bridge orchlab {\n")
	for _, hook := range []string{"prerouting", "input", "forward", "output", "postrouting"} {
		if len(chains[hook]) == 0 {
			continue
		}
		fmt.Fprintf(&out, "\tchain %s {\n\t\ttype filter hook %s priority -300; policy accept;\n", hook, hook)
		for _, rule := range chains[hook] {
			out.WriteString("\t\t" + rule + "\n")
		}
		out.WriteString("\t}\n")
	}
	out.WriteString("}\n")
	return out.String()
}

// everyFrame matches all: a rule needs something to match.
const everyFrame = "meta protocol != 0"

// roll matches a share of all frames. nft refuses a comparison that is always
// true, so all of them are matched otherwise.
func roll(percent int) string {
	if percent == 100 {
		return everyFrame
	}
	return fmt.Sprintf("numgen random mod 100 < %d", percent)
}

// cut drops what goes from one end to the other; an empty end is everybody.
func cut(add func(chain, match string), from, to string) {
	switch {
	case from == controllerName && to == "":
		add("output", everyFrame)
	case from == "" && to == controllerName:
		add("input", everyFrame)
	case from == controllerName:
		add("output", fmt.Sprintf("oifname %q", to))
	case to == controllerName:
		add("input", fmt.Sprintf("iifname %q", from))
	case to == "":
		add("prerouting", fmt.Sprintf("iifname %q", from))
	case from == "":
		add("postrouting", fmt.Sprintf("oifname %q", to))
	default:
		add("forward", fmt.Sprintf("iifname %q oifname %q", from, to))
	}
}
