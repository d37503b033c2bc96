package registry

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"slices"
	"sort"
	"strings"

	"github.com/docker/cli/cli/config/configfile"
	"github.com/docker/cli/cli/config/types"
)

// The keys of a Secret of type registry: server, username and password, or one file as
// docker login writes it.
const (
	keyServer   = "server"
	keyUsername = "username"
	keyPassword = "password"
	keyFile     = "config.json"
)

// Login is what one registry wants to know of us. A login without a username has an
// identity token in place of the password.
type Login struct {
	// Server is host or host:port, in any spelling that docker knows.
	Server, Username, Password string
}

// String hides the password.
func (l Login) String() string { return l.Username + " at " + Host(l.Server) }

// GoString hides the password.
func (l Login) GoString() string {
	return fmt.Sprintf("registry.Login{%q, %q, ...}", l.Server, l.Username)
}

// LoginsOf reads a Secret of type registry, sorted by server. Errors name keys, never values.
func LoginsOf(values map[string][]byte) ([]Login, error) {
	if file, ok := values[keyFile]; ok {
		return loginsOfFile(file)
	}
	l := Login{Server: strings.TrimSpace(string(values[keyServer])), Username: string(values[keyUsername]), Password: string(values[keyPassword])}
	for _, want := range []struct{ key, value string }{{keyServer, l.Server}, {keyUsername, l.Username}, {keyPassword, l.Password}} {
		if want.value == "" {
			return nil, fmt.Errorf("key %s is missing: a Secret of type registry has %s, %s and %s, or %s", want.key, keyServer, keyUsername, keyPassword, keyFile)
		}
	}
	return []Login{l}, nil
}

func loginsOfFile(file []byte) ([]Login, error) {
	cf, err := parseFile(file)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", keyFile, err)
	}
	var out []Login
	for server, a := range cf.AuthConfigs {
		if l, ok := loginOf(server, a); ok {
			out = append(out, l)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("key %s holds no login: a helper on the machine where it was written keeps them; give %s, %s and %s", keyFile, keyServer, keyUsername, keyPassword)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Server < out[j].Server })
	return out, nil
}

// errFile says nothing of the file's text, which holds passwords.
var errFile = errors.New("it is not a file as docker login writes it")

func parseFile(file []byte) (*configfile.ConfigFile, error) {
	cf := configfile.New("")
	if err := cf.LoadFromReader(bytes.NewReader(file)); err != nil {
		return nil, errFile
	}
	return cf, nil
}

func loginOf(server string, a types.AuthConfig) (Login, bool) {
	if a.IdentityToken != "" {
		return Login{Server: server, Password: a.IdentityToken}, true
	}
	return Login{Server: server, Username: a.Username, Password: a.Password}, a.Username != "" && a.Password != ""
}

// Host gives the one spelling of a registry's name: without scheme, path and the port of
// TLS, in lower case, and docker.io for all of that registry's names.
func Host(server string) string {
	server = strings.ToLower(strings.TrimSpace(server))
	if _, rest, ok := strings.Cut(server, "://"); ok {
		server = rest
	}
	server, _, _ = strings.Cut(server, "/")
	if h, port, err := net.SplitHostPort(server); err == nil && port == "443" {
		server = h
	}
	switch server {
	case "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com":
		return "docker.io"
	}
	return server
}

// loginFor is the first login for a host.
func loginFor(logins []Login, host string) (Login, bool) {
	for _, l := range logins {
		if Host(l.Server) == Host(host) {
			return l, true
		}
	}
	return Login{}, false
}

// loginsFor are the different logins for a host, in order.
func loginsFor(logins []Login, host string) (out []Login) {
	for _, l := range logins {
		same := func(o Login) bool { return o.Username == l.Username && o.Password == l.Password }
		if Host(l.Server) == Host(host) && !slices.ContainsFunc(out, same) {
			out = append(out, l)
		}
	}
	return out
}

// withOnly leaves of the logins for a host only the nth, which is 0 for the first.
func withOnly(logins []Login, host string, nth int) []Login {
	its := loginsFor(logins, host)
	if nth >= len(its) {
		return logins
	}
	out := []Login{its[nth]}
	for _, l := range logins {
		if Host(l.Server) != Host(host) {
			out = append(out, l)
		}
	}
	return out
}
