package network

import (
	"fmt"
)

// TableName is that of our table in the family "ip".
const TableName = "orch"

// The sets that services share.
const (
	setServices = "services" // virtual IP, protocol, port : where to
	setPorts    = "ports"    // protocol, published port : where to
	setHairpin  = "hairpin"  // this node's endpoints, each with itself
	setHosts    = "hosts"    // endpoints in other nodes' own network
)

// base is what every node's table has. It is not much more than the way to the
// sets, and what happens to what is in none.
//
// Sources are changed (masquerade) only where an answer would not find its way
// back through this node, which alone knows what the client had connected to:
// a replica that reached itself; 127.0.0.1, which means another host elsewhere;
// a client that is no replica and was led to another node. Replicas on their way
// out of the cluster take the node's address, too: nobody outside knows theirs.
func base(s Standing) (map[string]Chain, map[string]Set) {
	sets := map[string]Set{
		setServices: {Key: "ipv4_addr . inet_proto . inet_service", Value: "verdict"},
		setPorts:    {Key: "inet_proto . inet_service", Value: "verdict"},
		setHairpin:  {Key: "ipv4_addr . ipv4_addr"},
		setHosts:    {Key: "ipv4_addr . inet_proto . inet_service"},
	}
	chains := map[string]Chain{
		"guard":       {Base: &Base{"filter", "prerouting", -300}, Rules: guard(s)},
		"prerouting":  {Base: &Base{"nat", "prerouting", -100}, Rules: []Rule{rule("jump lead")}},
		"output":      {Base: &Base{"nat", "output", -100}, Rules: []Rule{rule("jump lead")}},
		"lead":        {Rules: lead(s)},
		"check":       {},
		"postrouting": {Base: &Base{"nat", "postrouting", 100}, Rules: sources(s)},
		"forward":     {Base: &Base{"filter", "forward", 0}, Rules: forward(s)},
		"sent":        {Base: &Base{"filter", "output", 0}, Rules: []Rule{rule("jump refuse")}},
		"refuse":      {Rules: refuse(s)},
	}
	if s.Subnet.IsValid() && s.Services.IsValid() {
		chains["check"] = Chain{Rules: []Rule{
			rule("meta l4proto tcp dnat ip to %s:%d", Gateway(s.Subnet), CheckPort),
			rule("meta l4proto udp dnat ip to %s:%d", Gateway(s.Subnet), CheckPort),
		}}
	}
	return chains, sets
}

// guard keeps out what nobody may send.
func guard(s Standing) []Rule {
	// Letting 127.0.0.1 lead to replicas (route_localnet) must not let
	// neighbours in, nor anybody pass for this node.
	out := []Rule{rule(`iif != "lo" ip daddr 127.0.0.0/8 drop`), rule(`iif != "lo" ip saddr 127.0.0.0/8 drop`)}
	if s.Cluster.IsValid() {
		// Whoever speaks VXLAN to a node sends as whom he likes: only nodes do.
		out = append(out, rule("ip saddr %s udp dport %d drop", s.Cluster, TunnelPort))
	}
	return out
}

func lead(s Standing) []Rule {
	var out []Rule
	if s.Services.IsValid() {
		out = append(out, rule("ip daddr %s ip daddr . meta l4proto . th dport vmap @%s", s.Services, setServices))
		if s.Subnet.IsValid() {
			out = append(out, rule("ip daddr %s meta l4proto { tcp, udp } th dport %d goto check", CheckVIP(s.Services), CheckPort))
		}
	}
	if s.Subnet.IsValid() {
		// What the agent answers there itself no service can take, whatever it publishes.
		out = append(out, rule("ip daddr %s meta l4proto { tcp, udp } th dport { 53, %d } return", Gateway(s.Subnet), CheckPort))
	}
	return append(out, rule("fib daddr type local meta l4proto . th dport vmap @%s", setPorts))
}

// led is a connection that a rule of ours may have led to a replica: others' rules
// on the same machine lead theirs elsewhere.
const led = "ct status dnat ip daddr %s"

func sources(s Standing) []Rule {
	out := []Rule{
		rule("ct status dnat ip saddr . ip daddr @%s masquerade fully-random", setHairpin),
		rule("ct status dnat ip daddr . meta l4proto . th dport @%s masquerade fully-random", setHosts),
	}
	if !s.Cluster.IsValid() {
		return out
	}
	out = append(out, rule(led+" ip saddr 127.0.0.0/8 masquerade fully-random", s.Cluster))
	elsewhere := ""
	if s.Subnet.IsValid() {
		elsewhere = fmt.Sprintf(" ip daddr != %s", s.Subnet)
	}
	out = append(out, rule(led+"%s ip saddr != %s masquerade fully-random", s.Cluster, elsewhere, s.Cluster))
	// Through the tunnel only replicas' addresses find back.
	out = append(out, rule(`oifname "%s" ip saddr != %s masquerade fully-random`, TunnelName, s.Cluster))
	if s.Subnet.IsValid() {
		out = append(out, rule("ip saddr %s ip daddr != %s masquerade fully-random", s.Subnet, s.Cluster))
	}
	return out
}

func forward(s Standing) []Rule {
	out := []Rule{rule("jump refuse")}
	if s.Subnet.IsValid() {
		// A packet that belongs to no connection would go out under the replica's
		// own address, which its client has never heard of: it would answer with
		// a reset, and end a connection that is well.
		out = append(out, rule("ip saddr %s meta l4proto tcp ct state invalid drop", s.Subnet))
	}
	return out
}

// refuse ends at once what asks for a virtual IP or a port of one that leads
// nowhere: everything else was led away before.
func refuse(s Standing) []Rule {
	if !s.Services.IsValid() {
		return nil
	}
	return []Rule{
		rule("ip daddr %s meta l4proto tcp reject with tcp reset", s.Services),
		rule("ip daddr %s reject with icmp port-unreachable", s.Services),
	}
}
