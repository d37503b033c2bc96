package netdev

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

const (
	// cniTimeout bounds one run of a CNI plugin, which takes 10-40 ms.
	cniTimeout = 10 * time.Second
	// clearTimeout bounds one that takes back: what it would have, we then do.
	clearTimeout = 5 * time.Second
	// pipesMax is how long output may still come from one that was killed.
	pipesMax = 100 * time.Millisecond

	// networkName is that of the CNI network, which the address pool's folder has.
	networkName = "orch"
)

// plugins runs CNI plugins as the library does, but each in a process group of
// its own that is killed whole, since plugins run plugins; and what a failed one
// said is told in words, with its name.
type plugins struct{ version.PluginDecoder }

var _ invoke.Exec = (*plugins)(nil)

// pluginError is what a plugin said, or did; the library wraps it in words that
// add nothing.
type pluginError struct{ words string }

func (e *pluginError) Error() string { return e.words }

func inWords(err error) error {
	if e := new(pluginError); errors.As(err, &e) {
		return e
	}
	return fmt.Errorf("CNI: %w", err)
}

func (p *plugins) FindInPath(plugin string, paths []string) (string, error) {
	path, err := invoke.FindInPath(plugin, paths)
	if err != nil {
		return "", &pluginError{fmt.Sprintf("CNI plugin %s is not in %s", plugin, strings.Join(paths, ", "))}
	}
	return path, nil
}

func (p *plugins) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var out, said bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = environ, bytes.NewReader(stdin), &out, &said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = pipesMax
	began := time.Now()
	err := cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	name := filepath.Base(path)
	words := strings.TrimSpace(said.String())
	if ctx.Err() != nil {
		// The group may outlive its first process, whose end Run has seen.
		if cmd.Process != nil {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
		e := &pluginError{fmt.Sprintf("CNI plugin %s did not answer within %.1fs and was killed", name, time.Since(began).Seconds())}
		if words != "" {
			e.words += "; it said: " + words
		}
		return nil, e
	}
	var e types.Error
	if json.Unmarshal(out.Bytes(), &e) == nil && e.Msg != "" {
		words = strings.TrimSuffix(e.Msg+": "+e.Details, ": ")
	} else if words == "" {
		words = strings.TrimSpace(out.String())
	}
	if words == "" {
		words = "it said nothing, and ended with " + err.Error()
	}
	return nil, &pluginError{fmt.Sprintf("CNI plugin %s failed: %s", name, words)}
}

// confOf is the CNI network's configuration. It is given to plugins, and written
// nowhere: what the host has in /etc/cni is not ours.
func (n *Network) confOf(subnet netip.Prefix, mtu int) (*libcni.NetworkConfigList, error) {
	type m = map[string]any
	b, err := json.Marshal(m{
		"cniVersion": "1.0.0",
		"name":       networkName,
		"plugins": []m{{
			"type":   "ptp",
			"ipMasq": false, // our own rules do that
			"mtu":    mtu,
			"ipam": m{
				"type":    "host-local",
				"dataDir": n.ipamDir(),
				"ranges":  [][]m{{{"subnet": subnet.String()}}},
				"routes":  []m{{"dst": "0.0.0.0/0"}},
			},
		}},
	})
	if err != nil {
		return nil, fmt.Errorf("write CNI configuration: %w", err)
	}
	conf, err := libcni.ConfListFromBytes(b)
	if err != nil {
		return nil, fmt.Errorf("read CNI configuration: %w", err)
	}
	return conf, nil
}

func (n *Network) ipamDir() string  { return filepath.Join(n.cfg.StateDir, "ipam") }
func (n *Network) cacheDir() string { return filepath.Join(n.cfg.StateDir, "cache") }

// plug makes the interface of a namespace that is there and gives its address.
func (n *Network) plug(ctx context.Context, id string, subnet netip.Prefix, mtu int) (netip.Addr, error) {
	conf, err := n.confOf(subnet, mtu)
	if err != nil {
		return netip.Addr{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, n.cniTimeout)
	defer cancel()
	res, err := n.cni.AddNetworkList(ctx, conf, n.runtimeConf(id))
	if err != nil {
		if strings.Contains(err.Error(), "no IP addresses available") { // host-local's words
			// All but the range's own, the gateway's and the broadcast address.
			return netip.Addr{}, fmt.Errorf("all %d addresses of %s are in use", 1<<(32-subnet.Bits())-3, subnet)
		}
		return netip.Addr{}, inWords(err)
	}
	return addressOf(res)
}

// unplug takes interface and address back.
func (n *Network) unplug(ctx context.Context, id string, rec *record) error {
	subnet := netip.PrefixFrom(n.cfg.Address, 24).Masked() // any: the address is found by its owner
	if rec != nil && rec.Subnet.IsValid() {
		subnet = rec.Subnet
	}
	conf, err := n.confOf(subnet, 0)
	if err != nil {
		return err
	}
	rt := n.runtimeConf(id)
	if !isNetNS(rt.NetNS) {
		rt.NetNS = "" // plugins then only give the address back
	}
	ctx, cancel := context.WithTimeout(ctx, n.clearTimeout)
	defer cancel()
	if err := n.cni.DelNetworkList(ctx, conf, rt); err != nil {
		// The namespace's end takes the interface; the rest is known.
		n.log.Warn("a CNI plugin did not take back a replica's network: it is done without", "id", id, "err", inWords(err))
		return n.forgetPlug(id)
	}
	return nil
}

// forgetPlug removes what a plugin may have left outside of the namespace: the
// files that hold the address, named after it with the owner in the first line,
// and the library's copy of the result.
func (n *Network) forgetPlug(id string) error {
	held, err := filepath.Glob(filepath.Join(n.ipamDir(), networkName, "[0-9]*"))
	if err != nil {
		return fmt.Errorf("find the address of a replica: %w", err)
	}
	for _, path := range held {
		b, err := os.ReadFile(path)
		owner, _, _ := strings.Cut(string(b), "\n")
		if err != nil || strings.TrimSpace(owner) != id {
			continue
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("give back the address of a replica: %w", err)
		}
	}
	cached := filepath.Join(n.cacheDir(), "results", strings.Join([]string{networkName, id, ifName}, "-"))
	if err := os.Remove(cached); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the result of CNI: %w", err)
	}
	return nil
}
