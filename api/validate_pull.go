package api

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The keys of a Secret of type registry.
const (
	LoginServer   = "server"
	LoginUsername = "username"
	LoginPassword = "password"
	// LoginFile has a file as docker login writes it, in place of the other three.
	LoginFile = "config.json"
)

// otherPolicies are pull policies as Kubernetes and Compose write them.
var otherPolicies = map[string]PullPolicy{
	"IfNotPresent": PullIfNotPresent, "if_not_present": PullIfNotPresent, "missing": PullIfNotPresent, "ifnotpresent": PullIfNotPresent,
	"Always": PullAlways, "daily": PullAlways, "weekly": PullAlways, "Never": PullNever,
}

func (c *checker) pullPolicy(path string, p PullPolicy) {
	switch p {
	case "", PullIfNotPresent, PullAlways, PullNever:
		return
	case "build":
		c.add(path, "orch builds no images: build it, bring it with orchctl image load, and remove pullPolicy")
		return
	}
	if right, ok := otherPolicies[string(p)]; ok {
		c.add(path, "%q is unknown here: write %s", clip(string(p)), right)
		return
	}
	c.add(path, "%q is unknown: want one of %s, %s, %s", clip(string(p)), PullIfNotPresent, PullAlways, PullNever)
}

func (c *checker) pullSecrets(path string, names []string) {
	if len(names) > MaxPullSecrets {
		c.add(path, "lists %d: at most %d are allowed; one Secret with the key %s can have the logins of many registries", len(names), MaxPullSecrets, LoginFile)
	}
	seen := taken{}
	for i, name := range names {
		here := at(path, i)
		if why := nameProblem(name, MaxConfigName); why != "" {
			c.report(here, why)
		} else if before := seen.claim(name, here); before != "" {
			c.add(here, "%q stands in %s already: remove one of them", name, before)
		}
	}
}

// secretType checks what a Secret's type asks of its values, without a word of them.
func (c *checker) secretType(x *Config) {
	switch {
	case x.Type == SecretOpaque:
		return
	case x.ObjectKind() == KindConfig:
		c.add("type", "is for Secrets: remove it, or write kind: Secret")
		return
	}
	switch x.Type {
	case SecretRegistry:
		c.login(x)
	case "Opaque":
		c.add("type", `"Opaque" is what a Secret is without a type here: remove it`)
	case "kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg":
		c.add("type", `%q is unknown here: write type: %s, and the file as text under the key %s in data`, clip(string(x.Type)), SecretRegistry, LoginFile)
	default:
		c.add("type", `%q is unknown: want %s for a login to a registry of images, or remove it for values of any meaning`, clip(string(x.Type)), SecretRegistry)
	}
}

// login checks the values of a Secret of type registry: one login, or a file of docker's.
func (c *checker) login(x *Config) {
	values := map[string]string{}
	where := map[string]string{}
	for key, v := range x.Data {
		values[key], where[key] = v, index("data", key)
	}
	for key, v := range x.BinaryData {
		values[key], where[key] = string(v), index("binaryData", key)
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		switch key {
		case LoginServer, LoginUsername, LoginPassword, LoginFile:
		case ".dockerconfigjson":
			c.add(where[key], "is %s in a Secret of type %s here: give the key that name", LoginFile, SecretRegistry)
		default:
			c.add(where[key], "means nothing in a Secret of type %s: it has %s, %s and %s, or %s", SecretRegistry, LoginServer, LoginUsername, LoginPassword, LoginFile)
		}
	}
	file, isFile := values[LoginFile]
	single := slices.Contains([]bool{has(values, LoginServer), has(values, LoginUsername), has(values, LoginPassword)}, true)
	switch {
	case isFile && single:
		c.add(where[LoginFile], "stands beside %s, %s or %s, which would say the same again: remove one or the other", LoginServer, LoginUsername, LoginPassword)
	case isFile:
		c.report(where[LoginFile], loginFileProblem(file))
	case has(values, ".dockerconfigjson"):
	default:
		c.loginKeys(values, where)
	}
}

func has(values map[string]string, key string) bool {
	_, ok := values[key]
	return ok
}

func (c *checker) loginKeys(values, where map[string]string) {
	for _, key := range []string{LoginServer, LoginUsername, LoginPassword} {
		switch v, ok := values[key]; {
		case !ok && key == LoginServer:
			c.add("data", "has no key %s, which says whose login it is: add it, as host or host:port", key)
		case !ok:
			c.add("data", "has no key %s: add it, or give a file of docker's under the key %s", key, LoginFile)
		case v == "":
			c.add(where[key], "is empty: it is part of a login")
		case key == LoginServer:
			c.report(where[key], serverProblem(v))
		case strings.ContainsAny(v, "\r\n"):
			c.add(where[key], "has a line's end in it: write it without (as from printf %%s, not from echo)")
		}
	}
}

// serverProblem checks how a login names its registry; what it is stands in a Secret,
// and is not told.
func serverProblem(s string) string {
	switch {
	case strings.Contains(s, "://"):
		return "is a URL: write host or host:port alone"
	case strings.Contains(s, "/"):
		return "has a path: write host or host:port alone"
	case len(s) > maxRefName || !imageHost.MatchString(s):
		return "is no registry's address: write host or host:port, as it begins the names of its images"
	}
	return ""
}

// loginFileProblem checks a file as docker login writes it.
func loginFileProblem(text string) string {
	var file struct {
		Auths map[string]struct {
			Auth, Username, Password, IdentityToken string
		} `json:"auths"`
		CredsStore  string            `json:"credsStore"`
		CredHelpers map[string]string `json:"credHelpers"`
	}
	if err := json.Unmarshal([]byte(text), &file); err != nil {
		return "is no JSON as docker login writes it: " + jsonProblem(err)
	}
	if len(file.Auths) == 0 {
		if file.CredsStore != "" || len(file.CredHelpers) > 0 {
			return "names a program that keeps the logins (credsStore or credHelpers), which is not on the nodes: give server, username and password"
		}
		return "has no logins: want {\"auths\": {\"host\": {\"auth\": ...}}}, or give server, username and password"
	}
	for i, host := range slices.Sorted(maps.Keys(file.Auths)) {
		// By number: whoever puts a password in the wrong place does not see it printed.
		what, x := fmt.Sprintf("its login %d of %d, sorted by host,", i+1, len(file.Auths)), file.Auths[host]
		switch plain, err := base64.StdEncoding.DecodeString(x.Auth); {
		case x.IdentityToken != "":
		case x.Auth == "" && (x.Username == "" || x.Password == ""):
			return what + " has neither auth nor username and password (docker keeps them in credsStore): give server, username and password"
		case x.Auth != "" && (err != nil || !strings.Contains(string(plain), ":")):
			return what + " has an auth that is not the base64 of username:password"
		}
	}
	return ""
}

// jsonProblem tells where JSON is broken without a word of it.
func jsonProblem(err error) string {
	switch e := err.(type) {
	case *json.SyntaxError:
		return fmt.Sprintf("it ends or breaks after %d bytes", e.Offset)
	case *json.UnmarshalTypeError:
		return fmt.Sprintf("after %d bytes stands another kind of value", e.Offset)
	}
	return "it cannot be read"
}
