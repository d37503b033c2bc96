package api

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// taken remembers what may stand only once in a service, and where it stood.
type taken map[string]string

// claim gives where key was taken before; "" the first time.
func (t taken) claim(key, path string) string {
	before, ok := t[key]
	if !ok {
		t[key] = path
	}
	return before
}

func (c *checker) containers(t *Template) {
	if len(t.Containers) == 0 {
		c.add("spec.containers", "is required: list at least one container with name and image")
	}
	if n := len(t.InitContainers) + len(t.Sidecars) + len(t.Containers); n > MaxContainers {
		c.add("spec.containers", "lists %d%s: at most %d are allowed in one %s", n, beside(t), MaxContainers, c.what)
	}
	names, ports := taken{}, taken{}
	for _, list := range []struct {
		path string
		of   []Container
		init bool
	}{{"spec.initContainers", t.InitContainers, true}, {"spec.sidecars", t.Sidecars, false}, {"spec.containers", t.Containers, false}} {
		for i := range list.of {
			path, x := at(list.path, i), &list.of[i]
			if why := nameProblem(x.Name, MaxContainerName); why != "" {
				c.report(path+".name", why)
			} else if before := names.claim(x.Name, path+".name"); before != "" {
				c.add(path+".name", "%q is taken by %s: container names are unique within a %s", x.Name, before, c.what)
			}
			c.container(path, x)
			if list.init {
				c.initOnly(path, x)
				continue
			}
			c.asked(path, x, t.TerminationGracePeriod.Or(DefaultGrace))
			c.ports(path+".ports", x.Ports, t.HostNetwork, ports)
		}
	}
}

// eachContainer calls f for all containers of the template, with their paths.
func eachContainer(t *Template, f func(path string, x *Container)) {
	for i := range t.InitContainers {
		f(at("spec.initContainers", i), &t.InitContainers[i])
	}
	for i := range t.Sidecars {
		f(at("spec.sidecars", i), &t.Sidecars[i])
	}
	for i := range t.Containers {
		f(at("spec.containers", i), &t.Containers[i])
	}
}

// beside says what else was counted with the containers.
func beside(t *Template) string {
	if len(t.InitContainers)+len(t.Sidecars) == 0 {
		return ""
	}
	return " with initContainers and sidecars"
}

// container checks what all kinds of containers have.
func (c *checker) container(path string, x *Container) {
	c.report(path+".image", imageProblem(x.Image))
	c.pullPolicy(path+".pullPolicy", x.PullPolicy)
	if x.Command != nil {
		c.command(path+".command", x.Command, "leave it out to use the image's entrypoint")
	}
	for i, arg := range x.Args {
		c.noNUL(at(path+".args", i), arg)
	}
	c.envFrom(path+".envFrom", x.EnvFrom)
	c.env(path+".env", x.Env)
	if x.WorkingDir != "" && !strings.HasPrefix(x.WorkingDir, "/") {
		c.add(path+".workingDir", "%q is not absolute: start it with /", clip(x.WorkingDir))
	}
	c.noNUL(path+".workingDir", x.WorkingDir)
	c.resources(path+".resources", x.Resources)
	c.stopSignal(path+".stopSignal", x.StopSignal)
	c.security(path+".securityContext", x.SecurityContext)
	c.ulimits(path+".ulimits", x.Ulimits)
	c.mounts(path+".mounts", x.Mounts)
}

// asked checks the probes and hooks of a container that runs as long as its replica.
func (c *checker) asked(path string, x *Container, grace time.Duration) {
	c.probe(path+".readinessProbe", x.ReadinessProbe, x.Ports)
	c.probe(path+".livenessProbe", x.LivenessProbe, x.Ports)
	c.startup(path+".startupProbe", x.StartupProbe, x.Ports)
	c.lifecycle(path+".lifecycle", x.Lifecycle, x.Ports, grace)
}

// initOnly refuses what only a container that goes on running can have.
func (c *checker) initOnly(path string, x *Container) {
	const why = "is for containers that go on running, and an init container runs to its end: remove it, or make it one of sidecars"
	for _, f := range []struct {
		name string
		set  bool
	}{{"ports", len(x.Ports) > 0}, {"readinessProbe", x.ReadinessProbe != nil}, {"livenessProbe", x.LivenessProbe != nil},
		{"startupProbe", x.StartupProbe != nil}, {"lifecycle", x.Lifecycle != nil}} {
		if f.set {
			c.add(path+"."+f.name, why)
		}
	}
}

func (c *checker) command(path string, words []string, remedy string) {
	if len(words) == 0 {
		c.add(path, "is an empty list: %s", remedy)
		return
	}
	if words[0] == "" {
		c.add(at(path, 0), "is empty: the first word is the program to run")
	}
	for i, w := range words {
		c.noNUL(at(path, i), w)
	}
}

// noNUL: the kernel ends a string there, so the rest would be lost in silence.
func (c *checker) noNUL(path, s string) {
	if strings.ContainsRune(s, 0) {
		c.add(path, "has a NUL character: remove it, for no process can receive it")
	}
}

func (c *checker) env(path string, list []EnvVar) {
	names := taken{}
	for i, v := range list {
		here := at(path, i)
		switch {
		case v.Name == "":
			c.add(here+".name", "is empty: a variable needs a name")
			continue
		case !envName.MatchString(v.Name):
			c.add(here+".name", `%q is not a variable's name: use letters, digits, "_", "-" and ".", not starting with a digit`, clip(v.Name))
		}
		if before := names.claim(v.Name, here); before != "" {
			c.add(here+".name", "%q is set by %s already: remove one of them", clip(v.Name), before)
		}
		c.noNUL(here+".value", v.Value)
		if v.ValueFrom != nil {
			if v.Value != "" {
				c.add(here+".valueFrom", "and value are both set: remove one of them")
			}
			c.envSource(here+".valueFrom", v.ValueFrom)
		}
	}
}

// ports checks one container's ports; seen is shared by the service, for its
// containers share one network namespace, and its replica one set of host ports.
func (c *checker) ports(path string, list []Port, hostNetwork bool, seen taken) {
	for i, p := range list {
		here := at(path, i)
		c.portNumber(here+".port", p.Port)
		if p.Protocol != "" && p.Protocol != TCP && p.Protocol != UDP {
			c.add(here+".protocol", "%q is unknown: want TCP or UDP", clip(string(p.Protocol)))
		}
		if p.Name != "" {
			c.report(here+".name", portNameProblem(p.Name))
			if before := seen.claim("name "+p.Name, here); before != "" {
				c.add(here+".name", "%q is taken by %s: port names are unique within a service", clip(p.Name), before)
			}
		}
		if before := seen.claim(fmt.Sprintf("port %d/%s", p.Port, p.Transport()), here); before != "" && p.Port > 0 {
			c.add(here+".port", "%d/%s is taken by %s: the containers of a replica share one address", p.Port, p.Transport(), before)
		}
		c.publish(here, p, hostNetwork, seen)
	}
}

func (c *checker) portNumber(path string, n int) {
	if n == 0 {
		c.add(path, "is required: a number from 1 to %d", MaxPort)
	} else if n < 0 || n > MaxPort {
		c.add(path, "%d is not a port: want a number from 1 to %d", n, MaxPort)
	}
}

func (c *checker) publish(path string, p Port, hostNetwork bool, seen taken) {
	if p.Publish == 0 {
		if p.Mode != "" {
			c.add(path+".mode", "says how a port is published, but publish is missing: add it, or remove mode")
		}
		return
	}
	c.portNumber(path+".publish", p.Publish)
	switch p.Mode {
	case "", PublishHost:
	default:
		c.add(path+".mode", "%q is unknown: want host to publish on the replica's own node, or remove mode to publish on every node", clip(string(p.Mode)))
	}
	if hostNetwork && p.Publish != p.Port && p.Port != 0 {
		c.add(path+".publish", "is %d, but a hostNetwork replica listens on its node's own port, %d: remove publish, or set it to %d", p.Publish, p.Port, p.Port)
	}
	if before := seen.claim(fmt.Sprintf("host %d/%s", p.Publish, p.Transport()), path); before != "" {
		c.add(path+".publish", "%d/%s is taken by %s: a replica can have a node's port only once", p.Publish, p.Transport(), before)
	}
}

func (c *checker) resources(path string, r Resources) {
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		c.resource(path+".requests", name, r.Requests[name])
		if name == Pids {
			c.add(path+".requests.pids", "is not requested, only limited: move it to limits")
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.Limits)) {
		c.resource(path+".limits", name, r.Limits[name])
		c.limit(path, name, r)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Requests)) {
		request := r.Requests[name]
		limit, limited := r.Limits[name]
		switch {
		case !limited:
		case IsExtended(name) && request != limit:
			c.add(path+".limits."+clip(name), "is %s, but the request is %s: both must be the same for a resource that is only counted", limit, request)
		case !IsExtended(name) && request > limit:
			c.add(path+".requests."+name, "is %s, above the limit, which is %s: lower the request or raise the limit", request, limit)
		}
	}
}

// slips are names for cpu, memory and pids that people write; as extended
// resources they would leave the service pending without a clear reason.
var slips = map[string]string{
	"cpus": CPU, "CPU": CPU, "cores": CPU, "core": CPU, "vcpu": CPU,
	"mem": Memory, "ram": Memory, "Memory": Memory, "memroy": Memory, "memmory": Memory, "memry": Memory, "menory": Memory,
	"pid": Pids, "process": Pids, "processes": Pids,
}

func (c *checker) resource(path, name string, q Quantity) {
	path += "." + clip(name)
	if right, ok := slips[name]; ok {
		c.add(path, "is unknown; did you mean %q?", right)
		return
	}
	if why := labelKeyProblem(name); why != "" {
		c.add(path, `%q is not a resource: want cpu, memory, pids or the name of a counted resource, such as gpus`, clip(name))
		return
	}
	if q < 0 {
		c.add(path, "is negative: want 0 or more")
	} else if name != CPU && q.Milli()%1000 != 0 {
		remedy := "write it without a fraction"
		if name == Memory {
			remedy = fmt.Sprintf("m means a thousandth; did you mean %dMi?", q.Milli())
		}
		c.add(path, "%s is not a whole number of %s: %s", q, unit(name), remedy)
	}
}

func unit(resource string) string {
	switch resource {
	case Memory:
		return "bytes"
	case Pids:
		return "processes"
	}
	return resource
}

func (c *checker) limit(path, name string, r Resources) {
	q, here := r.Limits[name], path+".limits."+name
	switch {
	case name == CPU && q >= 0 && q < MinCPULimit:
		c.add(here, "is %s: at least %s is needed, or leave it out for no limit", q, MinCPULimit)
	case name == Memory && q >= 0 && q.Milli()%1000 == 0 && q < MinMemoryLimit:
		c.add(here, "is %s: at least %s is needed for a container to start, or leave it out for no limit", q, MinMemoryLimit)
	case name == Pids && q == 0:
		c.add(here, "is 0: at least 1 is needed for a container to start")
	}
}
