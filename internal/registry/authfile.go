package registry

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/docker/cli/cli/config/configfile"
)

// helperTimeout bounds docker-credential-*: some ask a cloud for a token first.
const helperTimeout = 10 * time.Second

// dockerIndex is the name by which docker's helpers know docker.io.
const dockerIndex = "https://index.docker.io/v1/"

// authFileLogin looks a host up in the node's docker config file. The file is read anew
// each time: only a registry that wants a login comes here, and the file may change.
func authFileLogin(ctx context.Context, path, host string) (Login, bool, error) {
	if path == "" {
		return Login{}, false, nil
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Login{}, false, nil
	}
	if err != nil {
		return Login{}, false, fmt.Errorf("read logins to registries: %w", err)
	}
	cf, err := parseFile(b)
	if err != nil {
		return Login{}, false, fmt.Errorf("read logins to registries from %s: %w", path, err)
	}
	if helper := helperOf(cf, host); helper != "" {
		return askHelper(ctx, helper, host)
	}
	for server, a := range cf.AuthConfigs {
		if l, ok := loginOf(server, a); ok && Host(server) == Host(host) {
			return l, true, nil
		}
	}
	if cf.CredentialsStore != "" {
		return askHelper(ctx, cf.CredentialsStore, host)
	}
	return Login{}, false, nil
}

func helperOf(cf *configfile.ConfigFile, host string) string {
	for server, helper := range cf.CredentialHelpers {
		if Host(server) == Host(host) {
			return helper
		}
	}
	return ""
}

// askHelper runs docker-credential-NAME get. What it prints is never repeated.
func askHelper(ctx context.Context, name, host string) (Login, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, helperTimeout)
	defer cancel()
	server := Host(host)
	if server == "docker.io" {
		server = dockerIndex
	}
	program := "docker-credential-" + name
	cmd := exec.CommandContext(ctx, program, "get")
	cmd.WaitDelay = time.Second // a child of it may hold the pipe
	cmd.Stdin = strings.NewReader(server + "\n")
	out, err := cmd.Output()
	switch {
	case errors.Is(err, exec.ErrNotFound):
		return Login{}, false, fmt.Errorf("%s, which the file of logins names, is not in PATH", program)
	case ctx.Err() != nil:
		return Login{}, false, fmt.Errorf("%s did not answer within %s", program, helperTimeout)
	case err != nil && bytes.Contains(out, []byte("credentials not found")):
		return Login{}, false, nil
	case err != nil:
		return Login{}, false, fmt.Errorf("%s failed: %w", program, err)
	}
	var said struct{ Username, Secret string }
	if err := json.Unmarshal(out, &said); err != nil {
		return Login{}, false, fmt.Errorf("%s printed no login", program)
	}
	if said.Username == "<token>" { // docker's word for an identity token
		said.Username = ""
	}
	return Login{Server: host, Username: said.Username, Password: said.Secret}, said.Secret != "", nil
}
