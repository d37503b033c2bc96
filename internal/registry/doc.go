// Package registry speaks to registries of images: where each is (mirrors, plain HTTP,
// authorities), who we are there, and what a reference means now.
//
// It owns logins and hosts' settings; it stores nothing and runs no container. The agent
// pulls through it, the controller asks it what tags mean.
//
// Invariant: a login goes to the registry that it names, over TLS unless an operator
// allowed that host by name otherwise, and into no log or error.
package registry
