// Command agent runs one node: it joins the cluster, keeps a session with the
// leader, and runs the node's replicas through containerd.
package main

import "github.com/orchctl/orch/internal/daemon"

func main() { daemon.Main(newCommand()) }
