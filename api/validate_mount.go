package api

import (
	"fmt"
	"path"
	"regexp"
	"strings"
)

// reservedPath is where the agent puts its shim into containers that need it.
const reservedPath = "/.orch"

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
		if kinds := count(m.Tmpfs != nil, m.Bind != "", m.Config != "", m.Secret != "", m.Volume != ""); kinds != 1 {
			c.add(here, "has %d of tmpfs, bind, config, secret and volume: exactly one is needed", kinds)
			continue
		}
		c.mounted(here, m)
	}
	c.readOnlyParents(field, list)
}

// mounted checks what is mounted, which is one thing.
func (c *checker) mounted(here string, m Mount) {
	switch {
	case m.Tmpfs != nil:
		c.tmpfs(here, m)
	case m.Bind != "":
		c.report(here+".bind", pathProblem(m.Bind))
	case m.Config != "":
		c.report(here+".config", nameProblem(m.Config, MaxConfigName))
	case m.Secret != "":
		c.report(here+".secret", nameProblem(m.Secret, MaxConfigName))
	default:
		c.report(here+".volume", nameProblem(m.Volume, MaxVolumeName))
	}
	if m.Config != "" || m.Secret != "" {
		if m.Key != "" {
			c.report(here+".key", configKeyProblem(m.Key))
		}
		c.report(here+".mode", modeProblem(m.Mode))
		return
	}
	if m.Key != "" {
		c.add(here+".key", "names one value of a Config or a Secret, and this mounts neither: remove it")
	}
	if m.Mode != "" {
		c.add(here+".mode", "is of the files of a Config or a Secret, and this mounts neither: remove it")
	}
}

// readOnlyParents refuses a mount within one of values: no place for it can be made
// there, for nobody can write there.
func (c *checker) readOnlyParents(field string, list []Mount) {
	for i, m := range list {
		for j, over := range list {
			if (over.Config != "" || over.Secret != "") && over.Path != "/" && strings.HasPrefix(m.Path, over.Path+"/") {
				c.add(at(field, i)+".path", "%q lies within %s, which nothing can be written into: mount elsewhere, or there the files one by one, with key", clip(m.Path), at(field, j))
				break
			}
		}
	}
}

var octal = regexp.MustCompile(`^0?[0-7]{3}$`)

// modeProblem wants the permissions of a file in octal digits; empty is the usual ones.
func modeProblem(s string) string {
	if s == "" || octal.MatchString(s) {
		return ""
	}
	if n, ok := decimal(s); ok && len(s) == 3 && n <= 0o777 { // 292 for 0444
		return fmt.Sprintf("%q is not a mode, and as a decimal number it would be \"%04o\": write octal digits in quotes, such as \"0400\"", s, n)
	}
	return fmt.Sprintf("%q is not a mode: want three or four octal digits in quotes, from \"0000\" to \"0777\", such as \"0400\"", clip(s))
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
	if p == reservedPath || strings.HasPrefix(p, reservedPath+"/") {
		return quoted(p) + " is where orch puts what it needs in a container itself: mount elsewhere"
	}
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if (p == dir || strings.HasPrefix(p, dir+"/")) && p != "/dev/shm" {
			return quoted(p) + " belongs to the kernel's own files (/proc, /sys, /dev): mount elsewhere; of these only /dev/shm can be mounted over"
		}
	}
	return ""
}
