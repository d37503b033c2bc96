package api

import (
	"maps"
	"slices"
	"strings"
)

// Object is what a document of a manifest declares: *Service, *Job or *Config.
type Object interface {
	// ObjectKind is its kind; GetMetadata may be changed.
	ObjectKind() string
	GetMetadata() *Metadata
	// Default fills in what was left out; doing it again changes nothing.
	Default()
	check(c *checker)
}

// ObjectKind is KindService.
func (s *Service) ObjectKind() string { return KindService }

// GetMetadata gives the service's own.
func (s *Service) GetMetadata() *Metadata { return &s.Metadata }

// ObjectKind is KindJob.
func (j *Job) ObjectKind() string { return KindJob }

// GetMetadata gives the job's own.
func (j *Job) GetMetadata() *Metadata { return &j.Metadata }

// ObjectKind is KindConfig or KindSecret.
func (c *Config) ObjectKind() string {
	if c.Kind == KindSecret {
		return KindSecret
	}
	return KindConfig
}

// GetMetadata gives the object's own.
func (c *Config) GetMetadata() *Metadata { return &c.Metadata }

// Ref names one object of any kind. An empty Kind means KindService.
type Ref struct {
	Kind string `json:"kind,omitempty"`
	Key
}

// String gives "service default/web".
func (r Ref) String() string { return kindWord(r.Kind) + " " + r.Key.String() }

func kindWord(kind string) string {
	if kind == "" {
		kind = KindService
	}
	return strings.ToLower(kind)
}

func (c *checker) meta(t TypeMeta, m *Metadata, kind string, nameMax int) {
	if t.APIVersion != "" && t.APIVersion != Version {
		c.add("apiVersion", "want %q, but found %q", Version, clip(t.APIVersion))
	}
	if t.Kind != "" && t.Kind != kind {
		c.add("kind", "want %q, but found %q", kind, clip(t.Kind))
	}
	c.report("metadata.name", nameProblem(m.Name, nameMax))
	if m.Namespace != "" {
		c.report("metadata.namespace", nameProblem(m.Namespace, MaxNamespaceName))
	}
	c.labels("metadata.labels", m.Labels)
	for _, key := range slices.Sorted(maps.Keys(m.Annotations)) {
		c.report(index("metadata.annotations", key), labelKeyProblem(key))
	}
	if m.ResourceVersion < 0 {
		c.add("metadata.resourceVersion", "is negative: leave it out, or give the one that get -o yaml shows")
	}
}

func defaultMeta(t *TypeMeta, m *Metadata, kind string) {
	if t.APIVersion == "" {
		t.APIVersion = Version
	}
	if t.Kind == "" {
		t.Kind = kind
	}
	if m.Namespace == "" {
		m.Namespace = DefaultNamespace
	}
	noneIfEmpty(&m.Labels)
	noneIfEmpty(&m.Annotations)
}
