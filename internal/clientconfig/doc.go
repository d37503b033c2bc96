// Package clientconfig holds the file that tells a client which clusters there
// are and who it is there.
//
// It owns the file's format and the way from a context to a connection. The
// controller's first start writes a context for the admin; orchctl reads it.
//
// Invariant: the file is replaced whole or not at all, only its owner can read
// it, and merging a context in leaves the others as they were.
//
//	~/.config/orch/config.yaml (or $ORCH_CONFIG)
//	  currentContext: orch
//	  contexts:
//	  - name: orch
//	    controllers: [unix:///run/orch.sock, 10.0.0.1:7070]
//	    ca, certificate, key: PEM          ──Dial──► mutual TLS ──► a controller
package clientconfig
