package api

import "fmt"

// Volume is a folder of one node that belongs to one slot of a service. It is made
// when the slot is first placed, outlives its replicas and the service, and pins the
// slot to its node. It is named "data.web-0".
type Volume struct {
	TypeMeta `json:",inline"`
	Metadata Metadata     `json:"metadata"`
	Spec     VolumeSpec   `json:"spec"`
	Status   VolumeStatus `json:"status,omitzero"`
}

// VolumeSpec is where a volume is; it never changes.
type VolumeSpec struct {
	// Volume is the name in the manifest's mounts.
	Volume  string `json:"volume"`
	Service string `json:"service"`
	Slot    int    `json:"slot"`
	Node    string `json:"node"`
}

// VolumeStatus is what is known of a volume.
type VolumeStatus struct {
	// UsedBy are replicas that may have it mounted: "web-0@17".
	UsedBy []string `json:"usedBy,omitempty"`
	// Removing: somebody wanted it gone, and its node has not said that it is.
	Removing  bool   `json:"removing,omitempty"`
	RemovedBy string `json:"removedBy,omitempty"`
}

// VolumeKey names a volume.
type VolumeKey struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Slot      int    `json:"slot"`
	Volume    string `json:"volume"`
}

// Name gives "data.web-0": no other volume of the namespace has it, as names have no dots.
func (k VolumeKey) Name() string { return fmt.Sprintf("%s.%s-%d", k.Volume, k.Service, k.Slot) }

// String gives "default/data.web-0".
func (k VolumeKey) String() string { return k.Namespace + "/" + k.Name() }
