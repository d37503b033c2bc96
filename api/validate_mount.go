package api

import (
	"path"
	"strings"
)

// ours are the files that each container gets from its node.
var ours = []string{"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"}

func (c *checker) mounts(field string, list []Mount) {
	paths := taken{}
	for i, m := range list {
		here := at(field, i)
		if why := mountPathProblem(m.Path); why != "" {
			c.report(here+".path", why)
		} else if before := paths.claim(m.Path, here); before != "" {
			c.add(here+".path", "%q is taken by %s: a path has one mount", clip(m.Path), before)
		}
		switch kinds := count(m.Tmpfs != nil, m.Bind != ""); {
		case kinds != 1:
			c.add(here, "has %d of tmpfs and bind: exactly one is needed", kinds)
		case m.Tmpfs != nil:
			c.tmpfs(here, m)
		default:
			c.report(here+".bind", pathProblem(m.Bind))
		}
	}
}

func (c *checker) tmpfs(here string, m Mount) {
	if m.ReadOnly {
		c.add(here+".readOnly", "leaves a tmpfs empty for ever: remove it")
	}
	switch size := m.Tmpfs.Size; {
	case size == nil:
	case *size <= 0:
		c.add(here+".tmpfs.size", "is %s: want at least 1, such as 64Mi, or leave it out", size)
	case size.Milli()%1000 != 0:
		c.add(here+".tmpfs.size", "%s is not a whole number of bytes: m means a thousandth; did you mean %dMi?", size, size.Milli())
	}
}

// pathProblem wants the one spelling of an absolute path.
func pathProblem(p string) string {
	switch {
	case p == "":
		return "is empty: want an absolute path, such as /srv/data"
	case strings.ContainsRune(p, 0):
		return "has a NUL character: remove it"
	case !strings.HasPrefix(p, "/"):
		return quoted(p) + " is not absolute: start it with /"
	case path.Clean(p) != p:
		return quoted(p) + " is not in its plain form: write " + clip(path.Clean(p))
	}
	return ""
}

// mountPathProblem keeps mounts off what the runtime itself lays out.
func mountPathProblem(p string) string {
	if why := pathProblem(p); why != "" {
		return why
	}
	if p == "/" {
		return "is the root: mount below it, or give the container another image"
	}
	for _, f := range ours {
		if p == f {
			return quoted(p) + " is written by the node: mount elsewhere"
		}
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if (p == dir || strings.HasPrefix(p, dir+"/")) && p != "/dev/shm" {
			return quoted(p) + " belongs to the kernel's own files (/proc, /sys, /dev): mount elsewhere; of these only /dev/shm can be mounted over"
		}
	}
	return ""
}
