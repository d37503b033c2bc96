package api

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// sysctls checks those of the replica.
func (c *checker) sysctls(t *Template) {
	for _, name := range slices.Sorted(maps.Keys(t.Sysctls)) {
		path, value := index("spec.sysctls", name), t.Sysctls[name]
		c.report(path, sysctlProblem(name, t.HostNetwork))
		switch {
		case strings.TrimSpace(value) == "":
			c.add(path, "is empty: want a value")
		case strings.ContainsAny(value, "\n\x00"):
			c.add(path, "has a line break or NUL character: the kernel takes one line")
		}
	}
}

func (c *checker) security(path string, x *SecurityContext) {
	if x == nil {
		return
	}
	if x.User != "" {
		c.report(path+".user", accountProblem("user", x.User))
	}
	if x.Group != "" {
		c.report(path+".group", accountProblem("group", x.Group))
		if x.User == "" {
			c.add(path+".group", "is only taken with user: add user, or remove group")
		}
	}
	c.capabilities(path+".capabilities", x.Capabilities)
	switch x.Seccomp {
	case "", SeccompDefault, SeccompUnconfined:
	default:
		c.add(path+".seccomp", "%q is unknown: want %s or %s", clip(string(x.Seccomp)), SeccompDefault, SeccompUnconfined)
	}
	if x.Privileged {
		c.privileged(path, x)
	}
}

// privileged: what could only be ignored beside it is refused.
func (c *checker) privileged(path string, x *SecurityContext) {
	const remedy = "remove this line, or privileged"
	if len(x.Capabilities.Add) > 0 || len(x.Capabilities.Drop) > 0 {
		c.add(path+".capabilities", "have no meaning here, for a privileged container has all: %s", remedy)
	}
	if x.Seccomp == SeccompDefault {
		c.add(path+".seccomp", "is default, but a privileged container has no filter: %s", remedy)
	}
}

func (c *checker) capabilities(path string, x Capabilities) {
	seen := taken{}
	for _, list := range []struct {
		path  string
		names []string
	}{{path + ".add", x.Add}, {path + ".drop", x.Drop}} {
		for i, name := range list.names {
			here := at(list.path, i)
			if why := capabilityProblem(name); why != "" {
				c.report(here, why)
			} else if before := seen.claim(strings.TrimPrefix(name, "CAP_"), here); before != "" {
				c.add(here, "%s stands in %s already: remove one of them", name, before)
			}
		}
	}
}

func (c *checker) ulimits(path string, limits map[string]Ulimit) {
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		here, u := index(path, name), limits[name]
		if !slices.Contains(ulimits, name) {
			c.add(here, "%q is not a limit: want one of %s", clip(name), strings.Join(ulimits, ", "))
			continue
		}
		hard := u.Hard
		if hard == 0 {
			hard = u.Soft
		}
		switch {
		case hard == 0 && slices.Contains(neverZero, name):
			c.add(here, "is 0, within which no program runs: set soft, and hard if that is to be above it")
		case hard >= 0 && (u.Soft < 0 || u.Soft > hard):
			c.add(here+".soft", "is %s, above hard, which is %s: lower it, or raise hard", amount(u.Soft), amount(hard))
		}
	}
}

func amount(n int64) string {
	if n < 0 {
		return "unlimited"
	}
	return strconv.FormatInt(n, 10)
}

func (c *checker) stopSignal(path, name string) {
	if name != "" {
		c.report(path, signalProblem(name))
	}
}
