package netdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/network"
)

// Files are what a replica's containers get mounted, as paths on the node. They
// are the replica's own: what it writes there, nobody else reads.
type Files struct {
	// ResolvConf goes to /etc/resolv.conf, Hosts to /etc/hosts.
	ResolvConf, Hosts string
}

// hostResolvConf serves a replica on a node that answers no names: one with
// hostNetwork where the leader has given no subnet.
const hostResolvConf = "/etc/resolv.conf"

func (n *Network) filesDir() string { return filepath.Join(n.cfg.StateDir, "files") }

// Files are there from Setup to Teardown.
func (n *Network) Files(key api.ReplicaKey) Files { return n.filesOf(idOf(key)) }

func (n *Network) filesOf(id string) Files {
	dir := filepath.Join(n.filesDir(), id)
	return Files{ResolvConf: filepath.Join(dir, "resolv.conf"), Hosts: filepath.Join(dir, "hosts")}
}

// writeFiles writes those that are missing: what a replica has written to one
// stays over a restart of the agent.
func (n *Network) writeFiles(id string, rec *record) error {
	files := n.filesOf(id)
	if err := os.MkdirAll(filepath.Dir(files.Hosts), 0o755); err != nil {
		return fmt.Errorf("write files of replica: %w", err)
	}
	resolv, err := n.resolvConf(rec)
	if err != nil {
		return fmt.Errorf("write files of replica: %w", err)
	}
	for path, text := range map[string]string{files.ResolvConf: resolv, files.Hosts: hosts(rec)} {
		if _, err := os.Stat(path); err == nil {
			continue
		}
		if err := writeFile(path, []byte(text)); err != nil {
			return fmt.Errorf("write files of replica: %w", err)
		}
	}
	return nil
}

func hosts(rec *record) string {
	name := rec.Key.Name()
	return fmt.Sprintf("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n%s\t%s.%s.%s.%s %s\n",
		rec.IP, name, rec.Key.Service, rec.Key.Namespace, network.Domain, name)
}

// resolvConf names this node's agent, and that of another node, which answers the
// same: it is asked while this one starts anew. Servers of the host's would not
// know our names. With two dots at least a name is tried as it is first; web,
// web.default and web-0.web are ours. The other agent answers replicas only, so
// what has the node's own address does without it.
func (n *Network) resolvConf(rec *record) (string, error) {
	subnet := rec.Subnet
	if at, ok := n.Standing(); ok && rec.HostNetwork {
		subnet = at.Subnet
	}
	if !subnet.IsValid() {
		b, err := os.ReadFile(hostResolvConf)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return string(b), err
	}
	servers := fmt.Sprintf("nameserver %s\n", network.Gateway(subnet))
	if next := n.placed().next(); next.IsValid() && !rec.HostNetwork {
		servers += fmt.Sprintf("nameserver %s\n", network.Gateway(next))
	}
	search := []string{rec.Key.Namespace + "." + network.Domain, network.Domain}
	return fmt.Sprintf("%ssearch %s\noptions ndots:2 timeout:%d\n", servers, strings.Join(search, " "), resolvTimeout), nil
}

// resolvTimeout is how long a server may be silent before the next is asked, in
// seconds: a refusal is seen at once, and an agent that is frozen is rare.
const resolvTimeout = 2
