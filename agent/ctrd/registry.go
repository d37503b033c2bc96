package ctrd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
)

// The limits of speaking to a registry.
const (
	registryDialTimeout   = 5 * time.Second  // an address that does not answer is a fault, not slowness
	registryHeaderTimeout = 30 * time.Second // some registries think long before the first byte
)

// resolver speaks to a reference's registry: with TLS, or plainly where that
// is allowed, with the certificates that lie in RegistryCertDir.
func (r *Runtime) resolver() remotes.Resolver {
	return docker.NewResolver(docker.ResolverOptions{Hosts: func(host string) ([]docker.RegistryHost, error) {
		tlsConfig, err := registryTLS(filepath.Join(r.cfg.RegistryCertDir, host))
		if err != nil {
			return nil, err
		}
		c := &http.Client{Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			DialContext:           (&net.Dialer{Timeout: registryDialTimeout}).DialContext,
			TLSHandshakeTimeout:   registryDialTimeout,
			ResponseHeaderTimeout: registryHeaderTimeout,
			TLSClientConfig:       tlsConfig,
			ForceAttemptHTTP2:     true,
		}}
		return docker.ConfigureDefaultRegistries(
			docker.WithClient(c),
			docker.WithAuthorizer(docker.NewDockerAuthorizer(docker.WithAuthClient(c))),
			docker.WithPlainHTTP(func(host string) (bool, error) { return r.plainHTTP(host), nil }),
		)(host)
	}})
}

// plainHTTP tells whether a registry is spoken to without TLS.
func (r *Runtime) plainHTTP(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	if slices.Contains(r.cfg.InsecureRegistries, host) || slices.Contains(r.cfg.InsecureRegistries, name) || name == "localhost" {
		return true
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return ip != nil && ip.IsLoopback()
}

// registryTLS reads a registry's folder; without one the system's authorities
// are trusted.
func registryTLS(dir string) (*tls.Config, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read certificates of a registry: %w", err)
	}
	cfg := &tls.Config{}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		switch filepath.Ext(e.Name()) {
		case ".crt":
			if cfg.RootCAs == nil {
				if cfg.RootCAs, err = x509.SystemCertPool(); err != nil {
					cfg.RootCAs = x509.NewCertPool()
				}
			}
			pem, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("read certificates of a registry: %w", err)
			}
			if !cfg.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("read certificates of a registry: %s holds none", path)
			}
		case ".cert":
			pair, err := tls.LoadX509KeyPair(path, strings.TrimSuffix(path, ".cert")+".key")
			if err != nil {
				return nil, fmt.Errorf("read certificates of a registry: %w", err)
			}
			cfg.Certificates = append(cfg.Certificates, pair)
		}
	}
	return cfg, nil
}
