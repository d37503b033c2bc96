package plan

import (
	"bufio"
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/golden"
	"github.com/orchctl/orch/internal/wire"
)

// TestScripts runs testdata/*.txt. A line is a command; the lines after it that
// start with "> " are the effects that follow. Commands:
//
//	agent                         a new life of the agent begins (kill -9 before)
//	reboot                        the machine loses power and comes back
//	connect | disconnect          the session
//	incarnation B                 the store is another one from now on
//	stale                         the next complete set holds at an older revision
//	put web-0@1 [init=2] [sidecars=2] [started] [startup] [postStart] [preStop] [sleep=3s] [env] [label=eu] [digest] [image=i] [exclusive] [onPartition] [lease=6s] [grace=0s] [readiness] [liveness] [containers=2] [restart=never] [hostNetwork] [config=3] [secret=2] [volume=data] [stopping]
//	drop web-0@1
//	withheld | values             values of Configs and Secrets do not come with their sets, or do again
//	remove data.web-0             the leader wants that volume gone
//	do [n]                        carry out all that is wanted, or the first n
//	botch                         the first that is wanted fails
//	exit web-0@1/main#0 3         its process ends with that code
//	health image [2s]             it has a HEALTHCHECK, with that start period
//	vanish web-0@1/main#0         somebody removes it behind our back
//	ok|fail web-0@1/main#0 readiness [n]    a probe's answer, n times
//	missing|present image         whether it can be had
//	broken image                  its command cannot be run
//	images                        an image was brought
//	progress image words          how far its pull is
//	look                          containerd comes back: its events arrive again
//	tick 2s                       time passes
//	show                          print what the leader was told
//	grant [i] | refuse [i]        the leader answers the ith renewal that waits, from 0
//	watchdog [unseen]             watchdogs whose time has come act
//	untold | told                 leases do not reach the watchdogs, or do again
//	forget                        what the agent keeps on disk is lost
//	full | room                   assignments cannot be saved, or again
//	unguarded web-0@1/main#0      its watchdog dies
//	suspend 20s [unnoticed]       the machine sleeps
//	endpoints 5 [complete] [put=web-0@1] [drop=web-0@1] [keep=web-0@1] [service=web] [gone=web]    who gets traffic, version 5
//	programmed 2                  the Balance of that mark, and all before it, is in force
func TestScripts(t *testing.T) { golden.Scripts(t, runScript) }

func runScript(t *testing.T, script string) string {
	var out bytes.Buffer
	m := newModel()
	m.watch = func(e Effect) {
		if line := inWords(m, e); line != "" {
			fmt.Fprintln(&out, "> "+line)
		}
	}
	for sc := bufio.NewScanner(strings.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		if strings.HasPrefix(line, "> ") {
			continue
		}
		fmt.Fprintln(&out, line)
		if line != "" && !strings.HasPrefix(line, "#") {
			runCommand(t, m, strings.Fields(line), &out)
		}
	}
	return out.String()
}

func runCommand(t *testing.T, m *model, f []string, out *bytes.Buffer) {
	t.Helper()
	arg := func(i int) string {
		if i < len(f) {
			return f[i]
		}
		return ""
	}
	switch f[0] {
	case "agent":
		m.start()
	case "forget":
		m.saved = nil
	case "reboot":
		m.reboot()
	case "connect":
		m.connect()
	case "disconnect":
		m.connected = false
		m.step(Disconnected{})
	case "incarnation":
		m.incarnation, m.revision = arg(1), 1
	case "stale":
		m.revision = -10
	case "put":
		a := assignmentOf(t, f[1:])
		m.assigned[a.Key] = a
		m.send(wire.AssignmentSet{Put: []wire.Assignment{a}})
	case "drop":
		k := keyOf(t, arg(1))
		delete(m.assigned, k)
		m.send(wire.AssignmentSet{Drop: []api.ReplicaKey{k}})
	case "withheld", "values":
		m.withheld = f[0] == "withheld"
	case "remove":
		volume, of, _ := strings.Cut(arg(1), ".")
		r := keyOf(t, of+"@1")
		k := api.VolumeKey{Namespace: r.Namespace, Service: r.Service, Slot: r.Slot, Volume: volume}
		m.removing[k] = true
		m.send(wire.AssignmentSet{RemoveVolumes: []api.VolumeKey{k}})
	case "remove-orphans":
		m.send(wire.AssignmentSet{RemoveOrphans: true})
	case "do":
		n, err := strconv.Atoi(arg(1))
		for i := 0; len(m.pending) > 0 && (err != nil || i < n); i++ {
			m.carryOut(0, false)
		}
	case "botch":
		m.carryOut(0, true)
	case "exit":
		code, err := strconv.Atoi(arg(2))
		c := m.containers[arg(1)]
		if err != nil || c == nil {
			t.Fatalf("%v: no such container, or no code", f)
		}
		exit := api.Exit{Code: code, Reason: api.ExitError, Message: fmt.Sprintf("exit code %d", code)}
		if code == 0 {
			exit.Reason, exit.Message = api.ExitCompleted, ""
		}
		m.end(c, exit)
		m.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
	case "vanish":
		delete(m.containers, arg(1))
	case "health":
		ten := api.Duration(10 * time.Second)
		m.health[arg(1)] = &Healthcheck{Probe: api.Probe{Exec: &api.ExecProbe{Command: []string{"ok"}}, Interval: &ten, FailureThreshold: 2}}
		if arg(2) != "" {
			m.health[arg(1)].StartPeriod, _ = time.ParseDuration(arg(2))
		}
	case "ok", "fail":
		n, err := strconv.Atoi(arg(3))
		for i := 0; i < 1 || (err == nil && i < n); i++ {
			m.step(Probed{ContainerID: arg(1), Kind: ProbeKind(arg(2)), OK: f[0] == "ok", Message: "HTTP 503"})
		}
	case "missing", "present":
		m.missing[arg(1)] = f[0] == "missing"
	case "broken":
		m.broken[arg(1)] = true
	case "images":
		m.step(ImagesChanged{})
	case "progress":
		m.step(Progress{Ref: arg(1), Message: strings.Join(f[2:], " ")})
	case "look":
		m.step(RuntimeBack{})
	case "tick":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			t.Fatal(err)
		}
		m.now = m.now.Add(d)
		m.step(Tick{})
	case "grant", "refuse":
		i, _ := strconv.Atoi(arg(1))
		if i >= len(m.renewals) {
			fmt.Fprintln(out, "> (no such renewal)")
			return
		}
		m.answer(i, func(k api.ReplicaKey) bool { return f[0] == "grant" && m.grantable(k) })
	case "watchdog":
		for _, c := range m.watchdogsAct(func(string) bool { return true }) {
			fmt.Fprintf(out, "> (%s is ended by its watchdog: %s)\n", c.ID, c.Exit.Message)
			if arg(1) != "unseen" {
				m.step(Exited{ContainerID: c.ID, Exit: *c.Exit})
			}
		}
	case "untold", "told":
		m.untold = f[0] == "untold"
	case "full", "room":
		m.full = f[0] == "full"
	case "unguarded":
		delete(m.watchdogs, arg(1))
		m.containers[arg(1)].Unguarded = true
		m.step(Unguarded{ContainerID: arg(1)})
	case "suspend":
		d, err := time.ParseDuration(arg(1))
		if err != nil {
			t.Fatal(err)
		}
		if arg(2) == "unnoticed" {
			m.suspended += d
		} else {
			m.suspend(d)
		}
	case "endpoints":
		m.step(Endpoints{Set: endpointsOf(t, f[1:])})
	case "programmed":
		n, err := strconv.ParseUint(arg(1), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		waiting := 0
		for waiting < len(m.traffic.waiting) && m.traffic.waiting[waiting].Mark <= n {
			waiting++
		}
		m.traffic.program(waiting)
		m.step(Programmed{Mark: n})
	case "show":
		for _, k := range m.core.sortedKeys() {
			if r, ok := m.told[k]; ok {
				fmt.Fprintln(out, "> "+told(r))
			}
		}
		for _, id := range m.orphans {
			fmt.Fprintln(out, "> orphan "+id)
		}
	default:
		t.Fatalf("unknown command %v", f)
	}
}

func keyOf(t *testing.T, s string) api.ReplicaKey {
	t.Helper()
	r, err := api.ParseReplicaRef(s)
	if err != nil {
		t.Fatal(err)
	}
	return api.ReplicaKey{Namespace: "default", Service: r.Service, Slot: r.Slot, Epoch: r.Epoch}
}

func assignmentOf(t *testing.T, f []string) wire.Assignment {
	t.Helper()
	main := api.Container{Name: "main", Image: "web:1"}
	tpl := &api.Template{}
	a := wire.Assignment{Key: keyOf(t, f[0]), Revision: 1, Template: tpl}
	for _, opt := range f[1:] {
		k, v, _ := strings.Cut(opt, "=")
		switch k {
		case "image":
			main.Image = v
		case "job":
			a.Job, tpl.RestartPolicy.Condition = true, api.RestartNever
		case "exclusive":
			tpl.Exclusive = true
		case "onPartition":
			tpl.OnPartition = api.PartitionStop
		case "lease", "grace":
			d, err := time.ParseDuration(v)
			if err != nil {
				t.Fatal(err)
			}
			of := api.Duration(d)
			if k == "lease" {
				tpl.LeaseDuration = &of
			} else {
				tpl.TerminationGracePeriod = &of
			}
		case "hostNetwork":
			tpl.HostNetwork = true
		case "readiness":
			main.ReadinessProbe = &api.Probe{HTTP: &api.HTTPProbe{Path: "/", Port: "8080"}}
		case "liveness":
			main.LivenessProbe = &api.Probe{HTTP: &api.HTTPProbe{Path: "/", Port: "8080"}}
		case "restart":
			tpl.RestartPolicy.Condition = api.RestartCondition(v)
		case "init":
			tpl.InitContainers = several(t, v, "init", "init:1")
		case "sidecars":
			tpl.Sidecars = several(t, v, "proxy", "proxy:1")
		case "started": // sidecars have a startup probe
			for i := range tpl.Sidecars {
				tpl.Sidecars[i].StartupProbe = &api.Probe{TCP: &api.TCPProbe{Port: "9000"}}
			}
		case "startup":
			ten := api.Duration(10 * time.Second)
			main.StartupProbe = &api.Probe{HTTP: &api.HTTPProbe{Port: "8080"}, Interval: &ten, FailureThreshold: 2}
		case "postStart":
			main.Lifecycle = &api.Lifecycle{PostStart: &api.Hook{Exec: &api.ExecProbe{Command: []string{"warm"}}}}
		case "preStop":
			main.Lifecycle = &api.Lifecycle{PreStop: &api.Hook{HTTP: &api.HTTPProbe{Path: "/drain", Port: "8080"}}}
		case "sleep":
			d, err := time.ParseDuration(v)
			if err != nil {
				t.Fatal(err)
			}
			of := api.Duration(d)
			main.Lifecycle = &api.Lifecycle{PreStop: &api.Hook{Sleep: &of}}
		case "env":
			main.Env = []api.EnvVar{{Name: "PLAIN", Value: "x"}}
			for _, f := range []string{api.FieldName, api.FieldSlot, api.FieldEpoch, api.FieldRevision, api.FieldService, api.FieldNamespace, api.FieldNode, api.FieldIP, "labels.zone", "labels.none"} {
				main.Env = append(main.Env, api.EnvVar{Name: strings.ToUpper(f), ValueFrom: &api.EnvSource{Field: f}})
			}
		case "config", "secret":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if a.Configs == nil {
				a.Configs = map[api.ConfigRef]int64{}
			}
			if k == "config" {
				a.Configs[api.RefTo(api.KindConfig, "app")] = n
				main.EnvFrom = append(main.EnvFrom, api.EnvFrom{Config: "app"})
			} else {
				a.Configs[api.RefTo(api.KindSecret, "db")] = n
				main.Env = append(main.Env, api.EnvVar{Name: "PASSWORD", ValueFrom: &api.EnvSource{Secret: &api.KeyRef{Name: "db", Key: "password"}}})
			}
		case "login":
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			tpl.PullSecrets = []string{"hub"}
			a.Logins = map[api.ConfigRef]int64{api.RefTo(api.KindSecret, "hub"): n}
		case "never":
			main.PullPolicy = api.PullNever
		case "volume":
			main.Mounts = append(main.Mounts, api.Mount{Path: "/" + v, Volume: v})
		case "label":
			a.Labels = map[string]string{"zone": v}
		case "digest":
			a.Images = map[string]string{"web:1": "sha256:aa", "init:1": "sha256:bb"}
			if v == "found" { // what the model finds by the tag
				a.Images = map[string]string{"web:1": "sha256:web:1", "init:1": "sha256:init:1"}
			}
		case "revision":
			a.Revision = 2
		case "containers":
			tpl.Containers = append(tpl.Containers, api.Container{Name: "side", Image: "side:1"})
		case "stopping":
			a.Stopping = true
		default:
			t.Fatalf("unknown option %q", opt)
		}
	}
	tpl.Containers = append([]api.Container{main}, tpl.Containers...)
	return a
}

// several makes containers "init1", "init2" and so on.
func several(t *testing.T, n, name, image string) []api.Container {
	t.Helper()
	count, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	var out []api.Container
	for i := range count {
		out = append(out, api.Container{Name: fmt.Sprintf("%s%d", name, i+1), Image: image})
	}
	return out
}

func endpointsOf(t *testing.T, f []string) wire.EndpointSet {
	t.Helper()
	var set wire.EndpointSet
	var err error
	if set.Version, err = strconv.ParseUint(f[0], 10, 64); err != nil {
		t.Fatal(err)
	}
	for _, opt := range f[1:] {
		k, v, _ := strings.Cut(opt, "=")
		switch k {
		case "complete":
			set.Complete = true
		case "put":
			set.Put = append(set.Put, wire.Endpoint{Replica: keyOf(t, v), IP: "10.64.0.9"})
		case "drop":
			set.Drop = append(set.Drop, keyOf(t, v))
		case "keep":
			set.Keep = append(set.Keep, keyOf(t, v))
		case "service":
			set.Services = append(set.Services, wire.Service{Key: api.Key{Namespace: "default", Name: v}})
		case "gone":
			set.DropServices = append(set.DropServices, api.Key{Namespace: "default", Name: v})
		default:
			t.Fatalf("unknown option %q", opt)
		}
	}
	return set
}

// balanceInWords prints the names of what changes.
func balanceInWords(b Balance) string {
	words := []string{fmt.Sprintf("Balance %d", b.Mark)}
	if b.Complete {
		words = append(words, "all")
	}
	for _, e := range b.Put {
		words = append(words, "put "+strings.TrimPrefix(e.Replica.String(), "default/"))
	}
	for _, k := range b.Drop {
		words = append(words, "drop "+strings.TrimPrefix(k.String(), "default/"))
	}
	for _, s := range b.Services {
		words = append(words, "service "+s.Key.Name)
	}
	for _, k := range b.DropServices {
		words = append(words, "drop service "+k.Name)
	}
	return strings.Join(words, " ")
}

// inWords prints an effect in a line; those without news give none.
func inWords(m *model, e Effect) string {
	lease := func(l Lease) string {
		return fmt.Sprintf("term in %s, kill in %s", l.Term-m.bootTime(), l.Kill-m.bootTime())
	}
	k := func(k api.ReplicaKey) string { return strings.TrimPrefix(k.String(), "default/") }
	switch e := e.(type) {
	case Observe:
		return "Observe: " + e.Why
	case EnsureImage:
		line := fmt.Sprintf("EnsureImage %s: %s", e.Ref, e.Why)
		if e.Never {
			line += " never"
		}
		for _, k := range e.Logins {
			line += fmt.Sprintf(" %s/%s@%d", k.Namespace, k.Ref, k.Version)
		}
		return line
	case SetupNetwork:
		if e.HostNetwork {
			return fmt.Sprintf("SetupNetwork %s, the node's own: %s", k(e.Replica), e.Why)
		}
		return fmt.Sprintf("SetupNetwork %s: %s", k(e.Replica), e.Why)
	case StartContainer:
		line := fmt.Sprintf("StartContainer %s#%d %s: %s", shortID(e.Replica, e.Container.Name), e.Attempt, e.ImageID, e.Why)
		if e.Lease != nil {
			line += "; " + lease(*e.Lease)
		}
		for _, k := range pinsOf(e.Replica, e.Configs) {
			line += fmt.Sprintf(" %s@%d", string(k.Ref), k.Version)
		}
		for _, v := range e.Container.Env {
			line += " " + v.Name + "=" + v.Value
		}
		return line
	case RunHook:
		return fmt.Sprintf("RunHook %s at %s:%d for %s: %s", e.ContainerID, e.IP, e.Port, e.Timeout, e.Why)
	case Renew:
		words := []string{"Renew"}
		for _, key := range e.Renewal.Keys {
			words = append(words, k(key))
		}
		return strings.Join(words, " ")
	case SetLease:
		return fmt.Sprintf("SetLease %s %s", e.ContainerID, lease(e.Lease))
	case StopContainer:
		return fmt.Sprintf("StopContainer %s grace %s cause %q: %s", e.ContainerID, e.Grace, e.Cause, e.Why)
	case RemoveContainer:
		return fmt.Sprintf("RemoveContainer %s: %s", e.ContainerID, e.Why)
	case TeardownNetwork:
		return fmt.Sprintf("TeardownNetwork %s: %s", k(e.Replica), e.Why)
	case PruneNetworks:
		return fmt.Sprintf("PruneNetworks but %d: %s", len(e.Keep), e.Why)
	case RemoveVolume:
		return fmt.Sprintf("RemoveVolume %s: %s", e.Volume.Name(), e.Why)
	case StartProbe:
		return fmt.Sprintf("StartProbe %s %s at %s:%d first %s, every %s until the first success, then %s: %s", e.ContainerID, e.Kind, e.IP, e.Port, e.First, e.Until, e.Interval, e.Why)
	case StopProbe:
		return fmt.Sprintf("StopProbe %s %s", e.ContainerID, e.Kind)
	case Balance:
		return balanceInWords(e)
	case Ack:
		if e.EndpointVersion == m.acked {
			return ""
		}
		return fmt.Sprintf("Ack endpoints %d", e.EndpointVersion)
	case Resync:
		return "Resync: " + e.Why
	case Report:
		return reportInWords(e.Report)
	}
	return ""
}

func reportInWords(r wire.StatusReport) string {
	words := []string{"Report"}
	if r.Complete {
		words = append(words, "all")
	}
	for _, x := range r.Replicas {
		words = append(words, "["+told(x)+"]")
	}
	for _, k := range r.Gone {
		words = append(words, "gone "+strings.TrimPrefix(k.String(), "default/"))
	}
	for _, k := range r.VolumesGone {
		words = append(words, "volume gone "+k.Name())
	}
	for _, id := range r.Orphans {
		words = append(words, "orphan "+id)
	}
	return strings.Join(words, " ")
}

func told(x wire.Report) string {
	s := strings.TrimPrefix(x.Key.String(), "default/") + " " + string(x.Status.Phase)
	if x.Status.Ready {
		s += " ready"
	}
	if x.Status.Restarts > 0 {
		s += fmt.Sprintf(" restarts=%d", x.Status.Restarts)
	}
	if x.Status.Reason != "" || x.Status.Message != "" {
		s += fmt.Sprintf(" %s %q", x.Status.Reason, x.Status.Message)
	}
	return s
}
