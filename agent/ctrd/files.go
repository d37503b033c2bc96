package ctrd

import (
	"errors"
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
	var mounts []specs.Mount
	for _, f := range []struct {
		name, given string
		text        func() (string, error)
	}{
		{"hosts", s.Hosts, func() (string, error) { return plainHosts(s.IP, host), nil }},
		{"resolv.conf", s.ResolvConf, hostResolvConf},
		{"hostname", "", func() (string, error) { return strings.TrimSpace(host) + "\n", nil }},
	} {
		m := specs.Mount{Destination: "/etc/" + f.name, Type: "bind", Source: f.given, Options: []string{"rbind", "rprivate", "rw"}}
		if f.given == "" {
			m.Source = filepath.Join(dir, f.name)
			m.Options = []string{"rbind", "rprivate", "ro"}
			text, err := f.text()
			if err == nil {
				err = os.WriteFile(m.Source, []byte(text), 0o644)
			}
			if err != nil {
				return nil, fmt.Errorf("write files of %s: %w", id, err)
			}
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

func plainHosts(ip, host string) string {
	hosts := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n"
	if ip != "" {
		hosts += ip + "\t" + host + "\n"
	}
	return hosts
}

func hostResolvConf() (string, error) {
	b, err := os.ReadFile("/etc/resolv.conf")
	if os.IsNotExist(err) {
		err = nil
	}
	return string(b), err
}

// filesOf gives the folder of a container's small files.
func (r *Runtime) filesOf(id string) string { return filepath.Join(r.cfg.StateDir, id) }

// removeFiles removes it, and what the container has in memory.
func (r *Runtime) removeFiles(id string) error {
	return errors.Join(os.RemoveAll(r.memoryOf(id)), os.RemoveAll(r.filesOf(id)))
}
