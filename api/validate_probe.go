package api

import (
	"strconv"
	"strings"
	"time"
)

func (c *checker) probe(path string, p *Probe, ports []Port) {
	if p == nil {
		return
	}
	if kinds := count(p.HTTP != nil, p.TCP != nil, p.GRPC != nil, p.Exec != nil); kinds != 1 {
		c.add(path, "has %d of http, tcp, grpc and exec: exactly one is needed", kinds)
	}
	c.http(path+".http", p.HTTP, ports)
	if p.TCP != nil {
		c.portRef(path+".tcp.port", p.TCP.Port, ports)
	}
	if p.GRPC != nil {
		c.portRef(path+".grpc.port", p.GRPC.Port, ports)
		if !grpcService.MatchString(p.GRPC.Service) {
			c.add(path+".grpc.service", `%q is not a gRPC service: want a name such as shop.v1.Orders, or leave it out for the server as a whole`, clip(p.GRPC.Service))
		}
	}
	c.exec(path+".exec", p.Exec)
	c.duration(path+".initialDelay", p.InitialDelay, 0, MaxDelay)
	c.duration(path+".interval", p.Interval, MinProbeInterval, MaxDelay)
	c.duration(path+".timeout", p.Timeout, MinProbeInterval, MaxDelay)
	c.threshold(path+".failureThreshold", p.FailureThreshold)
	c.threshold(path+".successThreshold", p.SuccessThreshold)
}

// startup: one success ends it, so that a higher threshold could only be ignored.
func (c *checker) startup(path string, p *Probe, ports []Port) {
	c.probe(path, p, ports)
	if p != nil && p.SuccessThreshold > 1 && p.SuccessThreshold <= MaxThreshold {
		c.add(path+".successThreshold", "is %d, but a startup probe ends with its first success: remove it, or set it to 1", p.SuccessThreshold)
	}
}

func (c *checker) http(path string, p *HTTPProbe, ports []Port) {
	if p == nil {
		return
	}
	c.portRef(path+".port", p.Port, ports)
	if p.Path != "" && !httpPath.MatchString(p.Path) {
		c.add(path+".path", "%q is not a path: start it with / and write blanks and other than ASCII as %%xx", clip(p.Path))
	}
}

func (c *checker) exec(path string, p *ExecProbe) {
	if p != nil {
		c.command(path+".command", p.Command, "name the program to run in the container")
	}
}

func (c *checker) threshold(path string, n int) {
	if n < 0 || n > MaxThreshold {
		c.add(path, "is %d: want a number from 1 to %d", n, MaxThreshold)
	}
}

func (c *checker) lifecycle(path string, l *Lifecycle, ports []Port, grace time.Duration) {
	if l == nil {
		return
	}
	c.hook(path+".postStart", l.PostStart, ports)
	c.hook(path+".preStop", l.PreStop, ports)
	switch stop := l.PreStop; {
	case stop == nil:
	case grace == 0:
		c.add(path+".preStop", "never runs, for terminationGracePeriod is 0: raise that, or remove the hook")
	case stop.Sleep != nil && time.Duration(*stop.Sleep) >= grace && grace > 0:
		c.add(path+".preStop.sleep", "is %s of a terminationGracePeriod of %s, so that nothing is left for the stop signal: raise that above it", stop.Sleep, Duration(grace))
	}
}

func (c *checker) hook(path string, h *Hook, ports []Port) {
	if h == nil {
		return
	}
	if kinds := count(h.Exec != nil, h.HTTP != nil, h.Sleep != nil); kinds != 1 {
		c.add(path, "has %d of exec, http and sleep: exactly one is needed", kinds)
	}
	c.exec(path+".exec", h.Exec)
	c.http(path+".http", h.HTTP, ports)
	c.duration(path+".sleep", h.Sleep, time.Millisecond, MaxGrace)
	if h.Sleep != nil && h.Timeout != nil {
		c.add(path+".timeout", "is for exec and http: sleep takes as long as it says; remove it")
		return
	}
	c.duration(path+".timeout", h.Timeout, MinProbeInterval, MaxGrace)
}

func count(set ...bool) int {
	n := 0
	for _, x := range set {
		if x {
			n++
		}
	}
	return n
}

func (c *checker) portRef(path string, ref PortRef, ports []Port) {
	if ref == "" {
		c.add(path, "is required: a port's number, or the name of one of the container's ports")
		return
	}
	if n, err := strconv.Atoi(string(ref)); err == nil {
		if n < 1 || n > MaxPort {
			c.add(path, "%d is not a port: want a number from 1 to %d", n, MaxPort)
		}
		return
	}
	var names []string
	for _, p := range ports {
		if p.Name == string(ref) {
			if p.Transport() != TCP {
				c.add(path, "%q is a %s port: probes and hooks connect by TCP", ref, p.Transport())
			}
			return
		}
		if p.Name != "" {
			names = append(names, p.Name)
		}
	}
	if len(names) == 0 {
		c.add(path, "no port of this container is named %q: give the number, or name a port", clip(string(ref)))
		return
	}
	c.add(path, "no port of this container is named %q: it has %s", clip(string(ref)), strings.Join(names, ", "))
}
