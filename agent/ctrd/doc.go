// Package ctrd runs containers through containerd. It alone imports
// containerd's client.
//
// It owns what orch keeps in containerd: the containers of its namespace with
// our label, their snapshots, cgroups and small files (/etc/hosts and the
// like). Everything that adoption needs lies in labels on the container, so
// that nothing here has to survive: a new Runtime over the same containerd
// knows what the old one knew, and neither a kill -9 of the agent nor one of
// containerd touches a container.
//
// A container with a lease has a watchdog instead of the plain log process: a
// program of ours beside it that ends it when the lease does, whether or not
// this package is still there to renew it (internal/leasefile).
//
// Values of Configs and Secrets lie in memory, in a file system of ours (memory.go), and
// are mounted from there; secret variables are set by the shim inside the container. They
// are in no label, no log and nothing that containerd keeps. They go with the container.
//
// What a container may do is what its manifest says and no more: as which user, with
// which capabilities, and what of the node is mounted, of which this node's operator
// must have allowed the folder. An image that was asked for by its digest is that one
// or none, and stays on the node although its tag moves on.
//
// Invariant: Start, Stop and Remove may be called again at any time with the
// same arguments, and a container that runs is never stopped but by Stop,
// Remove and its watchdog. What is not known is never taken for ended (Observed.Uncertain).
//
//	agent ──Start/Stop/Exec──► Runtime ──gRPC──► containerd ──► shim ──► runc
//	      ◄──── Events ───────          ◄─events─               └──► shim log ─► file
//	      ──SetLease──► file in StateDir ◄──────────── or shim leased-log
package ctrd
