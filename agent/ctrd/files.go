package ctrd

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// writeFiles writes the small files that are mounted into a container, into a
// folder in which nothing is left of an earlier one: a removal may have been cut
// short, and a note of who told that one to end would be taken for this one's.
func (r *Runtime) writeFiles(id string, s ContainerSpec) ([]specs.Mount, error) {
	dir := r.filesOf(id)
	if err := r.removeFiles(id); err != nil {
		return nil, fmt.Errorf("write files of %s: %w", id, err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil { // whoever may read it may hold its lock
		return nil, fmt.Errorf("write files of %s: %w", id, err)
	}
	host := hostnameOf(s)
	hosts, resolv := s.Hosts, s.ResolvConf
	if hosts == "" {
		hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n"
		if s.IP != "" {
			hosts += s.IP + "\t" + host + "\n"
		}
	}
	if resolv == "" {
		b, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !os.IsNotExist(err) {
			return nil, fmt.Errorf("write files of %s: %w", id, err)
		}
		resolv = string(b)
	}
	var mounts []specs.Mount
	for _, f := range []struct{ name, text string }{{"hosts", hosts}, {"resolv.conf", resolv}, {"hostname", strings.TrimSpace(host) + "\n"}} {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, []byte(f.text), 0o644); err != nil {
			return nil, fmt.Errorf("write files of %s: %w", id, err)
		}
		mounts = append(mounts, specs.Mount{
			Destination: "/etc/" + f.name, Type: "bind", Source: path,
			Options: []string{"rbind", "rprivate", "ro"},
		})
	}
	return mounts, nil
}

// filesOf gives the folder of a container's small files.
func (r *Runtime) filesOf(id string) string { return filepath.Join(r.cfg.StateDir, id) }

func (r *Runtime) removeFiles(id string) error {
	return os.RemoveAll(r.filesOf(id))
}
