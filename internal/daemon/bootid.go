package daemon

import (
	"fmt"
	"os"
	"strings"
)

// BootIDFile is where the kernel names the machine's present life.
const BootIDFile = "/proc/sys/kernel/random/boot_id"

// BootID reads the name of the machine's present life from a file of that form.
func BootID(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read boot id: %w", err)
	}
	id := strings.TrimSpace(string(b))
	if id == "" {
		return "", fmt.Errorf("read boot id: %s is empty", file)
	}
	return id, nil
}
