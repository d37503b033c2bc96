package main

import (
	"testing"

	"github.com/orchctl/orch/internal/daemon/daemontest"
)

func TestExampleOfTheConfigFile(t *testing.T) {
	daemontest.CheckExample(t, command(), "../../deploy/controller.yaml", "name")
}
