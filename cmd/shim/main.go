//go:build linux

// Command shim is orch's one small static program on the nodes. Each
// subcommand is a separate little program; they share a binary because what
// matters on a node is its size in memory, per container.
package main

import "os"

func main() {
	os.Exit(dispatch(os.Args[1:]))
}

// dispatch runs the named subcommand and returns its exit code. No flag
// library here: the shim is held under 3 MB.
func dispatch(args []string) int {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "init":
		return runInit(args)
	case "log":
		return logMain(args)
	case "leased-log":
		return leasedLogMain(args)
	}
	complain("usage: shim init SPEC | shim log FILE | shim leased-log LEASE")
	return 2
}

func complain(text string) { os.Stderr.WriteString("shim: " + text + "\n") }
