package registry

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/config"
	"github.com/pelletier/go-toml/v2"
)

// DefaultHostsDir is where containerd looks for registries' settings; it need not exist.
const DefaultHostsDir = "/etc/containerd/certs.d"

// dockerHostsDir is where docker keeps registries' certificates: they count too.
const dockerHostsDir = "/etc/docker/certs.d"

// defaultHost is the folder for all registries that have none of their own.
const defaultHost = "_default"

// hostDir finds a registry's folder; empty: it has none.
func (c *Client) hostDir(host string) (string, error) {
	var paths []string
	for _, root := range []string{c.cfg.HostsDir, c.dockerDir} {
		if root == "" {
			continue
		}
		if i := strings.LastIndex(host, ":"); i > 0 { // as containerd writes a port where ":" is not allowed
			paths = append(paths, filepath.Join(root, host[:i]+"_"+host[i+1:]+"_"))
		}
		paths = append(paths, filepath.Join(root, host))
	}
	if c.cfg.HostsDir != "" {
		paths = append(paths, filepath.Join(c.cfg.HostsDir, defaultHost))
	}
	for _, p := range paths {
		if _, err := os.Stat(p); err == nil {
			return p, checkHostsFile(filepath.Join(p, "hosts.toml"))
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
	}
	return "", nil
}

// checkHostsFile refuses a file that cannot be read as a whole: the library would go on
// without its mirrors and authorities, and say so in a log only.
func checkHostsFile(path string) error {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var any map[string]any
	if err := toml.Unmarshal(b, &any); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// CheckInsecure refuses what no registry is named like, and would never be met.
func CheckInsecure(hosts []string) error {
	for _, h := range hosts {
		if h == "" || strings.ContainsAny(h, "/ @") {
			return fmt.Errorf("%q: want host or host:port, as images' names begin, such as registry.example:5000", h)
		}
	}
	return nil
}

// named tells whether an operator allowed plain HTTP for a host by name.
func (c *Client) named(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	return slices.Contains(c.cfg.Insecure, host) || slices.Contains(c.cfg.Insecure, name)
}

// Loopback tells whether a registry is on this machine.
func loopback(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// hosts gives where a registry's images are fetched from: its mirrors, then itself.
func (a *asker) hosts(host string) ([]docker.RegistryHost, error) {
	dir, err := a.client.hostDir(host)
	if err != nil {
		return nil, a.settings(err)
	}
	scheme := "https"
	// A registry on this machine with a folder of its own has certificates there.
	if a.client.named(host) || loopback(host) && (dir == "" || filepath.Base(dir) == defaultHost) {
		scheme = "http"
	}
	plain := map[string]bool{}
	if scheme == "http" {
		plain[host] = true
	}
	list, err := config.ConfigureHosts(a.quiet(context.Background()), config.HostOptions{
		HostDir:       func(string) (string, error) { return dir, nil },
		DefaultScheme: scheme,
		Credentials:   a.credentials,
		UpdateClient: func(c *http.Client) error {
			if t, ok := c.Transport.(*http.Transport); ok {
				tune(t)
				c.Transport = &transport{next: t, plain: func(h string) bool { return plain[h] || a.client.named(h) || loopback(h) }, stall: a.client.stall}
			}
			return nil
		},
	})(host)
	if err != nil {
		return nil, a.settings(err)
	}
	for _, h := range list {
		if h.Scheme == "http" { // hosts.toml says so, by name
			plain[h.Host] = true
		}
	}
	return list, nil
}

func (a *asker) settings(err error) error {
	return &Error{Kind: ErrUnreachable, Host: a.host, text: a.scrub(fmt.Sprintf("read the settings of registry %s: %v", a.host, err))}
}

// caPath is where a private authority's certificate belongs.
func (a *asker) caPath() string {
	return filepath.Join(orDefault(a.client.cfg.HostsDir, dockerHostsDir), a.host, "ca.crt")
}
