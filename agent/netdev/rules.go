package netdev

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"text/template"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/orchctl/orch/api"
)

// portRule is one element of the table's map.
type portRule struct {
	protocol string // tcp or udp
	hostPort int
	ip       netip.Addr
	port     int
}

func (p portRule) key() string     { return fmt.Sprintf("%s . %d", p.protocol, p.hostPort) }
func (p portRule) element() string { return fmt.Sprintf("%s : %s . %d", p.key(), p.ip, p.port) }

// PortMapping leads a port of the node to one of the replica.
type PortMapping struct {
	HostPort int
	Port     int
	// Protocol defaults to TCP.
	Protocol api.Protocol
}

func portRules(ports []PortMapping, ip netip.Addr) []portRule {
	var out []portRule
	for _, p := range ports {
		out = append(out, portRule{strings.ToLower(string(p.Protocol)), p.HostPort, ip, p.Port})
	}
	return out
}

// normalPorts fills in protocols and leaves out doubles.
func normalPorts(ports []PortMapping) []PortMapping {
	out := slices.Clone(ports)
	for i := range out {
		if out[i].Protocol == "" {
			out[i].Protocol = api.TCP
		}
	}
	slices.SortFunc(out, func(a, b PortMapping) int {
		return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.HostPort, b.HostPort), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(out)
}

// table is the whole of our rules. The deletion before makes it replace
// whatever was there. Host ports lead on from the node itself, too, also from
// 127.0.0.1; what comes back then must not look like the replica's own or a
// loopback address, hence the masquerading of what was led on. Letting
// loopback addresses out (route_localnet) must not let others in: the chain
// "guard".
var table = template.Must(template.New("").Parse(`
add table ip orch
delete table ip orch
table ip orch {
	map ports {
		type inet_proto . inet_service : ipv4_addr . inet_service
		{{- if .Elements }}
		elements = { {{ .Elements }} }
		{{- end }}
	}
	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iif != "lo" ip daddr 127.0.0.0/8 drop
	}
	chain prerouting {
		type nat hook prerouting priority dstnat; policy accept;
		fib daddr type local dnat ip to meta l4proto . th dport map @ports
	}
	chain output {
		type nat hook output priority -100; policy accept;
		fib daddr type local dnat ip to meta l4proto . th dport map @ports
	}
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 127.0.0.0/8 ip daddr {{ .Subnet }} ct status dnat masquerade
		ip saddr {{ .Subnet }} ip daddr {{ .Subnet }} ct status dnat masquerade
		ip saddr {{ .Subnet }} ip daddr != {{ .Cluster }} masquerade
	}
}
`))

// mapAgain makes the map if someone flushed our table away.
const mapAgain = "add table ip orch\nadd map ip orch ports { type inet_proto . inet_service : ipv4_addr . inet_service; }\n"

// rules is our table in the kernel. It is there while any replica has a
// network, and gone otherwise.
type rules struct {
	subnet, cluster netip.Prefix
	// marker is a file that says that it was us who let loopback addresses out;
	// it goes with a reboot, as the setting does.
	marker string

	mu    sync.Mutex
	there bool
}

// routeLocalnet lets packets from and to 127.0.0.0/8 leave and enter by other
// interfaces than loopback.
const routeLocalnet = "/proc/sys/net/ipv4/conf/all/route_localnet"

// letOut is called with the chain "guard" in force.
func (r *rules) letOut() error {
	now, err := os.ReadFile(routeLocalnet)
	if err == nil && string(bytes.TrimSpace(now)) == "0" {
		if err = os.WriteFile(r.marker, nil, 0o600); err == nil {
			err = os.WriteFile(routeLocalnet, []byte("1"), 0)
		}
	}
	if err != nil {
		return fmt.Errorf("let host ports answer on 127.0.0.1: %w", err)
	}
	return nil
}

// keepIn undoes letOut. Without it neighbours on the link would reach what
// listens on 127.0.0.1 only, as soon as the guard is gone.
func (r *rules) keepIn() error {
	_, err := os.Stat(r.marker)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // it is another's setting
	}
	if err == nil {
		if err = os.WriteFile(routeLocalnet, []byte("0"), 0); err == nil {
			err = os.Remove(r.marker)
		}
	}
	if err != nil {
		return fmt.Errorf("keep loopback addresses in: %w", err)
	}
	return nil
}

// reset replaces the table, or removes it if it is not wanted.
func (r *rules) reset(ports []portRule, wanted bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !wanted {
		return r.drop()
	}
	return r.replace(ports)
}

func (r *rules) replace(ports []portRule) error {
	var elements []string
	for _, p := range ports {
		elements = append(elements, p.element())
	}
	slices.Sort(elements)
	var b bytes.Buffer
	if err := table.Execute(&b, map[string]any{"Elements": strings.Join(elements, ", "), "Subnet": r.subnet, "Cluster": r.cluster}); err != nil {
		return fmt.Errorf("write nftables rules: %w", err)
	}
	if err := nft(b.String()); err != nil {
		return err
	}
	if err := r.letOut(); err != nil {
		return err
	}
	r.there = true
	return nil
}

// add leads ports on. A port that another replica holds is an error.
func (r *rules) add(ports []portRule) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.there {
		return r.replace(ports)
	}
	if len(ports) == 0 {
		return nil
	}
	var elements []string
	for _, p := range ports {
		elements = append(elements, p.element())
	}
	// create, unlike add, refuses what is there.
	return nft("create element ip orch ports { " + strings.Join(elements, ", ") + " }\n")
}

// remove undoes add, as far as it was done, and lets go of the connections
// that lead to ip: UDP ones would keep going there.
func (r *rules) remove(ports []portRule, ip netip.Addr) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.there && len(ports) > 0 {
		var b strings.Builder
		b.WriteString(mapAgain)
		for _, p := range ports { // adding first makes deleting what is not there no error
			fmt.Fprintf(&b, "add element ip orch ports { %s }\ndelete element ip orch ports { %s }\n", p.element(), p.key())
		}
		if err := nft(b.String()); err != nil {
			return err
		}
	}
	if slices.ContainsFunc(ports, func(p portRule) bool { return p.protocol == "udp" }) {
		f := &netlink.ConntrackFilter{}
		if err := f.AddIP(netlink.ConntrackReplySrcIP, ip.AsSlice()); err != nil {
			return fmt.Errorf("forget connections to %s: %w", ip, err)
		}
		if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, f); err != nil {
			return fmt.Errorf("forget connections to %s: %w", ip, err)
		}
	}
	return nil
}

// removeAllUnless removes the table unless it turns out to be in use again.
func (r *rules) removeAllUnless(used func() bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if used() {
		return nil
	}
	return r.drop()
}

func (r *rules) drop() error {
	r.there = false
	if err := r.keepIn(); err != nil {
		return err
	}
	return nft("add table ip orch\ndelete table ip orch\n") // added first, so that it is there
}

// nft carries out commands as one transaction.
func nft(commands string) error {
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(commands)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("set nftables rules: %w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}
