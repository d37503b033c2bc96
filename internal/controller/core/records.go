package core

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/orchctl/orch/api"
	"github.com/orchctl/orch/internal/store"
	"github.com/orchctl/orch/internal/wire"
	orchv1 "github.com/orchctl/orch/proto/orch/v1"
)

// Where things lie in the store. Everything that the core owns is below Prefix.
const (
	Prefix          = "/orch/state/"
	countersKey     = Prefix + "counters"
	networkKey      = Prefix + "network"
	volumePrefix    = Prefix + "volumes/"        // <namespace>/<service>/<slot>/<volume>
	removalPrefix   = Prefix + "volumeremovals/" // <node>/<namespace>/<service>/<slot>/<volume>
	configPrefix    = Prefix + "configs/"        // <namespace>/<kind>/<name>
	versionPrefix   = Prefix + "configversions/" // <namespace>/<kind>/<name>/<number>
	payloadPrefix   = Prefix + "configpayloads/" // likewise
	servicePrefix   = Prefix + "services/"       // <namespace>/<name>
	revisionPrefix  = Prefix + "revisions/"      // <namespace>/<name>/<number>
	placementPrefix = Prefix + "placements/"     // <namespace>/<service>/<slot>/<epoch>
	nodePrefix      = Prefix + "nodes/"          // <name>
	eventPrefix     = Prefix + "events/"         // <namespace>/<sequence>
	requestPrefix   = Prefix + "requests/"       // <sequence>
	verdictPrefix   = Prefix + "verdicts/"       // <node>/<sequence>
	jobPrefix       = Prefix + "jobs/"           // <namespace>/<name>
	outcomePrefix   = Prefix + "outcomes/"       // <namespace>/<job>/<index>
)

func serviceKey(k api.Key) string { return servicePrefix + k.Namespace + "/" + k.Name }

func jobKey(k api.Key) string { return jobPrefix + k.Namespace + "/" + k.Name }

func outcomeKey(job api.Key, index int) string {
	return fmt.Sprintf("%s%s/%s/%06d", outcomePrefix, job.Namespace, job.Name, index)
}

func revisionKey(k api.Key, n int64) string {
	return fmt.Sprintf("%s%s/%s/%012d", revisionPrefix, k.Namespace, k.Name, n)
}

func placementKey(k api.ReplicaKey) string {
	return fmt.Sprintf("%s%s/%s/%06d/%020d", placementPrefix, k.Namespace, k.Service, k.Slot, k.Epoch)
}

func volumeKey(k api.VolumeKey) string {
	return fmt.Sprintf("%s%s/%s/%06d/%s", volumePrefix, k.Namespace, k.Service, k.Slot, k.Volume)
}

func volumeRemovalKey(x *volume) string {
	return fmt.Sprintf("%s%s/%s/%s/%06d/%s", removalPrefix, x.Node, x.key.Namespace, x.key.Service, x.key.Slot, x.key.Volume)
}

func configKey(id configID) string { return configPrefix + id.namespace + "/" + string(id.ref) }

func configVersionKey(id configID, n int64) string {
	return fmt.Sprintf("%s%s/%s/%012d", versionPrefix, id.namespace, string(id.ref), n)
}

func configPayloadKey(id configID, n int64) string {
	return fmt.Sprintf("%s%s/%s/%012d", payloadPrefix, id.namespace, string(id.ref), n)
}

func nodeKey(name string) string { return nodePrefix + name }

func eventKey(e *api.Event) string {
	return fmt.Sprintf("%s%s/%020d", eventPrefix, e.Namespace, e.Seq)
}

// object wraps one api object for the store.
func object(kind string, v any) []byte {
	js, err := json.Marshal(v)
	if err != nil { // the api types hold nothing that JSON cannot
		panic(fmt.Sprintf("encode %s: %v", kind, err))
	}
	return message(&orchv1.Envelope{Kind: kind, ApiVersion: api.Version, Json: js})
}

func message(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", m, err))
	}
	return b
}

// openEnvelope reads what object wrote into v.
func openEnvelope(b []byte, v any) error {
	var e orchv1.Envelope
	if err := proto.Unmarshal(b, &e); err != nil {
		return err
	}
	if e.ApiVersion != api.Version {
		return fmt.Errorf("written by another version of orch (%s)", e.ApiVersion)
	}
	return json.Unmarshal(e.Json, v)
}

func (f *filling) record() []byte {
	return message(&orchv1.Placement{Node: f.node, BootId: f.bootID, Revision: f.revision, Spare: f.spare, Stopping: f.stopping,
		Why: f.why, PlacedAt: timestamppb.New(f.placedAt), ServiceUid: f.serviceUID, Chosen: f.chosen})
}

// Load makes the picture from everything below Prefix, as the store held it at
// revision rev. An entry that cannot be read is an error: deciding on half a
// picture could stop what should run.
func (c *Core) Load(kvs []store.KV, rev int64) error {
	c.rev = rev
	for _, kv := range kvs {
		if err := c.loadEntry(kv); err != nil {
			return fmt.Errorf("read %s from the store: %w", kv.Key, err)
		}
	}
	if err := c.checkConfigs(); err != nil {
		return err
	}
	for _, s := range c.sortedServices() {
		for _, r := range s.revisions {
			if err := c.noteUser(s.key, r, true); err != nil {
				return err
			}
		}
		for _, f := range s.fillings {
			rev, ok := s.revisions[f.revision]
			if !ok {
				return fmt.Errorf("placement %s names revision %d, which the store does not hold", f.key, f.revision)
			}
			f.loaded, f.inherited = true, true
			c.index(f, rev)
			n := c.nodes[f.node]
			if n != nil && n.obj.Status.BootID == f.bootID {
				continue
			}
			// Of a life that the node's record no longer knows, or of a machine
			// that was removed: its name may be another's by now.
			f.void, f.over = true, f.lease == 0
			if n != nil {
				delete(n.fillings, f.key)
			}
		}
		c.unsettle(s.key)
		c.noteGlobal(s)
		for n := range s.revisions {
			c.view.touchRevision(s.key, n)
		}
		c.markDirty(s)
	}
	return nil
}

func (c *Core) loadEntry(kv store.KV) error {
	rest := strings.TrimPrefix(kv.Key, Prefix)
	kind, path, _ := strings.Cut(rest, "/")
	parts := strings.Split(path, "/")
	switch {
	case kv.Key == countersKey:
		var n orchv1.Counters
		if err := proto.Unmarshal(kv.Value, &n); err != nil {
			return err
		}
		c.counters = counters{n.Epoch, n.Event, n.Subnet, n.Vip}
		c.written = c.counters
	case kv.Key == networkKey:
		if err := openEnvelope(kv.Value, &c.addresses.cluster); err != nil {
			return err
		}
		return c.addresses.cluster.Validate()
	case kind == "services" && len(parts) == 2:
		s := newService(api.Key{Namespace: parts[0], Name: parts[1]})
		if err := openEnvelope(kv.Value, &s.obj); err != nil {
			return err
		}
		if old := c.services[s.key]; old != nil { // made by a placement or revision that sorts first
			s.fillings, s.revisions = old.fillings, old.revisions
		}
		c.services[s.key] = s
	case kind == "jobs" && len(parts) == 2:
		return c.loadJob(api.Key{Namespace: parts[0], Name: parts[1]}, kv.Value)
	case kind == "outcomes" && len(parts) == 3:
		return c.loadOutcome(api.Key{Namespace: parts[0], Name: parts[1]}, kv.Value)
	case kind == "revisions" && len(parts) == 3:
		r := &api.Revision{}
		if err := openEnvelope(kv.Value, r); err != nil {
			return err
		}
		c.serviceOf(api.Key{Namespace: parts[0], Name: parts[1]}).addRevision(r)
	case kind == "placements" && len(parts) == 4:
		return c.loadPlacement(parts, kv.Value)
	case kind == "volumes" && len(parts) == 4:
		return c.loadVolume("", parts, kv.Value)
	case kind == "volumeremovals" && len(parts) == 5:
		return c.loadVolume(parts[0], parts[1:], kv.Value)
	case kind == "configs" && len(parts) == 3:
		return openEnvelope(kv.Value, &c.configOf(configIDFrom(parts)).configRecord)
	case (kind == "configversions" || kind == "configpayloads") && len(parts) == 4:
		return c.loadConfigVersion(kind, parts, kv.Value)
	case kind == "nodes" && len(parts) == 1:
		obj := &api.Node{}
		if err := openEnvelope(kv.Value, obj); err != nil {
			return err
		}
		c.loadNode(obj)
	case kind == "events" && len(parts) == 2:
		e := &api.Event{}
		if err := openEnvelope(kv.Value, e); err != nil {
			return err
		}
		c.history.load(e)
		c.publishEvent(e)
	case kind == "requests" && len(parts) == 1:
		r := &request{}
		if err := openEnvelope(kv.Value, r); err != nil {
			return err
		}
		c.requests.add(r)
	case kind == "verdicts" && len(parts) == 2:
		r := &api.VerdictRecord{}
		if err := openEnvelope(kv.Value, r); err != nil {
			return err
		}
		c.loadRecord(r)
	default:
		return fmt.Errorf("unknown entry; was it written by a newer version of orch?")
	}
	return nil
}

func (c *Core) loadPlacement(parts []string, value []byte) error {
	slot, err := strconv.Atoi(parts[2])
	if err != nil {
		return err
	}
	epoch, err := strconv.ParseUint(parts[3], 10, 64)
	if err != nil {
		return err
	}
	var p orchv1.Placement
	if err := proto.Unmarshal(value, &p); err != nil {
		return err
	}
	s := c.serviceOf(api.Key{Namespace: parts[0], Name: parts[1]})
	s.insert(&filling{key: api.ReplicaKey{Namespace: parts[0], Service: parts[1], Slot: slot, Epoch: epoch},
		node: p.Node, bootID: p.BootId, revision: p.Revision, spare: p.Spare, stopping: p.Stopping, why: p.Why,
		placedAt: wire.TimeFromPB(p.PlacedAt), serviceUID: p.ServiceUid, chosen: p.Chosen})
	return nil
}
