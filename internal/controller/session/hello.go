package session

import (
	"fmt"
	"net/netip"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/wire"
)

const (
	// helloTextMax bounds each text of a Hello, in bytes: it is kept with the node.
	helloTextMax = 256
	// helloItemsMax bounds its labels, and likewise its resources.
	helloItemsMax = 128
)

// checkHello refuses what must not get into the picture of the fleet.
func checkHello(h wire.Hello) error {
	// A zone means something on that host only, and may be of any length.
	if a, err := netip.ParseAddr(h.Address); err != nil || a.Zone() != "" || !a.IsGlobalUnicast() && !a.IsLoopback() {
		return fmt.Errorf("address %q is no IP address of a host", clip(h.Address))
	}
	if h.BootID == "" {
		return fmt.Errorf("it has no boot id")
	}
	for _, s := range []string{h.BootID, h.Version, h.OS, h.Kernel, h.Runtime} {
		if len(s) > helloTextMax {
			return fmt.Errorf("a text of %d bytes, at most %d are allowed", len(s), helloTextMax)
		}
	}
	if n := max(len(h.Labels), len(h.Capacity)); n > helloItemsMax {
		return fmt.Errorf("%d labels or resources, at most %d are allowed", n, helloItemsMax)
	}
	for k, v := range h.Labels {
		if err := api.CheckLabel(k, v); err != nil {
			return err
		}
	}
	for name, q := range h.Capacity {
		if q < 0 || name == "" || len(name) > helloTextMax {
			return fmt.Errorf("capacity %s of %q", q, clip(name))
		}
	}
	return nil
}
