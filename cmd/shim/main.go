//go:build linux

// Command shim is orch's one small static program on the nodes. Each
// subcommand is a separate little program; they share a binary because what
// matters on a node is its size in memory, per container.
//
//	init        PID 1 of a lab's host
//	log         beside each container: its output into a file
//	leased-log  the same, and its watchdog
//	env         inside a container: starts its command with secret variables
//	hold        inside: its first process, where a command waits for an attach
//	attach      inside: brings hold the streams of who attaches
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
	case "env":
		return envMain(args)
	case "hold":
		return holdMain(args)
	case "attach":
		return attachMain(args)
	}
	complain("usage: shim init SPEC | shim log FILE | shim leased-log LEASE | shim env FILE -- COMMAND... | shim hold SOCKET LIMIT -- COMMAND... | shim attach SOCKET")
	return 2
}

func complain(text string) { os.Stderr.WriteString("shim: " + text + "\n") }
