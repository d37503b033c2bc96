// Package deploy is what puts orch on servers: units of systemd, examples of
// configuration files, the script that installs, and how Debian packages are made. It
// holds no code but the tests of these files.
//
//	install.sh ──┬──► /usr/local/lib/orch, /etc/systemd/system
//	make deb ────┴──► /usr/lib/orch, /lib/systemd/system        /etc/orch/*.yaml
//
// Invariant: installing, upgrading and removing touch no container, and no file that
// an administrator has changed.
package deploy
