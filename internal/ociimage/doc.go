// Package ociimage packs static programs into OCI image archives without a
// container engine: for the demo's image, and for images that tests need.
//
//	files + entrypoint + env  --Pack-->  tar: oci-layout, index.json, blobs/sha256/...
//
// Invariant: the same options give the same bytes on every machine: times are
// fixed, order is sorted, owners are root.
package ociimage
