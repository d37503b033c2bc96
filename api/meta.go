package api

import "time"

// Version is the apiVersion of every kind in this package.
const Version = "orch/v1"

// Kinds that exist today.
const (
	KindService = "Service"
	KindNode    = "Node"
	KindReplica = "Replica"
	KindEvent   = "Event"
	KindVerdict = "Verdict" // a VerdictRecord
	KindFleet   = "Fleet"
	// KindEndpoint is an address that gets a service's traffic.
	KindEndpoint = "Endpoint"
	// KindRevision is a service's Revision, named "web@3"; the leader makes them.
	KindRevision = "Revision"
	// KindConfig and KindSecret are both of the type Config.
	KindConfig = "Config"
	KindSecret = "Secret"
	KindJob    = "Job"
	// KindOutcome is how an index of a job ended, named "migrate@3"; the leader makes them.
	KindOutcome = "Outcome"
	// KindVolume is a slot's folder on its node; the leader makes them.
	KindVolume = "Volume"
)

// DefaultNamespace is where an object without metadata.namespace lives.
const DefaultNamespace = "default"

// TypeMeta says what a document is.
type TypeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

// Metadata names an object and carries what the system keeps about it.
type Metadata struct {
	// Name is a DNS label, unique within kind and namespace.
	Name string `json:"name"`
	// Namespace is a DNS label; empty means DefaultNamespace. Nodes have none.
	Namespace string `json:"namespace,omitempty"`
	// Labels are for selecting; keys and values follow Kubernetes' rules.
	Labels map[string]string `json:"labels,omitempty"`
	// Annotations are for people and tools; orch does not read them.
	Annotations map[string]string `json:"annotations,omitempty"`

	// UID tells two objects of the same name apart across a delete. Set by the
	// controller; refused in manifests unless it matches (optimistic concurrency).
	UID string `json:"uid,omitempty"`
	// ResourceVersion rises with every change of the object. In a manifest it
	// asks that the apply fail if the object changed since.
	ResourceVersion int64 `json:"resourceVersion,omitempty"`
	// Generation rises with every change of spec. Set by the controller.
	Generation int64 `json:"generation,omitempty"`
	// CreatedAt is the time of the first apply. Set by the controller.
	CreatedAt time.Time `json:"createdAt,omitzero"`
	// DeletedAt is the time of the delete, while what belongs to the object is
	// still being removed. Set by the controller.
	DeletedAt time.Time `json:"deletedAt,omitzero"`
}

// Key names one object among those of its kind.
type Key struct{ Namespace, Name string }

// String gives "namespace/name", or the name alone where there is no namespace.
func (k Key) String() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + "/" + k.Name
}

// Key returns the object's key.
func (m Metadata) Key() Key { return Key{m.Namespace, m.Name} }
