//go:build !unix

package orchctl

import "os"

// windowChanges never tells: there is no signal for it here.
func windowChanges() (<-chan os.Signal, func()) { return nil, func() {} }
