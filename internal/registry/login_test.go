package registry

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHost(t *testing.T) {
	for in, want := range map[string]string{
		"hub.example": "hub.example", "HUB.example:443": "hub.example", "https://hub.example/v2/": "hub.example", "hub.example:5000": "hub.example:5000",
		"docker.io": "docker.io", "index.docker.io": "docker.io", "registry-1.docker.io": "docker.io", "https://index.docker.io/v1/": "docker.io",
		"http://10.0.0.5:5000": "10.0.0.5:5000", " hub ": "hub", "docker.io.example": "docker.io.example",
	} {
		if got := Host(in); got != want {
			t.Errorf("Host(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestLoginsOf(t *testing.T) {
	auth := base64.StdEncoding.EncodeToString([]byte("bob:" + goodPass))
	file := fmt.Sprintf(`{"auths": {"hub.example": {"auth": %q}, "a.example": {"identitytoken": "tok"}, "empty.example": {}}}`, auth)
	for _, c := range []struct {
		name string
		in   map[string]string
		want string
		err  string
	}{
		{"keys", map[string]string{"server": "hub", "username": "ann", "password": goodPass}, "ann at hub", ""},
		{"a key is missing", map[string]string{"server": "hub", "password": goodPass}, "", "key username is missing"},
		{"nothing", nil, "", "key server is missing"},
		{"file", map[string]string{"config.json": file}, " at a.example, bob at hub.example", ""},
		{"no login in it", map[string]string{"config.json": `{"credsStore": "desktop"}`}, "", "holds no login: a helper"},
		{"garbage", map[string]string{"config.json": `{"auths": {"hub": {"auth": "` + goodPass}, "", "is not a file as docker login writes it"},
	} {
		values := map[string][]byte{}
		for k, v := range c.in {
			values[k] = []byte(v)
		}
		list, err := LoginsOf(values)
		var words []string
		for _, l := range list {
			words = append(words, l.String())
		}
		if got := strings.Join(words, ", "); got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %q, %v; want %q, %q", c.name, got, err, c.want, c.err)
		}
		noSecret(t, fmt.Sprint(err), goodPass)
		noSecret(t, fmt.Sprintf("%v %+v %#v %s", list, list, list, list), goodPass, "tok")
	}
}

// TestNodesOwnLogins: the file counts where no Secret has a login, and is read anew.
func TestNodesOwnLogins(t *testing.T) {
	s := newSite(t, false, basic)
	s.push(t, "web:1", image(t, "linux", "amd64"))
	c := client(t, s, false)
	c.cfg.AuthFile = filepath.Join(t.TempDir(), "config.json")
	try := func(logins ...Login) error {
		_, err := c.Resolve(ctx(t), s.host+"/web:1", logins)
		if err != nil {
			noSecret(t, err.Error(), goodPass)
		}
		return err
	}
	auths := func(pass string) string {
		return fmt.Sprintf(`{"auths": {"http://%s/v1/": {"auth": %q}}}`, s.host, base64.StdEncoding.EncodeToString([]byte(goodUser+":"+pass)))
	}
	wants := func(when string, err error, words string) {
		t.Helper()
		if words == "" && err != nil || words != "" && (!errors.Is(err, ErrDenied) || !strings.Contains(err.Error(), words)) {
			t.Errorf("%s: %v, want %q", when, err, words)
		}
	}
	wants("no file", try(), "wants a login")
	write(t, c.cfg.AuthFile, auths("bad one"))
	wants("a wrong password", try(), "refuses the login of ann")
	write(t, c.cfg.AuthFile, auths(goodPass))
	wants("the right one", try(), "")
	wants("a Secret's comes first", try(Login{Server: s.host, Username: goodUser, Password: "bad one"}), "refuses the login of ann")
	write(t, c.cfg.AuthFile, `{"auths": {"x": {"auth": "`+goodPass)
	wants("garbage", try(), "is not a file as docker login writes it")

	bin := t.TempDir()
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	helper := func(script string) {
		write(t, filepath.Join(bin, "docker-credential-orchtest"), "#!/bin/sh\nread server\n"+script)
		if err := os.Chmod(filepath.Join(bin, "docker-credential-orchtest"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says := fmt.Sprintf(`[ "$server" = "%s" ] && echo '{"Username": %q, "Secret": %q}'`, s.host, goodUser, goodPass)
	for _, file := range []string{fmt.Sprintf(`{"credHelpers": {%q: "orchtest"}}`, s.host), `{"credsStore": "orchtest"}`} {
		write(t, c.cfg.AuthFile, file)
		helper(says)
		wants("a helper", try(), "")
		helper("echo 'credentials not found in native keychain'; exit 1")
		wants("a helper that has none", try(), "wants a login")
		helper("echo " + goodPass + "; exit 2")
		wants("a helper that fails", try(), "docker-credential-orchtest failed: exit status 2")
	}
	write(t, c.cfg.AuthFile, `{"credsStore": "orch-none-such"}`)
	wants("no helper", try(), "docker-credential-orch-none-such, which the file of logins names, is not in PATH")
}
